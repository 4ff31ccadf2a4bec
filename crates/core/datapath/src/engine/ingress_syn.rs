//! Somebody opens a connection to a unit: authenticate, authorize, remember, strip.

use std::sync::Arc;

use trireme_flow::{HalfOpenKey, Priority, Reason};
use trireme_handshake::initiator::Initiator;
use trireme_handshake::message::{self, Seal, Sender};
use trireme_handshake::responder::{AddressSyn, Input, Output, Responder, SynReceived};
use trireme_identity::{Direction, Protocol};
use trireme_policy::Decision;
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, PairKeys, RandomSource, Role, TokenId, Verified};
use trireme_wire::tap::{self, Body, Header};

use super::authenticate::Peer;
use super::egress_syn::strip;
use super::emit::View;
use super::handshake::{Half, Handshake, Multipath, PeerHolds, reason_of};
use super::refuse::Refused;
use super::renew::{Choice, Renewal};
use super::teach::{Fresh, Proven, verdict_of};
use super::{Context, Engine, Judged, Next, authorize, cookie, parse};
use crate::Packet;

/// The family is the initiator's and may differ behind a translator; the protocol must be the segment's.
const fn is_tcp_syn(header: &Header) -> bool {
    matches!(header.body, Body::Syn { protocol: Protocol::TCP, .. })
}

const INGRESS: Direction = Direction::Ingress;

/// A kind-1 message.
pub(super) struct Opening<'a> {
    pub(super) header: &'a Header,
    pub(super) payload: &'a [u8],
    pub(super) renewal: Renewal,
    pub(super) multipath: Multipath,
}

/// What became of one.
pub(super) enum Taken {
    /// The initiator is authorized and its handshake remembered.
    Accepted,
    /// Its token is being checked.
    Pending(u64),
}

impl Engine {
    pub(super) fn ingress_syn(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        self.refuse_simultaneous_open(cx)?;
        let header = match parse::tap_header(cx.view.payload(&packet.bytes)) {
            None => None,
            Some(Ok(header)) if is_tcp_syn(&header) => Some(header),
            Some(Ok(_)) => return Err(Refused::new(INGRESS, Reason::TapUnexpected)),
            Some(Err(Reason::TapVersion)) => {
                self.request_own_version(cx, cx.view.clone().payload(&packet.bytes));
                return Err(Refused::new(INGRESS, Reason::TapVersion));
            }
            Some(Err(reason)) => return Err(Refused::new(INGRESS, reason)),
        };
        let key = HalfOpenKey { flow: cx.key, role: Role::Responder, isn: cx.view.seq };
        if let Some(next) = self.again(cx, packet, key, header.as_ref())? {
            return Ok(next);
        }
        match header {
            Some(header) => self.accept_identity(cx, packet, key, &header),
            None => self.accept_address(cx, packet, key),
        }
    }

    /// While the unit's own SYN on the tuple is unanswered, the other end's SYN is refused.
    fn refuse_simultaneous_open(&self, cx: &Context<'_>) -> Result<(), Box<Refused>> {
        let unanswered = self.handshakes.of_flow(cx.key, Role::Initiator).any(|(_, handshake)| {
            matches!(handshake.half, Half::Initiator(Initiator::SynSent(_) | Initiator::PlainSent(_)))
        });
        if unanswered { Err(Refused::new(INGRESS, Reason::SimultaneousOpen)) } else { Ok(()) }
    }

    /// Same tuple, same sequence number: a retransmission of a SYN that was authorized before.
    fn again(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        key: HalfOpenKey,
        header: Option<&Header>,
    ) -> Result<Option<Next>, Box<Refused>> {
        if let Some(sender) = header.map(message::sender) {
            self.prefer(&key, |rival| rival.peer_nonce() == Some(sender.nonce));
        }
        self.judge_half_open_again(cx, key)?;
        let Some(handshake) = self.handshakes.get_mut(&key) else { return Ok(None) };
        let Half::Responder(responder) = &mut handshake.half else { return Ok(None) };
        match responder.handle(Input::PeerSyn(header.map(message::sender))) {
            Output::Anew => {
                self.handshakes.remove(&key);
                Ok(None)
            }
            Output::AnotherToken => Ok(None),
            Output::Pass => {
                if handshake.entry.is_none() {
                    self.handshakes.postpone(&key, cx.now.monotonic + self.config.responder_timeout);
                }
                strip(packet, INGRESS)?;
                Ok(Some(Next::Pass))
            }
            Output::Drop(fault) => Err(Refused::new(INGRESS, reason_of(fault))),
            Output::Answer(_)
            | Output::AnswerAnew
            | Output::PassAnew
            | Output::Attest
            | Output::Admit
            | Output::AdmitAddress
            | Output::Duplicate
            | Output::Hold => Err(Refused::new(INGRESS, Reason::Internal)),
        }
    }

    /// A handshake that was accepted under another epoch is judged again. It keeps its nonces: the initiator may
    /// hold a SYN-ACK already.
    pub(super) fn judge_half_open_again<V>(
        &mut self,
        cx: &Context<'_, V>,
        key: HalfOpenKey,
    ) -> Result<(), Box<Refused>> {
        let Some(handshake) = self.handshakes.get(&key) else { return Ok(()) };
        if handshake.epoch == cx.unit.epoch || handshake.entry.is_some() {
            return Ok(());
        }
        let judged = match handshake.peer.clone() {
            Some(peer) if self.is_revoked(&peer) => {
                Err(Refused::new(INGRESS, Reason::TokenRevoked).with_peer(&peer))
            }
            Some(peer) => authorize::peer(&cx.unit, INGRESS, cx.key, &peer, cx.key.local.1),
            None => authorize::address(&cx.unit, INGRESS, cx.key).map(|(decision, _)| Some(decision)),
        };
        match judged {
            Ok(decision) => {
                if let Some(handshake) = self.handshakes.get_mut(&key) {
                    handshake.decision = decision;
                    handshake.epoch = cx.unit.epoch;
                }
                Ok(())
            }
            Err(refused) => {
                self.handshakes.remove(&key);
                self.held.take(key);
                Err(refused)
            }
        }
    }

    fn accept_address(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let (decision, _) = authorize::address(&cx.unit, INGRESS, cx.key)?;
        let half = Half::Responder(Responder::AddressSyn(AddressSyn::new(key.isn)));
        let handshake = Handshake { decision: Some(decision), ..Handshake::new(half, cx.unit.epoch) };
        let until = cx.now.monotonic + self.config.responder_timeout;
        self.handshakes
            .insert(key, handshake, until, Priority::Ordinary)
            .map_err(|reason| Refused::new(INGRESS, reason))?;
        // Fast Open data would reach the unit before its sender has shown that it receives at its address.
        strip(packet, INGRESS)?;
        Ok(Next::Pass)
    }

    fn accept_identity(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        key: HalfOpenKey,
        header: &Header,
    ) -> Judged {
        let message = Opening {
            header,
            payload: cx.view.payload(&packet.bytes),
            renewal: Renewal::of(packet),
            multipath: Multipath::of(&cx.view, &packet.bytes),
        };
        if let Taken::Pending(job) = self.take_identity(cx, key, &message)? {
            return Ok(Next::Park(job));
        }
        strip(packet, INGRESS)?;
        Ok(Next::Pass)
    }

    /// Authenticates and authorizes an initiator and remembers its handshake.
    pub(super) fn take_identity<V: View>(
        &mut self,
        cx: &mut Context<'_, V>,
        key: HalfOpenKey,
        Opening { header, payload, renewal, multipath }: &Opening<'_>,
    ) -> Result<Taken, Box<Refused>> {
        let (renewal, multipath) = (*renewal, *multipath);
        let mut priority = self.cookie_priority(cx, key, header);
        if self.handshakes.get(&key).is_none() {
            self.check_room(cx, key, header, priority)?;
        }
        let source = cx.key.remote.0;
        let peer = match self.peer_of(header, payload, source, priority, cx.now, cx.out) {
            Ok(Peer::Verified(peer)) => peer,
            Ok(Peer::Pending(job)) => return Ok(Taken::Pending(job)),
            Ok(Peer::Unknown) => {
                self.request_token(cx, header, Seal::Open);
                return Err(Refused::new(INGRESS, Reason::TokenUnknown));
            }
            Err(reason @ Reason::VerifyTotal) if priority == Priority::Ordinary => {
                self.demand_cookie(cx, key, header);
                return Err(Refused::new(INGRESS, reason));
            }
            Err(reason) => return Err(Refused::new(INGRESS, reason)),
        };
        let proven = self.syn_mac(cx, header, &peer);
        if proven.is_some() {
            priority = Priority::Proven;
        }
        let decision = self.judge_initiator(cx, &peer, proven.as_ref())?;
        let holds = proven.map(|(own, _)| own.token.id);
        let Choice { own, older } = self
            .choose_for_peer(cx, INGRESS, &peer.id, holds, renewal)
            .map_err(|refused| refused.with_peer(&peer))?;
        let peer_holds_token =
            if holds == Some(own.token.id) { PeerHolds::Known } else { PeerHolds::Unknown };
        let until = cx.now.monotonic + self.config.responder_timeout;
        if let Some(handshake) = self.handshakes.get_mut(&key) {
            if !handshake.may_be(&peer) {
                return Err(Refused::new(INGRESS, Reason::NonceMismatch).with_peer(&peer));
            }
            // The nonces stay: SYN-ACKs for the token before may be on their way.
            let Half::Responder(responder) = &mut handshake.half else {
                return Err(Refused::new(INGRESS, Reason::Internal));
            };
            responder.show_peer(peer.id);
            responder.show(own.token.id);
            handshake.peer_before = handshake.peer.replace(Arc::clone(&peer));
            handshake.own = Some(own);
            handshake.older = older;
            handshake.decision = decision;
            handshake.multipath = multipath;
            handshake.peer_holds_token = peer_holds_token;
            handshake.epoch = cx.unit.epoch;
            self.handshakes.postpone(&key, until);
        } else {
            let mut nonce = [0; 16];
            self.random.fill(&mut nonce);
            let sender = Sender { token: own.token.id, nonce: Nonce(nonce) };
            let state = SynReceived::new(key.isn, message::sender(header), sender).over(cx.key.protocol);
            let handshake = Handshake {
                own: Some(own),
                older,
                peer: Some(Arc::clone(&peer)),
                decision,
                multipath,
                peer_holds_token,
                ..Handshake::new(Half::Responder(Responder::SynReceived(state)), cx.unit.epoch)
            };
            self.handshakes
                .insert(key, handshake, until, priority)
                .map_err(|reason| Refused::new(INGRESS, reason).with_peer(&peer))?;
        }
        Ok(Taken::Accepted)
    }

    /// Asks the policy, and teaches what it says.
    fn judge_initiator<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        peer: &Arc<Verified>,
        proven: Option<&(OwnToken, Arc<PairKeys>)>,
    ) -> Result<Option<Decision>, Box<Refused>> {
        let place = match proven {
            Some((own, keys)) => {
                let proven = Proven { peer, own, role: Role::Responder, keys, fresh: Fresh::No };
                Some(self.teach_peer(cx, &proven))
            }
            None => self.peers.place_of(&peer.id),
        };
        let port = cx.key.local.1;
        let judged = authorize::peer(&cx.unit, INGRESS, cx.key, peer, port);
        match (place, &judged) {
            (Some(place), judged) => self.teach_verdict(cx, INGRESS, place, port, verdict_of(judged)),
            (None, Err(refused)) => self.teach_refusal(cx, peer, refused),
            (None, Ok(_)) => {}
        }
        judged
    }

    /// A cookie of ours shows that the sender receives at its address.
    fn cookie_priority<V>(&self, cx: &Context<'_, V>, key: HalfOpenKey, header: &Header) -> Priority {
        let shown = !header.has_mac()
            && header.mac != [0; 16]
            && cookie::matches(
                &self.cookie_key,
                cx.key,
                key.isn,
                &header.nonce,
                &header.mac,
                cx.now.monotonic,
            );
        if shown { Priority::Proven } else { Priority::Ordinary }
    }

    /// Looks for room before anything expensive; under pressure a sender that shows nothing gets a cookie.
    fn check_room<V: View>(
        &mut self,
        cx: &mut Context<'_, V>,
        key: HalfOpenKey,
        header: &Header,
        priority: Priority,
    ) -> Result<(), Box<Refused>> {
        let Err(reason) = self.handshakes.admit(&key, priority) else { return Ok(()) };
        if priority == Priority::Proven || self.handshakes.admit(&key, Priority::Proven).is_err() {
            return Err(Refused::new(INGRESS, reason));
        }
        // A MAC that may verify, and costs no signature, is worth a look.
        if header.has_mac() && self.tokens_hold(header, cx) {
            return Ok(());
        }
        self.demand_cookie(cx, key, header);
        Err(Refused::new(INGRESS, Reason::CookieDemanded))
    }

    fn tokens_hold<V>(&mut self, header: &Header, cx: &Context<'_, V>) -> bool {
        matches!(self.held_token(&TokenId(header.token_id), cx.now), Ok(Some(_)))
    }

    /// Checks the MAC of a SYN; returns which token of ours the initiator holds, and the keys.
    ///
    /// A MAC that does not verify counts as none: behind a service address the initiator may have meant another node.
    pub(super) fn syn_mac<V>(
        &mut self,
        cx: &Context<'_, V>,
        header: &Header,
        peer: &Verified,
    ) -> Option<(OwnToken, Arc<PairKeys>)> {
        if !header.has_mac() {
            return None;
        }
        let own: Vec<_> = self.own.accepted(&cx.unit.id, cx.now.wall).cloned().collect();
        own.into_iter().find_map(|own| {
            let keys = self.keys(&own, peer, Role::Responder).ok()?;
            let to = Sender { token: own.token.id, nonce: Nonce::ZERO };
            message::check_mac(header, &keys.initiator, to).ok()?;
            Some((own, keys))
        })
    }

    pub(super) fn request_token<V: View>(
        &mut self,
        cx: &mut Context<'_, V>,
        header: &Header,
        seal: Seal<'_>,
    ) {
        self.send_request(cx, Nonce(header.nonce), seal);
    }

    fn demand_cookie<V: View>(&mut self, cx: &mut Context<'_, V>, key: HalfOpenKey, header: &Header) {
        let cookie = cookie::make(&self.cookie_key, cx.key, key.isn, &header.nonce, cx.now.monotonic);
        self.request_token(cx, header, Seal::Cookie(cookie));
    }

    /// Another version is answered in the own one, and never taken for a peer without TAP.
    pub(super) fn request_own_version<V: View>(&mut self, cx: &mut Context<'_, V>, payload: &[u8]) {
        if let Some(nonce) = tap::peek_nonce(payload) {
            self.send_request(cx, Nonce(nonce), Seal::Open);
        }
    }

    fn send_request<V: View>(&mut self, cx: &mut Context<'_, V>, echo: Nonce, seal: Seal<'_>) {
        if !self.replies.try_take(cx.key.remote.0, cx.now.monotonic) {
            return;
        }
        let own = self.own.current(&cx.unit.id).map_or(TokenId::ZERO, |own| own.token.id);
        if let Ok(payload) = message::token_request(cx.key.protocol, own, echo, seal) {
            self.send_control(cx, &payload);
        }
    }
}
