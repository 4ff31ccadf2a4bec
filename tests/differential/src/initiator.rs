//! The unit calls.

use rand::Rng;
use trireme_handshake::message;
use trireme_token::Role;
use trireme_wire::tap::Header;
use trireme_wire::tcp::Flags;

use crate::book::Seal;
use crate::compare::Hook;
use crate::frames::{Dialog, PSH_ACK, payload};
use crate::live::Live;
use crate::season::Season;
use crate::steps::Course;
use crate::targets::{FRIEND, SHUT, Target, targets};

impl Season<'_> {
    /// One handshake of the unit's, as far as it comes.
    pub(crate) fn call(&mut self) -> Option<()> {
        let mut all = targets();
        if self.rng.random_bool(0.8) {
            all.retain(|target| target.slot == FRIEND && target.called.port != SHUT);
        }
        let target = all[self.rng.random_range(0..all.len())];
        let dialog = self.dialog_with(&target);
        let mut course = Course::Intact;
        let syn = self.open(&dialog, &mut course)?;
        let answer = self.answer(&target, &dialog, &syn)?;
        if self.rng.random_bool(0.03) {
            // Nothing is established yet.
            course = Course::Disturbed;
            self.compare(Hook::FromPu, &dialog.ahead(0, 0, Flags::ACK, &[]), 0, Some("before the SYN-ACK"));
        }
        let seal = self.seal_of_answer(&syn, &answer);
        self.stage(Hook::ToPu, &answer, seal.as_ref(), &mut course)?;
        self.prove(&target, &dialog, &answer, &mut course)?;
        self.live.push(Live::new(dialog, Role::Initiator, target.called));
        Some(())
    }

    /// The SYN, with or without repetitions.
    fn open(&mut self, dialog: &Dialog, course: &mut Course) -> Option<Vec<u8>> {
        let mut wire = self.stage(Hook::FromPu, &dialog.syn(), None, course)?;
        if self.rng.random_bool(0.1) {
            let again = self.stage(Hook::FromPu, &dialog.syn(), None, course)?;
            if self.rng.random_bool(0.5) {
                wire = again;
            }
            if self.rng.random_bool(0.2) {
                self.compare(Hook::FromPu, &dialog.syn(), 0, Some("third SYN"));
                return None;
            }
        }
        Some(wire)
    }

    /// The acknowledgement that carries the proof, or what stacks send in its place.
    fn prove(&mut self, target: &Target, dialog: &Dialog, answer: &[u8], course: &mut Course) -> Option<()> {
        match self.rng.random_range(0..100) {
            0..5 => {
                self.compare(Hook::FromPu, &dialog.ahead(0, 0, PSH_ACK, b"GET /"), 0, Some("data first"));
                return None;
            }
            5..8 => {
                self.compare(Hook::FromPu, &dialog.ahead(5, 0, Flags::ACK, &[]), 0, Some("ACK further on"));
                return None;
            }
            _ => {}
        }
        let ack = dialog.ahead(0, 0, Flags::ACK, &[]);
        let wire = self.stage(Hook::FromPu, &ack, None, course)?;
        let delivered = self.deliver(target, &wire);
        if *course == Course::Intact && delivered.is_none() {
            self.tally.diverge("the other end refuses the proof".to_owned(), crate::frames::hex(&wire));
        }
        if self.rng.random_bool(0.1) {
            // It was lost: the responder asks again, and the stack acknowledges again.
            self.stage(Hook::ToPu, answer, None, course)?;
            self.stage(Hook::FromPu, &ack, None, course)?;
        }
        if self.rng.random_bool(0.8) {
            self.stage(Hook::FromPu, &dialog.ahead(0, 0, PSH_ACK, b"GET /"), None, course)?;
        }
        Some(())
    }

    /// With which key the responder's enforcer makes its answer to this SYN.
    fn seal_of_answer(&self, syn: &[u8], answer: &[u8]) -> Option<Seal> {
        let ours = message::sender(&Header::parse(payload(syn)).ok()?);
        let theirs = message::sender(&Header::parse(payload(answer)).ok()?);
        let keys = self.book.pair(ours.token, theirs.token, Role::Initiator)?;
        Some(Seal { key: keys.responder.clone(), to: ours })
    }
}
