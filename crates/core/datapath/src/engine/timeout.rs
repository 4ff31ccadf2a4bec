//! What happens because time passes, and what happens because a signature check is over.

use std::sync::Arc;

use trireme_flow::{Action, Reason};
use trireme_identity::Direction;
use trireme_identity::time::{Instant, Now};
use trireme_token::Role;

use super::authenticate::verify_reason;
use super::record::Scene;
use super::refuse::{Refused, Why};
use super::{Engine, Handshake};
use crate::{Effect, Hook, Packet, Verdict, VerifyDone};

impl Engine {
    /// Goes on with the packets that waited for a signature check.
    pub fn handle_verified(&mut self, done: VerifyDone, now: Now, out: &mut Vec<Effect>) {
        let VerifyDone { id, result } = done;
        let Some(parked) = self.jobs.end(id) else { return };
        match result {
            Ok(verified) => {
                self.tokens.insert(Arc::new(verified));
                for packet in parked {
                    let verdict = self.handle_packet(packet, now, out);
                    transmit(verdict, out);
                }
            }
            Err(error) => {
                let why = Why { reason: verify_reason(&error), note: Some(error.to_string()) };
                self.refuse_all(parked, &why, now, out);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rotation = (!self.units.is_empty()).then_some(self.rotate_at);
        let due = [
            self.held.next(),
            self.fragments_held.next(),
            self.fragments.next(),
            self.retries.next(),
            self.waiting.next(),
            self.jobs.next_deadline(),
            self.handshakes.next(),
            self.records.next(),
            rotation,
        ];
        due.into_iter().flatten().min()
    }

    /// Does what is due: drops what waited too long, forgets handshakes, emits records, makes new tokens.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some((_, packets)) = self.held.pop_due(now.monotonic) {
            self.refuse_all(packets, &Reason::ProofMissing.into(), now, out);
        }
        while let Some((_, packets)) = self.fragments_held.pop_due(now.monotonic) {
            self.refuse_all(packets, &Reason::FragmentOrphan.into(), now, out);
        }
        self.fragments.expire(now.monotonic);
        self.handle_retries(now, out);
        while let Some((_, packets)) = self.waiting.pop_due(now.monotonic) {
            let (from, to): (Vec<_>, Vec<_>) =
                packets.into_iter().partition(|packet| packet.hook == Hook::FromPu);
            self.refuse_all(from, &Reason::HandshakeTimeout.into(), now, out);
            self.refuse_all(to, &Reason::ProofMissing.into(), now, out);
        }
        while let Some(packets) = self.jobs.pop_due(now.monotonic) {
            self.refuse_all(packets, &Reason::VerifyTotal.into(), now, out);
        }
        while let Some((key, handshake)) = self.handshakes.pop_due(now.monotonic) {
            self.held.take(key);
            self.report_timeout(key.flow, key.role, &handshake, now, out);
        }
        while let Some(record) = self.records.pop_due(now.monotonic) {
            out.push(Effect::Record(record));
        }
        if !self.units.is_empty() {
            self.rotate_if_due(now, out);
        }
    }

    /// A handshake that never completed is worth a record.
    fn report_timeout(
        &mut self,
        key: trireme_flow::FlowKey,
        role: Role,
        handshake: &Handshake,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(unit) = self.units.get(&key.pu).map(Arc::clone) else { return };
        if handshake.entry.is_some() {
            return;
        }
        let direction = match role {
            Role::Initiator => Direction::Egress,
            Role::Responder => Direction::Ingress,
        };
        let about =
            Refused::new(direction, Reason::HandshakeTimeout).with_known_peer(handshake.peer.as_ref());
        self.count(key.pu, Reason::HandshakeTimeout);
        let scene = Scene { unit: &unit, key, now };
        self.record_in(&scene, out, &about, Action::Reject, None);
    }

    fn refuse_all(&mut self, packets: Vec<Packet>, why: &Why, now: Now, out: &mut Vec<Effect>) {
        for packet in packets {
            let verdict = self.refuse_waiting(packet, why, now, out);
            transmit(verdict, out);
        }
    }
}

/// A packet that waited goes on as an effect.
pub(super) fn transmit(verdict: Verdict, out: &mut Vec<Effect>) {
    match verdict {
        Verdict::Pass(Packet { pu, hook, bytes, gso_size, .. }) => {
            out.push(Effect::Transmit { pu, toward: hook.into(), bytes, gso_size });
        }
        Verdict::Drop(_) | Verdict::Held => {}
    }
}
