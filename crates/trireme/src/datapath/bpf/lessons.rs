//! What the engine teaches goes into the tables of the programs.

use std::hash::{DefaultHasher, Hash, Hasher};

use tracing::warn;
use trireme_bpf::{OwnTokenState, PlaneError};
use trireme_datapath::{Lesson, OwnAttachment};
use trireme_flow::PuSlot;

use super::convert::{self, fast};
use super::supervisor::BpfSupervisor;
use super::{lesson, state};
use crate::controller;
use crate::datapath::supervisor::Taught;

impl BpfSupervisor {
    pub(super) fn take_lesson(&mut self, lesson: &Lesson) -> Result<Taught, PlaneError> {
        match lesson {
            Lesson::OwnTokens { pu, tokens } => {
                self.own_tokens(*pu, tokens)?;
                return Ok(Taught::Other);
            }
            // Peers are taught with every handshake that the engine judges; mostly nothing about them is new.
            Lesson::Peer { token, slot, generation, until, key, own_key } => {
                let mut hasher = DefaultHasher::new();
                fast::peer((*slot, *generation), *until, *key, *own_key).hash(&mut hasher);
                let digest = hasher.finish();
                if self.taught.get(token) == Some(&digest) {
                    return Ok(Taught::Other);
                }
                lesson::write(&mut self.plane, lesson)?;
                self.taught.insert(*token, digest);
                return Ok(Taught::Peers);
            }
            Lesson::ForgetPeer(token) => {
                self.taught.remove(token);
                lesson::write(&mut self.plane, lesson)?;
                return Ok(Taught::Peers);
            }
            Lesson::Pair { .. }
            | Lesson::Verdict { .. }
            | Lesson::Destination { .. }
            | Lesson::ForgetDestination { .. }
            | Lesson::Refusal { .. } => {}
        }
        lesson::write(&mut self.plane, lesson)?;
        Ok(Taught::Other)
    }

    /// Tokens first, then the unit that names them; what no unit names any more goes last.
    fn own_tokens(&mut self, pu: PuSlot, tokens: &[OwnAttachment]) -> Result<(), PlaneError> {
        let mut own: [Option<OwnTokenState>; 2] = [None; 2];
        let mut outcome = Ok(());
        for (place, attachment) in own.iter_mut().zip(tokens) {
            match self.plane.own_token_insert(&attachment.id.0, &attachment.token, &attachment.credential) {
                Ok(()) => *place = Some(fast::own_token(attachment)),
                // The programs use no token that they do not have.
                Err(error) => outcome = Err(error),
            }
        }
        let before = if tokens.is_empty() { self.own.remove(&pu) } else { self.own.insert(pu, own) };
        if let Some((unit, held)) = self.units.get_mut(&pu) {
            *held = state::of(unit, held.epoch, own);
            self.plane.update(convert::slot(pu), *held)?;
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
