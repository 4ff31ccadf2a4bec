//! A unit sends anything but a SYN: attach the proof (kind 3) until the responder is known to have it.

use trireme_flow::{ConnectionClass, ConnectionEntry, HalfOpenKey, Reason};
use trireme_handshake::initiator::{self, Output};
use trireme_handshake::responder::{self, Attach};
use trireme_identity::Direction;
use trireme_token::Role;
use trireme_wire::edit;
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::{Endpoint, Tuple};

use super::egress_syn::strip;
use super::handshake::{Half, reason_of};
use super::refuse::Refused;
use super::{Context, Engine, Judged, Next};
use crate::{Effect, Hook, Packet};

const EGRESS: Direction = Direction::Egress;

impl Engine {
    pub(super) fn egress_segment(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        if let Some(entry) = packet.connection {
            let entry = self.current(cx, packet.hook, entry)?;
            return self.egress_established(cx, packet, &entry);
        }
        let found = self.handshake_of(cx.key, &cx.view, Hook::FromPu);
        let Some(key) = found.filter(|found| self.speaks_for(found, cx, Hook::FromPu)) else {
            return Err(Refused::new(EGRESS, Reason::Stray));
        };
        if let Some(entry) = self.handshakes.get(&key).and_then(|handshake| handshake.entry) {
            self.current(cx, packet.hook, entry)?;
        }
        match key.role {
            Role::Initiator => self.prove(cx, packet, key),
            Role::Responder => self.responding_unit(cx, packet, key),
        }
    }

    fn egress_established(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        entry: &ConnectionEntry,
    ) -> Judged {
        let proves = entry.role == Role::Initiator && !entry.confirmed;
        let key = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn: entry.proof_seq.wrapping_sub(1) };
        if proves && entry.class == ConnectionClass::Identity && self.handshakes.get(&key).is_some() {
            return self.prove(cx, packet, key);
        }
        Ok(Next::Pass)
    }

    fn prove(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let seq = cx.view.seq;
        let input = if cx.view.flags.contains(Flags::RST) {
            initiator::Input::Reset
        } else if cx.view.is_empty_ack() {
            initiator::Input::Ack { seq }
        } else {
            initiator::Input::Data { seq }
        };
        match self.step(key, input) {
            Some(Output::AttachProof(proof)) => {
                edit::append_payload(&mut packet.bytes, &proof.payload)
                    .map_err(|_| Refused::new(EGRESS, Reason::TooLarge))?;
                self.proof_sent(cx, key);
                self.set_data_seen(cx, key, packet.connection);
                Ok(Next::Pass)
            }
            Some(Output::ProofFirst(proof)) => {
                self.send_proof_before(cx, &packet.bytes, &proof);
                self.proof_sent(cx, key);
                Ok(Next::Pass)
            }
            Some(Output::Pass) => Ok(Next::Pass),
            Some(Output::Drop(fault)) => Err(Refused::new(EGRESS, reason_of(fault))),
            _ => Err(Refused::new(EGRESS, Reason::Internal)),
        }
    }

    /// After an ACK with the proof the first data needs nothing more in front of it.
    fn set_data_seen(&mut self, cx: &mut Context<'_>, key: HalfOpenKey, held: Option<ConnectionEntry>) {
        let Some(handshake) = self.handshakes.get_mut(&key) else { return };
        let Some(entry) = &mut handshake.entry else { return };
        if !entry.data_seen && !held.is_some_and(|held| held.data_seen) {
            return;
        }
        entry.data_seen = false;
        cx.out.push(Effect::Install(cx.key, *entry));
    }

    /// A proof that stays unconfirmed may be lost in a stale conntrack entry of this node: let it start anew.
    pub(super) fn proof_sent(&mut self, cx: &mut Context<'_>, key: HalfOpenKey) {
        let Some(handshake) = self.handshakes.get_mut(&key) else { return };
        handshake.proofs = handshake.proofs.saturating_add(1);
        if handshake.proofs == self.config.forget_conntrack_after.saturating_add(1) {
            let tuple = Tuple::new(Endpoint::from(cx.key.local), Endpoint::from(cx.key.remote));
            cx.out.push(Effect::ForgetConntrack(tuple));
        }
    }

    fn responding_unit(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let input = if cx.view.flags.contains(Flags::RST) {
            responder::Input::Reset
        } else {
            responder::Input::Segment
        };
        let refused = |reason| Refused::new(Direction::Ingress, reason);
        match self.step_responder(key, input) {
            Some(responder::Output::Pass) => Ok(Next::Pass),
            Some(responder::Output::Attest) => {
                if cx.view.payload_len() > 0 {
                    self.note(cx, Direction::Ingress, Reason::PayloadFromPu);
                    strip(packet, Direction::Ingress)?;
                }
                self.answer_syn(cx, packet, key, Attach::Full)
            }
            Some(responder::Output::Drop(fault)) => Err(refused(reason_of(fault))),
            _ => Err(refused(Reason::Internal)),
        }
    }

    /// Takes an input through a responder's state machine.
    pub(super) fn step_responder(
        &mut self,
        key: HalfOpenKey,
        input: responder::Input<'_>,
    ) -> Option<responder::Output> {
        match &mut self.handshakes.get_mut(&key)?.half {
            Half::Responder(responder) => Some(responder.handle(input)),
            Half::Initiator(_) => None,
        }
    }
}
