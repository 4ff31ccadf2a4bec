//! What follows from a refusal: counter, record, answer.

use std::sync::Arc;

use trireme_flow::{Action, HalfOpenKey, Reason};
use trireme_handshake::message::{self, Sender};
use trireme_identity::Direction;
use trireme_identity::time::Now;
use trireme_policy::{Decision, Mode};
use trireme_token::{Nonce, Role, TokenId, Verified};
use trireme_wire::{build, edit, tap};

use super::emit::View;
use super::{Context, Engine, Next, Unit};
use crate::{Effect, Hook, NotifyPeer, Packet, Refusal, Toward, Verdict};

/// A packet that is not to go on, and what is known about why.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) direction: Direction,
    pub(crate) reason: Reason,
    pub(crate) peer: Option<Arc<Verified>>,
    pub(crate) decision: Option<Decision>,
    /// The responder's own port, for explanations.
    pub(crate) port: Option<u16>,
    pub(crate) attested: Option<(std::net::IpAddr, u16)>,
    pub(crate) note: Option<String>,
}

impl Refused {
    pub(crate) fn new(direction: Direction, reason: Reason) -> Box<Self> {
        Box::new(Self {
            direction,
            reason,
            peer: None,
            decision: None,
            port: None,
            attested: None,
            note: None,
        })
    }

    /// For segments of no connection the hook stands for the direction.
    pub(crate) fn by_hook(hook: Hook, reason: Reason) -> Box<Self> {
        Self::new(direction_of(hook), reason)
    }

    pub(crate) fn with_peer(mut self: Box<Self>, peer: &Arc<Verified>) -> Box<Self> {
        self.peer = Some(Arc::clone(peer));
        self
    }

    pub(crate) fn with_known_peer(mut self: Box<Self>, peer: Option<&Arc<Verified>>) -> Box<Self> {
        self.peer = peer.map(Arc::clone);
        self
    }

    pub(crate) fn with_decision(mut self: Box<Self>, decision: Decision) -> Box<Self> {
        self.decision = Some(decision);
        self
    }

    pub(crate) fn with_port(mut self: Box<Self>, port: u16) -> Box<Self> {
        self.port = Some(port);
        self
    }

    pub(crate) fn with_attested(mut self: Box<Self>, attested: (std::net::IpAddr, u16)) -> Box<Self> {
        self.attested = Some(attested);
        self
    }

    pub(crate) fn with_note(mut self: Box<Self>, note: String) -> Box<Self> {
        self.note = Some(note);
        self
    }
}

/// Why a packet waited in vain.
#[derive(Clone, Debug)]
pub(crate) struct Why {
    pub(crate) reason: Reason,
    pub(crate) note: Option<String>,
}

impl From<Reason> for Why {
    fn from(reason: Reason) -> Self {
        Self { reason, note: None }
    }
}

pub(crate) const fn direction_of(hook: Hook) -> Direction {
    match hook {
        Hook::FromPu => Direction::Egress,
        Hook::ToPu => Direction::Ingress,
    }
}

impl Engine {
    /// Carries out a refusal; a unit that is only observed gets its packet all the same, without TAP.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, packet: &mut Packet, refused: Refused) -> Next {
        let reason = refused.reason;
        self.count(cx.slot, reason);
        if reason == Reason::Consumed {
            return Next::Drop(reason);
        }
        if cx.unit.policy.mode() == Mode::Observe {
            self.record(cx, &refused, Action::Accept, Some(Action::Reject));
            return if sanitize(packet) { Next::Pass } else { Next::Drop(reason) };
        }
        self.record(cx, &refused, Action::Reject, None);
        self.answer(cx, packet, &refused);
        Next::Drop(reason)
    }

    /// Refuses a packet that does not parse: there is nobody to report about.
    pub(super) fn refuse_unparsed(&mut self, unit: &Unit, packet: &Packet, reason: Reason) -> Next {
        self.count(packet.pu, reason);
        match unit.policy.mode() {
            Mode::Observe | Mode::Off => Next::Pass,
            Mode::Enforce => Next::Drop(reason),
        }
    }

    /// Refuses a packet that waited, or that could not wait.
    pub(super) fn refuse_waiting(
        &mut self,
        mut packet: Packet,
        why: &Why,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Verdict {
        match self.refuse_again(&mut packet, why, now, out) {
            Next::Pass => Verdict::Pass(packet),
            Next::Drop(_)
            | Next::Hold(_)
            | Next::HoldFlow(_)
            | Next::HoldPart(_)
            | Next::HoldFragment(_)
            | Next::Park(_)
            | Next::Sent => Verdict::Drop(why.reason),
        }
    }

    fn refuse_again(&mut self, packet: &mut Packet, why: &Why, now: Now, out: &mut Vec<Effect>) -> Next {
        let reason = why.reason;
        let Some(unit) = self.units.get(&packet.pu).map(Arc::clone) else {
            self.count(super::NO_UNIT, Reason::UnitRemoved);
            return Next::Drop(Reason::UnitRemoved);
        };
        let segment = match super::parse::parse(&mut packet.bytes) {
            Ok(super::Parsed::Tcp(segment)) => segment,
            Ok(super::Parsed::Datagram(view)) => {
                let key = super::parse::datagram_key(packet.pu, packet.hook, &view);
                let mut refused = Refused::by_hook(packet.hook, reason);
                refused.note.clone_from(&why.note);
                let mut cx = Context { unit, slot: packet.pu, key, view, now, out };
                return self.refuse_datagram(&mut cx, packet, &refused);
            }
            Ok(super::Parsed::IcmpError(_)) | Err(_) => return self.refuse_unparsed(&unit, packet, reason),
        };
        let key = super::parse::flow_key(packet.pu, packet.hook, &segment);
        let mut refused = Refused::by_hook(packet.hook, reason);
        refused.note.clone_from(&why.note);
        if segment.flags.is_syn_ack() && packet.hook == Hook::ToPu {
            refused.direction = Direction::Egress;
        }
        let isn = segment.seq.wrapping_sub(1);
        let waiting = HalfOpenKey { flow: key, role: Role::Responder, isn };
        refused.peer = self.handshakes.get(&waiting).and_then(|handshake| handshake.peer.clone());
        let mut cx = Context { unit, slot: packet.pu, key, view: segment, now, out };
        self.refuse(&mut cx, packet, *refused)
    }

    /// Answers a refused SYN, and a refused SYN-ACK towards the unit, as the settings say.
    fn answer(&mut self, cx: &mut Context<'_>, packet: &Packet, refused: &Refused) {
        let by_policy = matches!(
            refused.reason,
            Reason::PolicyIngress
                | Reason::PolicyEgress
                | Reason::PolicyNoEgress
                | Reason::NetworkAcl
                | Reason::ApplicationAcl
                | Reason::StrictIdentity
        );
        let by_policy = by_policy && cx.view.flags.intersects(trireme_wire::tcp::Flags::SYN);
        if !by_policy || !self.replies.try_take(cx.key.remote.0, cx.now.monotonic) {
            return;
        }
        if refused.reason == Reason::PolicyIngress && cx.unit.settings.notify_peer == NotifyPeer::WithReason {
            let payload = cx.view.payload(&packet.bytes).to_vec();
            self.notify(cx, &payload, refused);
        }
        // Towards the unit the answer is one to its SYN, whatever was refused.
        let (toward, syn) = match refused.direction {
            Direction::Ingress => (Toward::Network, packet.bytes.clone()),
            Direction::Egress if cx.view.flags.is_syn() => (Toward::Pu, packet.bytes.clone()),
            Direction::Egress => {
                let isn = cx.view.ack.wrapping_sub(1);
                let sent = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn };
                let Some(handshake) = self.handshakes.get(&sent) else { return };
                (Toward::Pu, handshake.syn.clone())
            }
        };
        let answer = match cx.unit.settings.refusal {
            Refusal::Silent => return,
            Refusal::Rst => build::rst_for(&syn),
            Refusal::Icmp => build::icmp_admin_prohibited(&syn),
        };
        if let Ok(bytes) = answer {
            cx.out.push(Effect::Transmit { pu: cx.slot, toward, bytes, gso_size: None });
        }
    }

    /// Tells the initiator's enforcer why its SYN was refused (kind 4).
    pub(super) fn notify<V: View>(&mut self, cx: &mut Context<'_, V>, payload: &[u8], refused: &Refused) {
        let Ok(header) = tap::Header::parse(payload) else { return };
        let Some(peer) = &refused.peer else { return };
        let Some(own) = self.own.current(&cx.unit.id).cloned() else { return };
        let Ok(keys) = self.keys(&own, peer, Role::Responder) else { return };
        let to = Sender { token: TokenId(header.token_id), nonce: Nonce(header.nonce) };
        let rule = refused.decision.as_ref().and_then(|decision| decision.rule_number).unwrap_or_default();
        let code = refused.reason.code();
        if let Ok(payload) =
            message::refusal(cx.key.protocol, own.token.id, Some(&keys.responder), to, code, rule)
        {
            self.send_control(cx, &payload);
        }
    }
}

/// Takes TAP out of a packet that is let through although it was refused; false if nothing of it is for the unit.
fn sanitize(packet: &mut Packet) -> bool {
    let Ok(segment) = trireme_wire::tcp::Segment::parse(&packet.bytes) else { return true };
    let payload = segment.payload(&packet.bytes);
    if packet.hook == Hook::FromPu || !tap::is_tap(payload) {
        return true;
    }
    match tap::peek_kind(payload) {
        Some(4 | 5) => false,
        Some(_) | None => edit::strip_payload(&mut packet.bytes, 0).is_ok(),
    }
}
