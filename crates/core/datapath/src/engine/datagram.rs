//! A packet of any protocol but TCP: find its flow, else judge whoever sent first.

use trireme_flow::{Action, ConnectionClass, ConnectionEntry, FlowKey, Reason};
use trireme_identity::time::Instant;
use trireme_policy::Mode;
use trireme_token::Role;
use trireme_wire::build::{self, Unreachable};
use trireme_wire::datagram::{Datagram, Sender, Transport};

use super::essential::{Need, need};
use super::handshake::{Handshake, ON_THE_WAY};
use super::refuse::{Refused, direction_of};
use super::{Context, Engine, Judged, Next, authorize};
use crate::{Block, Effect, Hook, Packet, Refusal, Toward};

/// A flow that was admitted lately: its next packets may have been on their way before its entry was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    entry: ConnectionEntry,
    at: Instant,
}

impl Engine {
    pub(super) fn judge_datagram(&mut self, cx: &mut Context<'_, Datagram>, packet: &mut Packet) -> Next {
        let judged = match need(&cx.unit, &cx.key, &cx.view, packet.hook) {
            Need::Vital => return Next::Pass,
            Need::RoutersOnly => Err(Refused::by_hook(packet.hook, Reason::RouterSpoof)),
            Need::Ordinary => self.dispatch_datagram(cx, packet),
        };
        judged.unwrap_or_else(|refused| self.refuse_datagram(cx, packet, &refused))
    }

    fn dispatch_datagram(&mut self, cx: &mut Context<'_, Datagram>, packet: &mut Packet) -> Judged {
        if cx.view.transport == Transport::Later {
            return self.later_fragment(cx, packet.hook);
        }
        if let Some(next) = self.exchange_message(cx, packet) {
            return Ok(next);
        }
        match self.entry_of(cx, packet) {
            Some(entry) => drop(self.current(cx, packet.hook, entry)?),
            None if cx.view.sender() == Sender::Responder => return self.judge_lone_reply(cx, packet.hook),
            None => return self.judge_first(cx, packet),
        }
        Ok(self.pass_datagram(cx, packet))
    }

    /// A packet of no flow that is known: by identity where there can be one, else by address.
    fn judge_first(&mut self, cx: &mut Context<'_, Datagram>, packet: &mut Packet) -> Judged {
        match packet.hook {
            Hook::FromPu if self.shows_identity(cx) => return self.open_exchange(cx, packet),
            Hook::FromPu => {}
            Hook::ToPu => {
                if let Some(next) = self.before_identity(cx)? {
                    return Ok(next);
                }
            }
        }
        self.begin_flow(cx, packet.hook)?;
        Ok(self.pass_datagram(cx, packet))
    }

    /// Lets a packet of an admitted flow go on, and the fragments that follow it.
    pub(super) fn pass_datagram(&mut self, cx: &mut Context<'_, Datagram>, packet: &mut Packet) -> Next {
        if cx.view.ip.fragment.is_some() { self.first_fragment(cx, packet) } else { Next::Pass }
    }

    /// The entry that lets a packet pass: the back end's, or one that is being written.
    pub(super) fn entry_of(
        &mut self,
        cx: &Context<'_, Datagram>,
        packet: &Packet,
    ) -> Option<ConnectionEntry> {
        let part = part_of(packet.hook, cx.view.sender());
        let fits = |entry: &ConnectionEntry| part.is_none_or(|part| part == entry.role);
        let lately = self.flows.get_mut(&cx.key).filter(|known| {
            known.entry.epoch == cx.unit.epoch && cx.now.monotonic.since(known.at) <= ON_THE_WAY
        });
        packet.connection.or_else(|| lately.map(|known| known.entry)).filter(fits)
    }

    /// Judges the end that sent first, by its address.
    pub(super) fn begin_flow(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        hook: Hook,
    ) -> Result<(), Box<Refused>> {
        let direction = direction_of(hook);
        let (decision, reason) = authorize::address(&cx.unit, direction, cx.key)?;
        self.admit_flow(cx, hook);
        let port = authorize::called_port(direction, cx.key);
        self.record_accept(cx, &Refused::new(direction, reason).with_decision(decision).with_port(port));
        Ok(())
    }

    pub(super) fn admit_flow(&mut self, cx: &mut Context<'_, Datagram>, hook: Hook) {
        let entry = Handshake::address_entry(role_of(hook), cx.unit.epoch, NO_PROOF);
        self.install_flow(cx, entry);
    }

    /// Writes an entry. Of two exchanges, one from each end, the one with the lower name says at both ends who began.
    pub(super) fn install_flow<V>(&mut self, cx: &mut Context<'_, V>, entry: ConnectionEntry) {
        let is_identity = |entry: &ConnectionEntry| entry.class == ConnectionClass::Identity;
        let stays = self.flows.peek(&cx.key).is_some_and(|known| {
            is_identity(&known.entry)
                && is_identity(&entry)
                && known.entry.epoch == entry.epoch
                && known.entry.role != entry.role
                && known.entry.proof_seq < entry.proof_seq
        });
        if !stays {
            self.flows.insert(cx.key, Admitted { entry, at: cx.now.monotonic });
            cx.out.push(Effect::Install(cx.key, entry));
        }
    }

    /// A reply to a query that is not known here, any more: passes by a rule about its own type, for this once.
    fn judge_lone_reply(&mut self, cx: &mut Context<'_, Datagram>, hook: Hook) -> Judged {
        let Transport::Icmp(message) = &cx.view.transport else {
            return Err(Refused::by_hook(hook, Reason::Internal));
        };
        let direction = direction_of(hook);
        let kind = u16::from_be_bytes([message.icmp_type, message.icmp_code]);
        let FlowKey { pu, protocol, local, remote } = cx.key;
        let key = match hook {
            Hook::FromPu => FlowKey::new(pu, protocol, local, (remote.0, kind)),
            Hook::ToPu => FlowKey::new(pu, protocol, (local.0, kind), remote),
        };
        let (decision, reason) = authorize::address(&cx.unit, direction, key)?;
        self.record_accept(cx, &Refused::new(direction, reason).with_decision(decision).with_port(kind));
        Ok(Next::Pass)
    }

    /// Whether a flow was admitted here lately.
    pub(super) fn knows_flow(&self, key: &FlowKey) -> bool {
        self.flows.peek(key).is_some()
    }

    /// Carries out a refusal; a unit that is only observed gets its packet all the same.
    pub(super) fn refuse_datagram(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        packet: &mut Packet,
        refused: &Refused,
    ) -> Next {
        let reason = refused.reason;
        self.count(cx.slot, reason);
        if reason == Reason::Consumed {
            return Next::Drop(reason);
        }
        if cx.unit.policy.mode() == Mode::Observe {
            self.record(cx, refused, Action::Accept, Some(Action::Reject));
            // What would be refused again with every packet need not be asked again.
            if is_by_policy(reason) && cx.view.sender() != Sender::Responder {
                self.admit_flow(cx, packet.hook);
            }
            return match cx.view.transport {
                Transport::Later => Next::Pass,
                Transport::Ports(_) | Transport::Icmp(_) | Transport::Opaque => {
                    self.pass_datagram(cx, packet)
                }
            };
        }
        self.record(cx, refused, Action::Reject, None);
        self.forget_fragment(cx);
        if is_by_policy(reason) {
            self.answer_or_block(cx, packet, refused);
        }
        Next::Drop(reason)
    }

    /// Answers as the settings say; where they say nothing, the flow's next packets are dropped without a question.
    fn answer_or_block(&mut self, cx: &mut Context<'_, Datagram>, packet: &Packet, refused: &Refused) {
        let why = match cx.unit.settings.refusal {
            Refusal::Silent => return self.block(cx, packet.hook, refused),
            Refusal::Rst => Unreachable::Port,
            Refusal::Icmp => Unreachable::Prohibited,
        };
        if !self.replies.try_take(cx.key.remote.0, cx.now.monotonic) {
            return;
        }
        // The answer goes back to where the packet came from.
        let toward = match packet.hook {
            Hook::FromPu => Toward::Pu,
            Hook::ToPu => Toward::Network,
        };
        if let Ok(bytes) = build::icmp_unreachable(&packet.bytes, why) {
            cx.out.push(Effect::Transmit { pu: cx.slot, toward, bytes, gso_size: None });
        }
    }

    fn block(&self, cx: &mut Context<'_, Datagram>, hook: Hook, refused: &Refused) {
        let decision = refused.decision.as_ref();
        let is_told = decision.is_some_and(|decision| decision.log || decision.observed.is_some());
        // Whoever is known to have an enforcer may yet be asked to begin, and a reply has another name than its own flow.
        let may_begin = hook == Hook::ToPu
            && authorize::has_identity(cx.key.protocol)
            && self.agents.met(cx.slot, cx.key.remote.0).is_some();
        if is_told || may_begin || cx.view.sender() == Sender::Responder {
            return;
        }
        let block = Block {
            role: role_of(hook),
            epoch: cx.unit.epoch,
            reason: refused.reason,
            rule: decision.and_then(|decision| decision.rule_number),
            lasts: self.config.block_time,
        };
        cx.out.push(Effect::Block(cx.key, block));
    }
}

/// Flows without connections have no proof.
const NO_PROOF: u32 = u32::MAX;

/// The unit's part, if it is the one that sends first.
const fn role_of(hook: Hook) -> Role {
    match hook {
        Hook::FromPu => Role::Initiator,
        Hook::ToPu => Role::Responder,
    }
}

/// The unit's part as a packet of the flow tells it.
const fn part_of(hook: Hook, sender: Sender) -> Option<Role> {
    match (sender, hook) {
        (Sender::Initiator, Hook::FromPu) | (Sender::Responder, Hook::ToPu) => Some(Role::Initiator),
        (Sender::Initiator, Hook::ToPu) | (Sender::Responder, Hook::FromPu) => Some(Role::Responder),
        (Sender::Either, Hook::FromPu | Hook::ToPu) => None,
    }
}

const fn is_by_policy(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NetworkAcl
            | Reason::ApplicationAcl
            | Reason::StrictIdentity
            | Reason::ProtocolDenied
            | Reason::PolicyIngress
            | Reason::PolicyEgress
            | Reason::PolicyNoEgress
            | Reason::PolicyChanged
    )
}
