//! Identities over UDP: messages of enforcers among a flow's datagrams, and datagrams that come before them.

use std::time::Duration;

use trireme_flow::{Action, ConnectionClass, HalfOpenKey, Reason};
use trireme_handshake::initiator::{Input, Message, Output};
use trireme_handshake::message::{self, Seal, Sender};
use trireme_handshake::responder::{self, Attach};
use trireme_identity::time::Instant;
use trireme_identity::{Direction, Protocol};
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, PairKeys, RandomSource, Role, TokenId, Verified};
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::Datagram;
use trireme_wire::tap::{self, Body, Header};

use super::egress_syn::Shape;
use super::exchange::{EXCHANGE_TIMEOUT, name_of};
use super::handshake::{Half, Multipath, reason_of};
use super::ingress_segment::Claim;
use super::ingress_syn::{Opening, Taken};
use super::ingress_syn_ack::Said;
use super::refuse::Refused;
use super::renew::Renewal;
use super::{Context, Engine, Next, authorize, parse};
use crate::{Block, Effect, Hook, KeyName, NotifyPeer, Packet};

const INGRESS: Direction = Direction::Ingress;
const EGRESS: Direction = Direction::Egress;

/// How long datagrams wait for an initiator that has begun an exchange, or was asked to.
const AWAIT: Duration = Duration::from_secs(2);
/// A datagram that comes so long after a request finds it lost.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// How long an initiator that does not begin is left alone in the end; the first time as long as it is awaited.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An initiator that is expected to begin an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    until: Instant,
    asked: Instant,
    pause: Duration,
}

impl Awaited {
    fn once(now: Instant) -> Self {
        Self { until: now + AWAIT, asked: now, pause: AWAIT }
    }
}

type Handled = Result<Next, Box<Refused>>;

fn consumed() -> Handled {
    Ok(Next::Drop(Reason::Consumed))
}

impl Engine {
    /// Handles a message of an enforcer, which never reaches a unit; `None` if the datagram is none.
    pub(super) fn exchange_message(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        packet: &Packet,
    ) -> Option<Next> {
        let data = cx.view.udp_data(&packet.bytes);
        if !tap::is_tap(data) {
            return None;
        }
        let handled = match parse::tap_header(data)? {
            // Only enforcers speak TAP. Data may begin like it.
            Ok(_) if packet.hook == Hook::FromPu => Err(Refused::new(EGRESS, Reason::TapFromPu)),
            Err(_) if packet.hook == Hook::FromPu || self.entry_of(cx, packet).is_some() => return None,
            Ok(header) => self.dispatch_message(cx, packet, &header, data),
            Err(reason) => {
                if reason == Reason::TapVersion {
                    self.request_own_version(cx, data);
                }
                Err(Refused::new(INGRESS, reason))
            }
        };
        Some(handled.unwrap_or_else(|refused| self.refuse_message(cx, data, &refused)))
    }

    fn dispatch_message(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        packet: &Packet,
        header: &Header,
        data: &[u8],
    ) -> Handled {
        if header.protocol() != Protocol::UDP {
            return Err(Refused::new(INGRESS, Reason::TapUnexpected));
        }
        // What a message leads to must not make a damaged one right.
        if checksum::verify_udp(&packet.bytes, &cx.view) == Checksum::Invalid {
            return Err(Refused::new(INGRESS, Reason::BadChecksum));
        }
        match header.body {
            Body::Syn { .. } => self.take_opening(cx, packet, header, data),
            Body::SynAck { .. } => self.take_answer(cx, packet, header, data),
            Body::Ack { echo, .. } => self.take_proof(cx, header, Nonce(echo)),
            Body::Refusal { echo, .. } => self.take_refusal(cx, header, Nonce(echo)),
            Body::TokenRequest { echo, .. } if Nonce(echo) == Nonce::ZERO => {
                self.take_invitation(cx, packet, header)
            }
            Body::TokenRequest { echo, .. } => self.take_request(cx, header, Nonce(echo)),
        }
    }

    /// A message that leads to nothing is counted and recorded, and ends here whatever the mode.
    fn refuse_message(&mut self, cx: &mut Context<'_, Datagram>, data: &[u8], refused: &Refused) -> Next {
        self.count(cx.slot, refused.reason);
        if refused.reason != Reason::Consumed {
            self.record(cx, refused, Action::Reject, None);
        }
        let told = cx.unit.settings.notify_peer == NotifyPeer::WithReason;
        if refused.reason == Reason::PolicyIngress
            && told
            && self.replies.try_take(cx.key.remote.0, cx.now.monotonic)
        {
            self.notify(cx, data, refused);
        }
        Next::Drop(refused.reason)
    }

    /// Kind 1.
    fn take_opening(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        packet: &Packet,
        header: &Header,
        data: &[u8],
    ) -> Handled {
        let isn = name_of(&header.nonce);
        let key = HalfOpenKey { flow: cx.key, role: Role::Responder, isn };
        self.judge_half_open_again(cx, key)?;
        let again = responder::Input::PeerSyn(Some(message::sender(header)));
        match self.step_responder(key, again) {
            Some(responder::Output::Pass) => {
                self.answer_opening(cx, key)?;
                return consumed();
            }
            None | Some(responder::Output::AnotherToken) => {}
            Some(responder::Output::Drop(fault)) => return Err(Refused::new(INGRESS, reason_of(fault))),
            Some(_) => return Err(Refused::new(INGRESS, Reason::Internal)),
        }
        // The answer may hold a token: nobody gets it for the price of an id, at an address that he need not receive at.
        if !header.flags.contains(tap::Flags::TOKEN) && !self.is_proven(cx, header) {
            self.request_token(cx, header, Seal::Open);
            return Err(Refused::new(INGRESS, Reason::TokenUnknown));
        }
        let opening =
            Opening { header, payload: data, renewal: Renewal::of(packet), multipath: Multipath::NotAsked };
        match self.take_identity(cx, key, &opening)? {
            Taken::Pending(job) => {
                self.awaited.insert(cx.key, Awaited::once(cx.now.monotonic));
                Ok(Next::Park(job))
            }
            Taken::Accepted => {
                self.handshakes.postpone(&key, cx.now.monotonic + EXCHANGE_TIMEOUT);
                self.answer_opening(cx, key)?;
                consumed()
            }
        }
    }

    /// Whether a kind-1 message has a MAC of a peer whose token is held.
    fn is_proven(&mut self, cx: &Context<'_, Datagram>, header: &Header) -> bool {
        let held = self.held_token(&TokenId(header.token_id), cx.now);
        held.is_ok_and(|peer| peer.is_some_and(|peer| self.syn_mac(cx, header, &peer).is_some()))
    }

    /// Sends kind 2; nothing of the unit's waits for it.
    fn answer_opening(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        key: HalfOpenKey,
    ) -> Result<(), Box<Refused>> {
        let mut fresh = [0; 16];
        self.random.fill(&mut fresh);
        let output = self.step_responder(key, responder::Input::SynAck { seq: 0, fresh: Nonce(fresh) });
        let Some(responder::Output::Answer(attach)) = output else {
            return Err(Refused::new(INGRESS, Reason::Internal));
        };
        // Nobody answered the newer token.
        if attach == Attach::Full
            && let Some(handshake) = self.handshakes.get_mut(&key)
            && let Some(older) = handshake.older.take()
            && let Half::Responder(responder) = &mut handshake.half
        {
            responder.show(older.token.id);
            handshake.own = Some(older);
        }
        let payload = self.kind_2_for(cx, key, attach)?;
        self.send_datagram(cx, &payload);
        Ok(())
    }

    /// Kind 2.
    fn take_answer(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        packet: &Packet,
        header: &Header,
        data: &[u8],
    ) -> Handled {
        let found = self.handshakes.of_flow(cx.key, Role::Initiator).map(|(key, _)| *key).next();
        let key = found.ok_or_else(|| Refused::new(EGRESS, Reason::TapUnexpected))?;
        let answer = match self.answer_in(cx, *header, data, key)? {
            Said::Pending(job) => return Ok(Next::Park(job)),
            Said::Answer(answer) => answer,
            Said::Nothing => return Err(Refused::new(EGRESS, Reason::Internal)),
        };
        let input = Input::SynAck { ack: key.isn.wrapping_add(1), message: Some(answer.message()) };
        match self.step(key, input) {
            Some(Output::Authorize(authenticated)) => {
                let had_entry = self.entry_of(cx, packet).is_some();
                if let Err(refused) = self.accept_responder(cx, key, &answer, authenticated) {
                    self.refuse_responder(cx, key, had_entry);
                    return Err(refused);
                }
                self.prove_flow(cx, key);
                self.expect_answer(key, cx.now);
                self.release_flow(cx);
            }
            Some(Output::ProveAgain(proof)) => self.send_datagram(cx, &proof.payload),
            Some(Output::Pass) => self.prove_flow(cx, key),
            Some(Output::Drop(fault)) => {
                return Err(Refused::new(EGRESS, reason_of(fault)).with_peer(answer.peer()));
            }
            _ => return Err(Refused::new(EGRESS, Reason::Internal)),
        }
        consumed()
    }

    /// The unit's rules refuse whoever answered: what went ahead by address goes on no longer.
    fn refuse_responder(&mut self, cx: &mut Context<'_, Datagram>, key: HalfOpenKey, had_entry: bool) {
        self.handshakes.remove(&key);
        self.agents.note_refusal((cx.slot, cx.key.remote), cx.unit.epoch);
        if had_entry {
            self.flows.remove(&cx.key);
            cx.out.push(Effect::Remove(cx.key));
        }
        let waiting = u64::try_from(self.waiting.take(cx.key).len()).unwrap_or(u64::MAX);
        self.count_many(cx.slot, Reason::PolicyEgress, waiting);
        let block = Block {
            role: Role::Initiator,
            epoch: cx.unit.epoch,
            reason: Reason::PolicyEgress,
            rule: None,
            lasts: self.config.block_time,
        };
        cx.out.push(Effect::Block(cx.key, block));
    }

    /// Kind 3: of an initiator the proof, of a responder that it has it.
    fn take_proof(&mut self, cx: &mut Context<'_, Datagram>, header: &Header, echo: Nonce) -> Handled {
        if let Some(key) = self.handshake_with(cx, Role::Initiator, echo) {
            return self.take_confirmation(header, key);
        }
        let key = self
            .handshake_with(cx, Role::Responder, echo)
            .ok_or_else(|| Refused::new(INGRESS, Reason::NonceMismatch))?;
        let claim = self.claim_of(cx, key, header).transpose();
        let claim = claim.map_err(|reason| Refused::new(INGRESS, reason))?;
        let claim = claim.ok_or_else(|| Refused::new(INGRESS, Reason::Internal))?;
        let seq = key.isn.wrapping_add(1);
        let (keys, own) = (Some(&*claim.keys), claim.own.token.id);
        match self.step_responder(key, responder::Input::Proof { seq, ack: 1, header, keys, own }) {
            Some(responder::Output::Admit) => {
                self.admit_initiator(cx, key, &claim)?;
                self.confirm(cx, key, &claim, header);
                self.release_flow(cx);
            }
            Some(responder::Output::Duplicate) => self.confirm(cx, key, &claim, header),
            Some(responder::Output::Drop(fault)) => {
                return Err(Refused::new(INGRESS, reason_of(fault)).with_peer(&claim.peer));
            }
            Some(_) | None => return Err(Refused::new(INGRESS, Reason::TapUnexpected)),
        }
        consumed()
    }

    fn confirm(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        key: HalfOpenKey,
        Claim { own, keys, .. }: &Claim,
        header: &Header,
    ) {
        let Some(nonce) = self.handshakes.get(&key).and_then(super::Handshake::own_nonce) else { return };
        let from = Sender { token: own.token.id, nonce };
        if let Ok(payload) = message::ack(Protocol::UDP, from, &keys.responder, message::sender(header)) {
            self.send_datagram(cx, &payload);
        }
    }

    fn take_confirmation(&mut self, header: &Header, key: HalfOpenKey) -> Handled {
        let unexpected = || Refused::new(EGRESS, Reason::TapUnexpected);
        let handshake = self.handshakes.get(&key).ok_or_else(unexpected)?;
        let (own, peer) =
            (handshake.own.clone().ok_or_else(unexpected)?, handshake.peer.clone().ok_or_else(unexpected)?);
        let keys = self.keys(&own, &peer, Role::Initiator).map_err(|reason| Refused::new(EGRESS, reason))?;
        let said = Message { header, keys: &keys, own: own.token.id };
        match self.step(key, Input::Confirmation(said)) {
            Some(Output::Confirmed) => {
                if let Some(handshake) = self.handshakes.get_mut(&key) {
                    handshake.retry = None;
                }
                consumed()
            }
            Some(Output::Drop(fault)) => Err(Refused::new(EGRESS, reason_of(fault)).with_peer(&peer)),
            _ => Err(Refused::new(EGRESS, Reason::Internal)),
        }
    }

    /// Kind 4 changes no state.
    fn take_refusal(&mut self, cx: &mut Context<'_, Datagram>, header: &Header, echo: Nonce) -> Handled {
        let key = self
            .handshake_with(cx, Role::Initiator, echo)
            .ok_or_else(|| Refused::new(EGRESS, Reason::NonceMismatch))?;
        let (own, keys) = self.keys_of_refuser(cx, key, header).unzip();
        let own = own.unwrap_or(TokenId::ZERO);
        match self.step(key, Input::Refusal { header, keys: keys.as_deref(), own }) {
            Some(Output::Report(refusal)) => {
                self.report_refusal(cx, refusal);
                consumed()
            }
            Some(Output::Drop(fault)) => Err(Refused::new(EGRESS, reason_of(fault))),
            _ => consumed(),
        }
    }

    /// Kind 5 in answer to kind 1: that again at once, with the whole token.
    fn take_request(&mut self, cx: &mut Context<'_, Datagram>, header: &Header, echo: Nonce) -> Handled {
        let key = self
            .handshake_with(cx, Role::Initiator, echo)
            .ok_or_else(|| Refused::new(EGRESS, Reason::NonceMismatch))?;
        match self.step(key, Input::TokenRequest { header }) {
            Some(Output::Resend(cookie)) => {
                let shown = self.handshakes.get(&key).and_then(super::Handshake::shown);
                let (own, nonce) = shown.ok_or_else(|| Refused::new(EGRESS, Reason::Internal))?;
                self.forget_destination(cx);
                let sender = Sender { token: own.token.id, nonce };
                let shape = Shape { attach: trireme_handshake::initiator::Attach::Full, cookie };
                self.send_kind_1(cx, key, &own, sender, shape)?;
                consumed()
            }
            Some(Output::Drop(fault)) => Err(Refused::new(EGRESS, reason_of(fault))),
            _ => consumed(),
        }
    }

    /// Kind 5 without a nonce: the responder has forgotten a flow that goes on here, and holds its datagrams.
    fn take_invitation(
        &mut self,
        cx: &mut Context<'_, Datagram>,
        packet: &Packet,
        header: &Header,
    ) -> Handled {
        let unexpected = || Refused::new(EGRESS, Reason::TapUnexpected);
        let entry = self.entry_of(cx, packet).ok_or_else(unexpected)?;
        if entry.role != Role::Initiator || entry.class != ConnectionClass::Identity {
            return Err(unexpected());
        }
        let named = TokenId(header.token_id);
        let peer = match self.peer_of_entry(cx, &entry) {
            Some(peer) if peer.id == named => Some(peer),
            Some(_) | None => {
                self.held_token(&named, cx.now).map_err(|reason| Refused::new(EGRESS, reason))?
            }
        };
        let is_proven = peer.is_some_and(|peer| self.is_invitation_of(cx, header, &peer));
        // With tokens that either end has not seen yet, nobody can tell. What follows is an exchange, and not too often.
        let is_recent = || self.handshakes.of_flow(cx.key, Role::Initiator).next().is_some();
        if !is_proven && (is_recent() || !self.replies.try_take(cx.key.remote.0, cx.now.monotonic)) {
            return Err(Refused::new(EGRESS, Reason::MacInvalid));
        }
        if self.exchange_of(cx.key).is_none() {
            self.begin_exchange(cx)?;
        }
        consumed()
    }

    fn is_invitation_of(&mut self, cx: &Context<'_, Datagram>, header: &Header, peer: &Verified) -> bool {
        let Some(own) = self.own.current(&cx.unit.id).cloned() else { return false };
        let verifies = |own: &OwnToken, keys: &PairKeys| {
            let to = Sender { token: own.token.id, nonce: Nonce::ZERO };
            message::check_mac(header, &keys.responder, to).is_ok()
        };
        let answered = self.answered_token(cx, &own, peer, Role::Initiator, verifies);
        answered.is_ok_and(|(own, keys)| verifies(&own, &keys))
    }

    fn handshake_with<V>(&self, cx: &Context<'_, V>, role: Role, nonce: Nonce) -> Option<HalfOpenKey> {
        self.handshakes
            .of_flow(cx.key, role)
            .find(|(_, handshake)| handshake.own_nonce() == Some(nonce))
            .map(|(key, _)| *key)
    }

    /// A datagram of a flow that is not known, towards the unit: it may have overtaken the initiator's proof, or answer the
    /// unit's own kind 1 without understanding it, or belong to a flow that was forgotten here.
    pub(super) fn before_identity(
        &mut self,
        cx: &mut Context<'_, Datagram>,
    ) -> Result<Option<Next>, Box<Refused>> {
        if cx.key.protocol != Protocol::UDP || cx.view.is_to_group() {
            return Ok(None);
        }
        let now = cx.now.monotonic;
        let awaited = self.awaited.peek(&cx.key).copied();
        let begun = self.handshakes.of_flow(cx.key, Role::Responder).any(|(_, other)| other.entry.is_none());
        let is_awaited = awaited.is_some_and(|awaited| awaited.until > now);
        if let Some(key) = self.exchange_of(cx.key)
            && !begun
            && !is_awaited
            && self.agents.met(cx.slot, cx.key.remote.0).is_none()
        {
            self.end_exchange(cx, key);
            return if self.knows_flow(&cx.key) {
                Ok(Some(Next::Pass))
            } else {
                Err(Refused::new(INGRESS, Reason::Stray))
            };
        }
        // A replayed kind 1 must not hold up what needs no identity.
        if authorize::address(&cx.unit, INGRESS, cx.key).is_ok() {
            return Ok(None);
        }
        if begun {
            return Ok(Some(Next::HoldFlow(cx.key)));
        }
        let next = match awaited {
            None => Awaited::once(now),
            Some(last) if is_awaited && now.since(last.asked) < ASK_AGAIN => {
                return Ok(Some(Next::HoldFlow(cx.key)));
            }
            Some(last) if is_awaited => Awaited { asked: now, ..last },
            Some(last) if now.since(last.until) < last.pause => return Ok(None),
            Some(last) => {
                Awaited { pause: last.pause.saturating_mul(2).min(LONGEST_PAUSE), ..Awaited::once(now) }
            }
        };
        if !self.invite(cx) {
            return Ok(if is_awaited { Some(Next::HoldFlow(cx.key)) } else { None });
        }
        self.awaited.insert(cx.key, next);
        Ok(Some(Next::HoldFlow(cx.key)))
    }

    /// Asks an enforcer that has proven itself from this address to begin; false if there is none.
    fn invite(&mut self, cx: &mut Context<'_, Datagram>) -> bool {
        let Some(peer) = self.agents.met(cx.slot, cx.key.remote.0).cloned() else { return false };
        let Some(own) = self.token_in_use(cx, &peer) else { return false };
        let Ok(keys) = self.keys(&own, &peer, Role::Responder) else { return false };
        if !self.replies.try_take(cx.key.remote.0, cx.now.monotonic) {
            return false;
        }
        let seal = Seal::Mac(&keys.responder, peer.id);
        let Ok(payload) = message::token_request(Protocol::UDP, own.token.id, Nonce::ZERO, seal) else {
            return false;
        };
        self.send_datagram(cx, &payload);
        true
    }

    /// The token of ours that a peer used last.
    fn token_in_use<V>(&mut self, cx: &Context<'_, V>, peer: &Verified) -> Option<OwnToken> {
        let key = self.peers.habits(&peer.id).and_then(|habits| habits.own_key);
        let usable = self.own.usable(&cx.unit.id, cx.now.wall);
        let used = usable.iter().find(|own| Some(KeyName::from(own.key.public())) == key);
        used.or_else(|| usable.first()).map(|own| (*own).clone())
    }
}
