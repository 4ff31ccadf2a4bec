//! A responder answers the unit's SYN: authenticate it, authorize it and its own end, prove ourselves.

use std::sync::Arc;

use trireme_flow::{ConnectionClass, ConnectionEntry, HalfOpenKey, Priority, Reason};
use trireme_handshake::initiator::{Authenticated, Initiator, Input, Message, Output};
use trireme_handshake::message::{self, Sender};
use trireme_identity::Direction;
use trireme_token::rotation::OwnToken;
use trireme_token::{PairKeys, Role, Verified};
use trireme_wire::tap::{Header, Kind};

use super::authenticate::Peer;
use super::egress_syn::strip;
use super::handshake::{Half, Handshake, reason_of};
use super::refuse::Refused;
use super::teach::{Fresh, Proven, verdict_of};
use super::{Context, Engine, Judged, Known, Next, authorize, parse};
use crate::{Effect, Hook, Packet};

const EGRESS: Direction = Direction::Egress;

/// What a kind-2 message brings, once its token has verified.
pub(super) struct Answer {
    header: Header,
    peer: Arc<Verified>,
    /// The token of ours that it answers, and the keys shared then.
    own: OwnToken,
    keys: Arc<PairKeys>,
}

impl Answer {
    pub(super) fn message(&self) -> Message<'_> {
        Message { header: &self.header, keys: &self.keys, own: self.own.token.id }
    }

    pub(super) const fn peer(&self) -> &Arc<Verified> {
        &self.peer
    }
}

/// What a SYN-ACK or reset says about its sender.
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
pub(super) enum Said {
    /// Nothing: a peer without TAP.
    Nothing,
    /// Who it is.
    Answer(Answer),
    /// Its token is being checked.
    Pending(u64),
}

impl Engine {
    pub(super) fn ingress_syn_ack(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        if let Some(entry) = packet.connection
            && self.is_established(&entry, cx.view.ack, Role::Initiator, cx.key)
        {
            // Anything but a confirmation: the responder asks again.
            self.current(cx, Hook::FromPu, entry)?;
            strip(packet, EGRESS)?;
            return Ok(Next::Pass);
        }
        let Some(key) = self.answered_syn(cx)? else {
            strip(packet, EGRESS)?;
            return Ok(Next::Pass);
        };
        let said = match self.kind_2(cx, packet, key)? {
            Said::Pending(job) => return Ok(Next::Park(job)),
            Said::Answer(answer) => Some(answer),
            Said::Nothing => None,
        };
        let input = Input::SynAck { ack: cx.view.ack, message: said.as_ref().map(Answer::message) };
        let peer = said.as_ref().map(Answer::peer);
        match self.step(key, input) {
            Some(Output::Authorize(authenticated)) => {
                let Some(answer) = &said else { return Err(Refused::new(EGRESS, Reason::Internal)) };
                self.accept_responder(cx, key, answer, authenticated)?;
            }
            Some(Output::AuthorizeAddress) => self.accept_responder_address(cx, key)?,
            Some(Output::ProveAgain(proof)) => {
                let syn = self.handshakes.get(&key).map(|handshake| handshake.syn.clone());
                self.send_proof_for_syn_ack(cx, &packet.bytes, &syn.unwrap_or_default(), &proof);
                self.proof_sent(cx, key);
            }
            Some(Output::Pass) => {}
            Some(Output::Drop(fault)) => {
                return Err(Refused::new(EGRESS, reason_of(fault)).with_known_peer(peer));
            }
            _ => return Err(Refused::new(EGRESS, Reason::Internal)),
        }
        strip(packet, EGRESS)?;
        Ok(Next::Pass)
    }

    /// Whether a SYN-ACK belongs to a connection that is established, of which no handshake is remembered: it makes the
    /// initiator's stack acknowledge again, shows nothing and changes nothing.
    pub(super) fn is_established(
        &self,
        entry: &ConnectionEntry,
        ack: u32,
        role: Role,
        flow: trireme_flow::FlowKey,
    ) -> bool {
        let key = HalfOpenKey { flow, role, isn: ack.wrapping_sub(1) };
        entry.role == role
            && entry.class != ConnectionClass::Adopted
            && entry.proof_seq == ack
            && self.handshakes.get(&key).is_none()
    }

    /// The handshake that a SYN-ACK answers. One that acknowledges more than the SYN took the payload for data. One of an
    /// older connection answers none: a stack that waits for another gives it the reset that ends it (RFC 9293, section
    /// 3.10.7.3), and takes nothing from it.
    fn answered_syn(&mut self, cx: &mut Context<'_>) -> Result<Option<HalfOpenKey>, Box<Refused>> {
        let isn = cx.view.ack.wrapping_sub(1);
        let key = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn };
        if self.handshakes.get(&key).is_some() {
            return Ok(Some(key));
        }
        let input = Input::SynAck { ack: cx.view.ack, message: None };
        let beyond = self.handshakes.of_flow(cx.key, Role::Initiator).any(|(_, handshake)| {
            let Half::Initiator(initiator) = &handshake.half else { return false };
            let Initiator::SynSent(sent) = initiator else { return false };
            let output = Initiator::SynSent(sent.clone()).handle(input);
            output == Output::Drop(trireme_handshake::Fault::BeyondSyn)
        });
        if !beyond {
            let waits = self.handshakes.of_flow(cx.key, Role::Initiator).any(|(_, handshake)| {
                matches!(handshake.half, Half::Initiator(Initiator::SynSent(_) | Initiator::PlainSent(_)))
            });
            return if waits { Ok(None) } else { Err(Refused::new(EGRESS, Reason::Stray)) };
        }
        let until = cx.now.monotonic + self.config.hostile_timeout;
        self.hostile.insert((cx.slot, cx.key.remote), until);
        self.forget_destination(cx);
        Err(Refused::new(EGRESS, Reason::HostilePath))
    }

    /// Reads kind 2 and finds out who sent it.
    pub(super) fn kind_2(
        &mut self,
        cx: &mut Context<'_>,
        packet: &Packet,
        key: HalfOpenKey,
    ) -> Result<Said, Box<Refused>> {
        let refused = |reason| Refused::new(EGRESS, reason);
        let payload = cx.view.payload(&packet.bytes);
        let header = match parse::tap_header(payload) {
            None => return Ok(Said::Nothing),
            Some(Ok(header)) if header.kind() == Kind::SynAck => header,
            Some(Ok(_)) => return Err(refused(Reason::TapUnexpected)),
            Some(Err(reason)) => return Err(refused(reason)),
        };
        let payload = payload.to_vec();
        self.answer_in(cx, header, &payload, key)
    }

    /// Finds out who sent a kind-2 message, and which token of ours it answers.
    pub(super) fn answer_in<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        header: Header,
        payload: &[u8],
        key: HalfOpenKey,
    ) -> Result<Said, Box<Refused>> {
        let refused = |reason| Refused::new(EGRESS, reason);
        let asked = self.handshakes.get(&key).and_then(Handshake::shown);
        let asked = asked.ok_or_else(|| refused(Reason::TapUnexpected))?;
        let source = cx.key.remote.0;
        // The unit asked for this answer: checking it must not depend on what strangers use up.
        let peer = match self.peer_of(&header, payload, source, Priority::Proven, cx.now, cx.out) {
            Ok(Peer::Verified(peer)) => peer,
            Ok(Peer::Pending(job)) => return Ok(Said::Pending(job)),
            Ok(Peer::Unknown) => return Err(refused(Reason::TokenUnknown)),
            Err(reason) => return Err(refused(reason)),
        };
        let rival = self.handshakes.get(&key).and_then(|kept| kept.rival.as_ref()?.shown());
        let mut answered = None;
        for (own, nonce) in std::iter::once(asked).chain(rival) {
            let answers = |own: &OwnToken, keys: &PairKeys| {
                message::check_mac(&header, &keys.responder, Sender { token: own.token.id, nonce }).is_ok()
            };
            let (own, keys) = self
                .answered_token(cx, &own, &peer, Role::Initiator, answers)
                .map_err(|reason| refused(reason).with_peer(&peer))?;
            if answers(&own, &keys) {
                self.prefer(&key, |handshake| handshake.own_nonce() == Some(nonce));
                answered = Some((own, keys));
                break;
            }
            answered = answered.or(Some((own, keys)));
        }
        let (own, keys) = answered.ok_or_else(|| refused(Reason::Internal))?;
        Ok(Said::Answer(Answer { header, peer, own, keys }))
    }

    /// Takes an input through an initiator's state machine.
    pub(super) fn step(&mut self, key: HalfOpenKey, input: Input<'_>) -> Option<Output> {
        match &mut self.handshakes.get_mut(&key)?.half {
            Half::Initiator(initiator) => Some(initiator.handle(input)),
            Half::Responder(_) => None,
        }
    }

    pub(super) fn accept_responder<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        key: HalfOpenKey,
        Answer { peer, own, keys, .. }: &Answer,
        authenticated: Authenticated,
    ) -> Result<(), Box<Refused>> {
        let attested = (authenticated.endpoint.addr, authenticated.endpoint.port);
        let place =
            self.teach_peer(cx, &Proven { peer, own, role: Role::Initiator, keys, fresh: Fresh::Yes });
        let judged = authorize::peer(&cx.unit, EGRESS, cx.key, peer, attested.1);
        self.teach_verdict(cx, EGRESS, place, attested.1, verdict_of(&judged));
        let decision = judged.map_err(|refused| refused.with_attested(attested))?;
        let (peer_slot, peer_generation) = place;
        let entry = ConnectionEntry {
            role: Role::Initiator,
            epoch: cx.unit.epoch,
            peer_token: peer.id,
            peer_slot,
            peer_generation,
            attested: Some(attested),
            proof_seq: authenticated.proof.seq,
            proof_mac: authenticated.proof.mac,
            confirmed: !cx.key.is_tcp(),
            data_seen: cx.key.is_tcp(),
            class: ConnectionClass::Identity,
            syn_ack: 0,
        };
        let internal = || Refused::new(EGRESS, Reason::Internal);
        let handshake = self.handshakes.get_mut(&key).ok_or_else(internal)?;
        let Half::Initiator(initiator) = &mut handshake.half else { return Err(internal()) };
        initiator.accept(authenticated);
        handshake.peer = Some(Arc::clone(peer));
        handshake.epoch = cx.unit.epoch;
        handshake.own = Some(own.clone());
        handshake.older = None;
        self.learn_destination(cx, peer, own, attested == cx.key.remote);
        self.agents.meet(cx.slot, cx.key.remote, peer);
        self.install(cx, key, entry);
        let mut about = Refused::new(EGRESS, Reason::Accepted)
            .with_peer(peer)
            .with_attested(attested)
            .with_port(attested.1);
        about.decision = decision;
        self.record_accept(cx, &about);
        Ok(())
    }

    /// Only where nothing translates the address is the node behind it known.
    fn learn_destination<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        peer: &Arc<Verified>,
        own: &OwnToken,
        untranslated: bool,
    ) {
        let holds = own.token.id;
        let tried_key = self.known.peek(&(cx.slot, cx.key.remote)).and_then(|known| known.tried_key);
        let peer = untranslated.then(|| Arc::clone(peer));
        self.teach_destination(cx, peer.as_ref().map(|peer| (peer.id, holds)));
        self.known.insert((cx.slot, cx.key.remote), Known { peer, holds, tried_key });
    }

    fn accept_responder_address(
        &mut self,
        cx: &mut Context<'_>,
        key: HalfOpenKey,
    ) -> Result<(), Box<Refused>> {
        let (decision, reason) = authorize::address(&cx.unit, EGRESS, cx.key)?;
        let internal = || Refused::new(EGRESS, Reason::Internal);
        let handshake = self.handshakes.get_mut(&key).ok_or_else(internal)?;
        let Half::Initiator(initiator) = &mut handshake.half else { return Err(internal()) };
        initiator.accept_address();
        handshake.epoch = cx.unit.epoch;
        self.install(cx, key, Handshake::address_entry(Role::Initiator, cx.unit.epoch, key.isn));
        let about = Refused::new(EGRESS, reason).with_decision(decision).with_port(cx.key.remote.1);
        self.record_accept(cx, &about);
        Ok(())
    }

    /// Writes the entry into the connection table and counts the handshake as completed.
    pub(super) fn install<V>(&mut self, cx: &mut Context<'_, V>, key: HalfOpenKey, entry: ConnectionEntry) {
        if let Some(handshake) = self.handshakes.get_mut(&key) {
            handshake.entry = Some(entry);
            handshake.installed_at = Some(cx.now.monotonic);
            handshake.rival = None;
        }
        self.handshakes.complete(&key, cx.now.monotonic + self.config.completed_timeout);
        if !cx.key.is_tcp() {
            return self.install_flow(cx, entry);
        }
        cx.out.push(Effect::Install(cx.key, entry));
    }
}
