//! The unit is called.

use rand::Rng;
use trireme_handshake::message::{self, Sender};
use trireme_token::{Nonce, Role};
use trireme_wire::tap::Header;
use trireme_wire::tcp::Flags;

use crate::book::Seal;
use crate::compare::Hook;
use crate::frames::{Dialog, PSH_ACK, payload};
use crate::live::Live;
use crate::season::Season;
use crate::steps::Course;
use crate::targets::{Caller, FRIEND, SHUT, callers};

impl Season<'_> {
    /// One handshake with the unit, as far as it comes.
    pub(crate) fn be_called(&mut self) -> Option<()> {
        let mut all = callers();
        if self.rng.random_bool(0.8) {
            all.retain(|caller| caller.slot == FRIEND && caller.to.port != SHUT);
        }
        let caller = all[self.rng.random_range(0..all.len())];
        let dialog = self.dialog_of(&caller);
        let mut course = Course::Intact;
        let syn = self.them.handle_plain(caller.slot, Hook::FromPu, &dialog.syn()).passed?;
        let seal = self.seal_of_syn(&syn);
        self.stage(Hook::ToPu, &syn, seal.as_ref(), &mut course)?;
        if self.rng.random_bool(0.1) {
            self.stage(Hook::ToPu, &syn, None, &mut course)?;
        }
        let answer = self.answer_call(&dialog, &mut course)?;
        let proof = self.proof_of(&caller, &dialog, &answer)?;
        if self.rng.random_bool(0.04) {
            let data = dialog.ahead(0, 0, PSH_ACK, b"GET /");
            self.compare(Hook::ToPu, &data, 0, Some("data before the proof"));
            course = Course::Disturbed;
        }
        let seal = self.seal_of_proof(&syn, &answer);
        self.stage(Hook::ToPu, &proof, seal.as_ref(), &mut course)?;
        if self.rng.random_bool(0.15) {
            self.stage(Hook::ToPu, &proof, seal.as_ref(), &mut course)?;
        }
        if self.rng.random_bool(0.1) {
            // The unit's stack lost the acknowledgement: it asks again, without a word about identity.
            self.stage(Hook::FromPu, &dialog.syn_ack(), None, &mut course)?;
        }
        self.live.push(Live::new(dialog, Role::Responder, caller.to));
        Some(())
    }

    fn answer_call(&mut self, dialog: &Dialog, course: &mut Course) -> Option<Vec<u8>> {
        let mut wire = self.stage(Hook::FromPu, &dialog.syn_ack(), None, course)?;
        if self.rng.random_bool(0.1) {
            let again = self.stage(Hook::FromPu, &dialog.syn_ack(), None, course)?;
            if self.rng.random_bool(0.5) {
                wire = again;
            }
        }
        Some(wire)
    }

    /// The caller's proof, made by the other engine.
    fn proof_of(&mut self, caller: &Caller, dialog: &Dialog, answer: &[u8]) -> Option<Vec<u8>> {
        self.them.handle_plain(caller.slot, Hook::ToPu, answer).passed?;
        let ack = dialog.ahead(0, 0, Flags::ACK, &[]);
        self.them.handle_plain(caller.slot, Hook::FromPu, &ack).passed
    }

    fn seal_of_syn(&self, syn: &[u8]) -> Option<Seal> {
        let theirs = message::sender(&Header::parse(payload(syn)).ok()?);
        let ours = *self.book.own.first()?;
        let keys = self.book.pair(ours, theirs.token, Role::Responder)?;
        Some(Seal { key: keys.initiator.clone(), to: Sender { token: ours, nonce: Nonce::ZERO } })
    }

    fn seal_of_proof(&self, syn: &[u8], answer: &[u8]) -> Option<Seal> {
        let theirs = message::sender(&Header::parse(payload(syn)).ok()?);
        let ours = message::sender(&Header::parse(payload(answer)).ok()?);
        let keys = self.book.pair(ours.token, theirs.token, Role::Responder)?;
        Some(Seal { key: keys.initiator.clone(), to: ours })
    }
}
