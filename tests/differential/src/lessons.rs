//! What the engine teaches, carried into the plane as the agent does it.

use trireme::datapath::bpf::testing::{own_token, write_lesson};
use trireme_bpf::{Plane, PuState};
use trireme_datapath::{Lesson, OwnAttachment};

use crate::bed::PU;

/// Writes one fact; `state` is the unit's, with its tokens.
pub(crate) fn carry(plane: &mut Plane, state: &mut PuState, lesson: &Lesson) {
    if let Lesson::OwnTokens { tokens, .. } = lesson {
        carry_own_tokens(plane, state, tokens);
    } else {
        write_lesson(plane, lesson).unwrap();
    }
}

fn carry_own_tokens(plane: &mut Plane, state: &mut PuState, tokens: &[OwnAttachment]) {
    for id in plane.own_tokens().unwrap() {
        plane.own_token_remove(&id).unwrap();
    }
    for own in tokens {
        plane.own_token_insert(&own.id.0, &own.token, &own.credential).unwrap();
    }
    let mut states = tokens.iter().map(own_token);
    state.own = [states.next(), states.next()];
    if !plane.edges().is_empty() {
        plane.update(PU, *state).unwrap();
    }
}
