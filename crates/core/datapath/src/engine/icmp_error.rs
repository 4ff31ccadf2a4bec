//! ICMP errors: those about known connections pass, without TAP in what they quote.

use trireme_flow::{FlowKey, Reason};
use trireme_policy::Mode;
use trireme_token::Role;
use trireme_wire::icmp::{self, EmbeddedTcp};

use super::{Engine, Next, Unit};
use crate::{Hook, Packet};

impl Engine {
    pub(super) fn icmp_error(&mut self, unit: &Unit, packet: &mut Packet, error: &EmbeddedTcp) -> Next {
        let judged = self.judge_icmp_error(packet, error);
        let Err(reason) = judged else { return Next::Pass };
        self.count(packet.pu, reason);
        match unit.policy.mode() {
            Mode::Observe | Mode::Off => Next::Pass,
            Mode::Enforce => Next::Drop(reason),
        }
    }

    fn judge_icmp_error(&mut self, packet: &mut Packet, error: &EmbeddedTcp) -> Result<(), Reason> {
        if !icmp::verify(&packet.bytes) {
            return Err(Reason::BadChecksum);
        }
        // The error goes to whom the quoted packet came from.
        let (local, remote) = match packet.hook {
            Hook::ToPu => (error.tuple.src, error.tuple.dst),
            Hook::FromPu => (error.tuple.dst, error.tuple.src),
        };
        let key = FlowKey { pu: packet.pu, local: local.into(), remote: remote.into() };
        let known = packet.connection.is_some()
            || [Role::Initiator, Role::Responder]
                .into_iter()
                .any(|role| self.handshakes.of_flow(key, role).next().is_some());
        if !known {
            return Err(Reason::IcmpUnknown);
        }
        icmp::cut_embedded_payload(&mut packet.bytes).map(drop).map_err(|_| Reason::Malformed)
    }
}
