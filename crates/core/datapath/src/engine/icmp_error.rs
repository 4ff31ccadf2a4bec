//! ICMP errors: those about known connections and flows pass, without TAP in what they quote.

use trireme_flow::{FlowKey, Reason};
use trireme_identity::Protocol;
use trireme_identity::time::Now;
use trireme_policy::Mode;
use trireme_token::Role;
use trireme_wire::icmp::{self, Embedded};

use super::{Engine, Next, Unit};
use crate::{Hook, Packet};

impl Engine {
    pub(super) fn icmp_error(
        &mut self,
        unit: &Unit,
        packet: &mut Packet,
        error: &Embedded,
        now: Now,
    ) -> Next {
        let judged = self.judge_icmp_error(unit, packet, error, now);
        let Err(reason) = judged else { return Next::Pass };
        self.count(packet.pu, reason);
        match unit.policy.mode() {
            Mode::Observe | Mode::Off => Next::Pass,
            Mode::Enforce => Next::Drop(reason),
        }
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
        // The error goes to whom the quoted packet came from.
        let (local, remote) = match packet.hook {
            Hook::ToPu => (error.tuple.src, error.tuple.dst),
            Hook::FromPu => (error.tuple.dst, error.tuple.src),
        };
        let quoted = &error.quoted_ip;
        let key = FlowKey::new(packet.pu, quoted.protocol, local.into(), remote.into());
        let known = packet.connection.is_some()
            || [Role::Initiator, Role::Responder]
                .into_iter()
                .any(|role| self.handshakes.of_flow(key, role).next().is_some());
        let other = quoted.protocol != Protocol::TCP
            && (self.knows_flow(&key)
                || self.knows_fragment(packet.pu, quoted, now)
                || !unit.judges_other_protocols());
        if !known && !other {
            return Err(Reason::IcmpUnknown);
        }
        icmp::cut_embedded_payload(&mut packet.bytes).map(drop).map_err(|_| Reason::Malformed)
    }
}
