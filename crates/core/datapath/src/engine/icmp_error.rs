//! ICMP errors: those about known connections and flows pass, without TAP in what they quote.

use std::sync::Arc;

use trireme_flow::{FlowKey, Reason};
use trireme_identity::Protocol;
use trireme_identity::time::Now;
use trireme_policy::Mode;
use trireme_token::Role;
use trireme_wire::icmp::{self, Embedded};

use super::{Context, Engine, Next, Unit};
use crate::{Effect, Hook, Packet};

/// Whose packet an error is about.
enum Whose {
    Units,
    Enforcers,
}

impl Engine {
    pub(super) fn icmp_error(
        &mut self,
        unit: &Arc<Unit>,
        packet: &mut Packet,
        error: &Embedded,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Next {
        let judged = self.judge_icmp_error(unit, packet, error, now).and_then(|()| {
            match self.end_unreachable(unit, packet, error, now, out) {
                Whose::Units => Ok(()),
                Whose::Enforcers => Err(Reason::Consumed),
            }
        });
        let Err(reason) = judged else { return Next::Pass };
        self.count(packet.pu, reason);
        if reason == Reason::Consumed {
            return Next::Drop(reason);
        }
        match unit.policy.mode() {
            Mode::Observe | Mode::Off => Next::Pass,
            Mode::Enforce => Next::Drop(reason),
        }
    }

    /// An answer to kind 1 over UDP from where no enforcer has been seen: nothing more is expected of it. If no datagram of
    /// the unit's is on its way, the answer is not for the unit.
    fn end_unreachable(
        &mut self,
        unit: &Arc<Unit>,
        packet: &Packet,
        error: &Embedded,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Whose {
        let (local, remote) = (error.tuple.src.into(), error.tuple.dst.into());
        let flow = FlowKey::new(packet.pu, error.quoted_ip.protocol, local, remote);
        let about_ours =
            flow.protocol == Protocol::UDP && packet.hook == Hook::ToPu && error.is_unreachable();
        let Some(key) = self.exchange_of(flow).filter(|_| about_ours) else { return Whose::Units };
        // What waits has not been sent.
        let sent = packet.connection.is_some() || !self.waiting.has(flow);
        if self.agents.met(packet.pu, flow.remote.0).is_none() {
            let mut cx = Context { unit: Arc::clone(unit), slot: packet.pu, key: flow, view: (), now, out };
            self.end_exchange(&mut cx, key);
        }
        if sent { Whose::Units } else { Whose::Enforcers }
    }

    fn judge_icmp_error(
        &self,
        unit: &Unit,
        packet: &mut Packet,
        error: &Embedded,
        now: Now,
    ) -> Result<(), Reason> {
        if !icmp::verify(&packet.bytes) {
            return Err(Reason::BadChecksum);
        }
        let quoted = &error.quoted_ip;
        let key = packet.hook.quoted_flow(packet.pu, quoted.protocol, error.tuple);
        let known = packet.connection.is_some()
            || [Role::Initiator, Role::Responder]
                .into_iter()
                .any(|role| self.handshakes.of_flow(key, role).next().is_some());
        let other = quoted.protocol != Protocol::TCP
            && (self.knows_flow(&key, now)
                || self.knows_fragment(packet.pu, quoted, now)
                || !unit.judges_other_protocols());
        if !known && !other {
            return Err(Reason::IcmpUnknown);
        }
        icmp::cut_embedded_payload(&mut packet.bytes).map(drop).map_err(|_| Reason::Malformed)
    }
}
