//! What the engine teaches goes into the tables of the programs.

use std::hash::{DefaultHasher, Hash, Hasher};

use tracing::{debug, warn};
use trireme_bpf::{OwnTokenState, PlaneError};
use trireme_datapath::{Lesson, OwnAttachment};
use trireme_flow::PuSlot;

use super::super::convert;
use super::super::convert::fast;
use super::super::lesson;
use super::{Loop, units};
use crate::controller;

impl Loop {
    /// A table without room leaves the next handshake to the engine, as if nothing had been taught.
    pub(super) fn teach(&mut self, lesson: Lesson) {
        if let Err(error) = self.try_to_teach(&lesson) {
            self.meter.untaught = self.meter.untaught.saturating_add(1);
            debug!(error = controller::chain(&error), "lesson not written");
        }
    }

    fn try_to_teach(&mut self, lesson: &Lesson) -> Result<(), PlaneError> {
        match lesson {
            Lesson::OwnTokens { pu, tokens } => return self.own_tokens(*pu, tokens),
            // Peers are taught with every handshake that the engine judges; mostly nothing about them is new.
            Lesson::Peer { token, slot, generation, until, key, own_key } => {
                let mut hasher = DefaultHasher::new();
                fast::peer((*slot, *generation), *until, *key, *own_key).hash(&mut hasher);
                let digest = hasher.finish();
                if self.taught.get(token) == Some(&digest) {
                    return Ok(());
                }
                lesson::write(&mut self.plane, lesson)?;
                self.taught.insert(*token, digest);
                self.unsaved.peers = true;
                return Ok(());
            }
            Lesson::ForgetPeer(token) => {
                self.taught.remove(token);
                self.unsaved.peers = true;
            }
            Lesson::Pair { .. }
            | Lesson::Verdict { .. }
            | Lesson::Destination { .. }
            | Lesson::ForgetDestination { .. }
            | Lesson::Refusal { .. } => {}
        }
        lesson::write(&mut self.plane, lesson)
    }

    /// Tokens first, then the unit that names them; what no unit names any more goes last.
    fn own_tokens(&mut self, pu: PuSlot, tokens: &[OwnAttachment]) -> Result<(), PlaneError> {
        self.unsaved.units = true;
        let mut own: [Option<OwnTokenState>; 2] = [None; 2];
        let mut outcome = Ok(());
        for (place, attachment) in own.iter_mut().zip(tokens) {
            match self.plane.own_token_insert(&attachment.id.0, &attachment.token, &attachment.credential) {
                Ok(()) => *place = Some(fast::own_token(attachment)),
                // The programs use no token that they do not have.
                Err(error) => outcome = Err(error),
            }
        }
        let before = self.own.insert(pu, own);
        let held = self.units.values_mut().find(|held| held.slot == pu);
        if let Some(held) = held {
            held.state = units::state(&held.unit, held.state.epoch, own);
            self.plane.update(convert::slot(pu), held.state)?;
        }
        for token in before.into_iter().flatten().flatten() {
            if own.iter().flatten().all(|kept| kept.token != token.token) {
                self.plane.own_token_remove(&token.token)?;
            }
        }
        outcome
    }

    /// Takes the tokens of a unit that has gone, or of none, from the programs.
    pub(super) fn forget_own_tokens(&mut self) {
        let named = |token: &[u8; 16]| self.own.values().flatten().flatten().any(|own| own.token == *token);
        let strangers = self.plane.own_tokens().map(|all| {
            let strangers: Vec<[u8; 16]> = all.into_iter().filter(|token| !named(token)).collect();
            strangers
        });
        let removed = strangers.and_then(|strangers| {
            strangers.iter().try_for_each(|token| self.plane.own_token_remove(token).map(drop))
        });
        if let Err(error) = removed {
            warn!(error = controller::chain(&error), "tokens of units that have gone are not removed");
        }
    }
}
