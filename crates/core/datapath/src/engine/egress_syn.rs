//! A unit opens a connection: attach its identity (kind 1).

use std::sync::Arc;

use trireme_flow::{HalfOpenKey, Priority, Reason};
use trireme_handshake::initiator::{Attach, Initiator, Input, LastResort, Output, PlainSent, SynSent};
use trireme_handshake::message::{self, Attachment, Seal, Sender};
use trireme_identity::{Direction, Protocol};
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, RandomSource, Role, Verified};
use trireme_wire::ip::Family;
use trireme_wire::{edit, tap};

use super::handshake::{Half, Handshake, reason_of};
use super::refuse::Refused;
use super::renew::{Choice, Renewal};
use super::{Context, Engine, Judged, Known, Next, Unit, authorize};
use crate::{Effect, KnownTokens, Packet, Strictness};

/// Whether a SYN carries identity.
enum Identity {
    Shown,
    Withheld,
}

impl Engine {
    pub(super) fn egress_syn(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        self.clean_own_payload(cx, packet, Direction::Egress)?;
        let key = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn: cx.view.seq };
        self.end_others(cx, &key, packet.connection);
        if self.handshakes.get(&key).is_some() {
            return self.resend_syn(cx, packet, key);
        }
        if authorize::has_no_egress(&cx.unit, Protocol::TCP) {
            return Err(Refused::new(Direction::Egress, Reason::PolicyNoEgress));
        }
        match self.identity_towards(cx, packet)? {
            Identity::Shown => self.open_with_identity(cx, packet, key),
            Identity::Withheld => self.open_without_identity(cx, packet, key),
        }
    }

    /// Only enforcers speak TAP: whatever the unit put on a SYN or SYN-ACK goes, and the Fast Open option with it, so that
    /// its stack sends the data again.
    pub(super) fn clean_own_payload(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        direction: Direction,
    ) -> Result<(), Box<Refused>> {
        let payload = cx.view.payload(&packet.bytes);
        let reason = match payload {
            [] => None,
            payload if tap::is_tap(payload) => Some(Reason::TapFromPu),
            _ => Some(Reason::PayloadFromPu),
        };
        if let Some(reason) = reason {
            self.note(cx, direction, reason);
            strip(packet, direction)?;
        }
        if cx.view.options(&packet.bytes).has_fast_open() {
            edit::strip_fast_open(&mut packet.bytes)
                .map_err(|_| Refused::new(direction, Reason::Malformed))?;
        }
        Ok(())
    }

    /// Identity goes towards target networks only, so that strangers never see tags.
    fn identity_towards(&mut self, cx: &Context<'_>, packet: &Packet) -> Result<Identity, Box<Refused>> {
        let remote = cx.key.remote;
        if !cx.unit.settings.target_networks.contains(remote.0) {
            return Ok(Identity::Withheld);
        }
        let destination = (cx.slot, remote);
        // A payload would break the signature of TCP-MD5 and TCP-AO at a peer that does not take it off again.
        let is_known = self.known.peek(&destination).is_some_and(|known| known.peer.is_some());
        let signed = cx.view.options(&packet.bytes).are_signed() && !is_known;
        let now = cx.now.monotonic;
        let hostile = self.hostile.get_mut(&destination).is_some_and(|until| *until > now);
        match (signed, hostile, cx.unit.settings.strictness) {
            (true, _, Strictness::StrictIdentity) => {
                Err(Refused::new(Direction::Egress, Reason::StrictIdentity))
            }
            (true, _, Strictness::Lenient) | (false, true, Strictness::Lenient) => Ok(Identity::Withheld),
            (false, _, Strictness::StrictIdentity) | (false, false, Strictness::Lenient) => {
                Ok(Identity::Shown)
            }
        }
    }

    fn open_without_identity(&mut self, cx: &mut Context<'_>, packet: &Packet, key: HalfOpenKey) -> Judged {
        authorize::address(&cx.unit, Direction::Egress, cx.key)?;
        let half = Half::Initiator(Initiator::PlainSent(PlainSent::new(key.isn)));
        let handshake = Handshake { syn: packet.bytes.clone(), ..Handshake::new(half, cx.unit.epoch) };
        self.begin(cx, key, handshake, Direction::Egress)?;
        Ok(Next::Pass)
    }

    /// The token of ours to show at the address called.
    pub(super) fn choose_towards<V>(
        &mut self,
        cx: &Context<'_, V>,
        known: Option<&Known>,
        renewal: Renewal,
    ) -> Result<Choice, Box<Refused>> {
        match known {
            Some(Known { peer: Some(peer), .. }) => {
                self.choose_for_peer(cx, Direction::Egress, &peer.id, None, renewal)
            }
            Some(Known { peer: None, holds, .. }) => self.choose_for_service(cx, Some(*holds)),
            None => self.choose_for_service(cx, None),
        }
    }

    fn open_with_identity(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let known = self.known_peer(cx);
        let Choice { own, older } = self.choose_towards(cx, known.as_ref(), Renewal::of(packet))?;
        let signed = cx.view.options(&packet.bytes).are_signed();
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce);
        let sender = Sender { token: own.token.id, nonce: Nonce(nonce) };
        let sent = SynSent::new(key.isn, sender, last_resort(&cx.unit));
        let attach = sent.first();
        let half = Half::Initiator(Initiator::SynSent(sent));
        let handshake = Handshake {
            own: Some(own.clone()),
            older,
            syn: packet.bytes.clone(),
            ..Handshake::new(half, cx.unit.epoch)
        };
        self.begin(cx, key, handshake, Direction::Egress)?;
        let payload = self.kind_1(cx, key, &own, sender, Shape { attach, cookie: None })?;
        self.append(packet, &payload, Direction::Egress)?;
        if !signed {
            let held = known.and_then(|known| Some((known.peer?.id, known.holds)));
            let held = held.filter(|(peer, _)| self.peers.place_of(peer).is_some());
            self.teach_destination(cx, held);
        }
        Ok(Next::Pass)
    }

    /// What is known about the address called, while it holds.
    pub(super) fn known_peer<V>(&mut self, cx: &Context<'_, V>) -> Option<Known> {
        let known = self.known.get_mut(&(cx.slot, cx.key.remote)).cloned()?;
        let holds = |peer: &Arc<Verified>| peer.is_valid_at(cx.now.wall) && !self.is_revoked(peer);
        known.peer.as_ref().is_none_or(holds).then_some(known)
    }

    /// Same tuple, same sequence number: a retransmission, with the same nonce and the whole token.
    fn resend_syn(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let until = cx.now.monotonic + self.config.initiator_timeout;
        self.handshakes.reopen(&key, until);
        let Some(handshake) = self.handshakes.get_mut(&key) else {
            return Err(Refused::new(Direction::Egress, Reason::Internal));
        };
        if handshake.entry.take().is_some() {
            cx.out.push(Effect::Remove(cx.key));
        }
        let Half::Initiator(initiator) = &mut handshake.half else {
            return Err(Refused::new(Direction::Egress, Reason::Internal));
        };
        let output = initiator.handle(Input::Syn);
        // Nobody answered the newer token.
        if let (Initiator::SynSent(sent), Some(older)) = (&mut *initiator, handshake.older.take()) {
            sent.show(older.token.id);
            handshake.own = Some(older);
        }
        let own = handshake.own.clone();
        let sender = match initiator {
            Initiator::SynSent(sent) => Some(sent.own()),
            Initiator::PlainSent(_) | Initiator::Proving(_) | Initiator::AddressAdmitted(_) => None,
        };
        match (output, own, sender) {
            (Output::Identify(attach), Some(own), Some(sender)) => {
                let payload = self.kind_1(cx, key, &own, sender, Shape { attach, cookie: None })?;
                self.append(packet, &payload, Direction::Egress)?;
                Ok(Next::Pass)
            }
            (Output::FallBack, ..) => {
                self.note(cx, Direction::Egress, Reason::PlainFallback);
                Ok(Next::Pass)
            }
            (Output::Pass, ..) => Ok(Next::Pass),
            (Output::Drop(fault), ..) => Err(Refused::new(Direction::Egress, reason_of(fault))),
            _ => Err(Refused::new(Direction::Egress, Reason::Internal)),
        }
    }

    /// Makes kind 1; a node known behind the address gets a MAC and, the first time, only the id of a token it holds.
    pub(super) fn kind_1<V>(
        &mut self,
        cx: &Context<'_, V>,
        key: HalfOpenKey,
        own: &OwnToken,
        sender: Sender,
        shape: Shape,
    ) -> Result<Vec<u8>, Box<Refused>> {
        let Shape { attach, cookie } = shape;
        let known = self.known_peer(cx).and_then(|known| Some((known.peer?, known.holds)));
        let keys = match &known {
            Some((peer, _)) if cookie.is_none() => self.keys(own, peer, Role::Initiator).ok(),
            Some(_) | None => None,
        };
        let seal = match (&keys, &known, cookie) {
            (_, _, Some(cookie)) => Seal::Cookie(cookie),
            (Some(keys), Some((peer, _)), None) => Seal::Mac(&keys.initiator, peer.id),
            _ => Seal::Open,
        };
        let holds = known.as_ref().is_some_and(|(_, holds)| *holds == own.token.id);
        let omit = attach == Attach::IfUnknown && holds && self.config.known_tokens == KnownTokens::Omit;
        let attached =
            (!omit).then_some(Attachment { token: &own.token.bytes, credential: &own.token.credential });
        let payload = message::syn(cx.key.protocol, sender, Family::of(cx.key.local.0), seal, attached)
            .map_err(|_| Refused::new(Direction::Egress, Reason::TooLarge))?;
        if let Some(Handshake { half: Half::Initiator(Initiator::SynSent(sent)), .. }) =
            self.handshakes.get_mut(&key)
        {
            sent.note_payload(payload.len());
        }
        Ok(payload)
    }

    /// Takes a handshake of the unit's own making on.
    pub(super) fn begin<V>(
        &mut self,
        cx: &Context<'_, V>,
        key: HalfOpenKey,
        handshake: Handshake,
        direction: Direction,
    ) -> Result<(), Box<Refused>> {
        let until = cx.now.monotonic + self.config.initiator_timeout;
        self.handshakes
            .insert(key, handshake, until, Priority::Proven)
            .map_err(|reason| Refused::new(direction, reason))
    }

    /// Appends a message, within the size that a handshake segment may have.
    pub(super) fn append(
        &self,
        packet: &mut Packet,
        payload: &[u8],
        direction: Direction,
    ) -> Result<(), Box<Refused>> {
        let too_large = || Refused::new(direction, Reason::TooLarge);
        if packet.bytes.len().saturating_add(payload.len()) > self.config.handshake_mtu {
            return Err(too_large());
        }
        edit::append_payload(&mut packet.bytes, payload).map_err(|_| too_large())
    }
}

/// Whether SYNs that find no answer may leave without identity in the end.
pub(super) fn last_resort(unit: &Unit) -> LastResort {
    match unit.settings.strictness {
        Strictness::Lenient => LastResort::Plain,
        Strictness::StrictIdentity => LastResort::Never,
    }
}

/// What a kind-1 message carries besides its sender.
pub(super) struct Shape {
    pub(super) attach: Attach,
    pub(super) cookie: Option<[u8; 16]>,
}

/// Takes the whole payload off.
pub(super) fn strip(packet: &mut Packet, direction: Direction) -> Result<(), Box<Refused>> {
    edit::strip_payload(&mut packet.bytes, 0).map_err(|_| Refused::new(direction, Reason::Malformed))
}
