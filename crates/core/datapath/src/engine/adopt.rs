//! Handshakes that the back end began and hands over: the engine goes on from the same nonces.

use trireme_flow::{ConnectionEntry, HalfOpenKey, Priority, Reason};
use trireme_handshake::initiator::{Authenticated, Initiator, Proof, SynSent};
use trireme_handshake::message::{self, Sender};
use trireme_handshake::responder::{Responder, SynAckSent, SynReceived};
use trireme_identity::time::Instant;
use trireme_identity::{Direction, Protocol};
use trireme_token::Role;
use trireme_token::rotation::OwnToken;
use trireme_wire::build;
use trireme_wire::tap::{Attested, HEADER_LEN};

use super::egress_syn::last_resort;
use super::handshake::{Half, Handshake, PeerHolds};
use super::refuse::Refused;
use super::{Context, Engine, authorize};
use crate::{HalfOpenEntry, Packet, Party, SynHeader};

impl From<Party> for Sender {
    fn from(Party { token, nonce }: Party) -> Self {
        Self { token, nonce }
    }
}

/// An initiator's handshake as the back end had it.
struct Opened {
    isn: u32,
    epoch: u32,
    syns: u8,
    own: Sender,
    peer: Option<Sender>,
    syn: SynHeader,
}

/// A responder's.
struct Answered {
    isn: u32,
    own: Sender,
    peer: Sender,
    holds: bool,
    syn_ack: Option<u32>,
}

impl Engine {
    /// Takes over the handshake that comes with a packet. What cannot be rebuilt, after a restart, is refused, and nothing
    /// of it is kept.
    pub(super) fn adopt(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Result<(), Box<Refused>> {
        match packet.half_open.take() {
            None => Ok(()),
            Some(HalfOpenEntry::Opening { isn, epoch, syns, own, peer, syn }) => {
                let opened = Opened { isn, epoch, syns, own: own.into(), peer: peer.map(Sender::from), syn };
                self.adopt_opening(cx, packet, opened)
            }
            Some(HalfOpenEntry::Answering { isn, epoch: _, own, peer, holds, syn_ack }) => {
                let answered = Answered { isn, own: own.into(), peer: peer.into(), holds, syn_ack };
                self.adopt_answering(cx, answered)
            }
        }
    }

    fn adopt_opening(
        &mut self,
        cx: &mut Context<'_>,
        packet: &Packet,
        opened: Opened,
    ) -> Result<(), Box<Refused>> {
        let stray = || Refused::new(Direction::Egress, Reason::Stray);
        let key = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn: opened.isn };
        let entry = opened
            .peer
            .and(packet.connection)
            .filter(|entry| entry.role == Role::Initiator && entry.proof_seq == opened.isn.wrapping_add(1));
        let own = self.own.find(&opened.own.token, cx.now.wall).cloned().ok_or_else(stray)?;
        let sent = sent(cx, &opened, &own);
        let ends = (cx.key.local.0, cx.key.remote.0);
        let SynHeader { hop_limit, traffic_class, tcp } = &opened.syn;
        let syn = build::around_tcp_header(ends, *hop_limit, *traffic_class, tcp).map_err(|_| stray())?;
        let authenticated =
            entry.zip(opened.peer).and_then(|(entry, peer)| proving(cx, &opened, peer, &entry));
        let peer = entry.and_then(|entry| self.peer_of_entry(cx, &entry));
        let half = Half::Initiator(Initiator::resume(sent, authenticated));
        let installed_at = entry.map(|_| cx.now.monotonic);
        let handshake = Handshake {
            own: Some(own),
            peer,
            entry,
            installed_at,
            syn,
            ..Handshake::new(half, opened.epoch)
        };
        let until = cx.now.monotonic + self.config.initiator_timeout;
        self.keep(key, handshake, until, Priority::Proven)
            .map_err(|reason| Refused::new(Direction::Egress, reason))?;
        if self.handshakes.get(&key).is_some_and(|kept| kept.entry.is_some()) {
            self.handshakes.complete(&key, cx.now.monotonic + self.config.completed_timeout);
        }
        Ok(())
    }

    fn adopt_answering(&mut self, cx: &Context<'_>, answered: Answered) -> Result<(), Box<Refused>> {
        let refused = |reason| Refused::new(Direction::Ingress, reason);
        let Answered { isn, own: sender, peer: initiator, holds, syn_ack } = answered;
        let key = HalfOpenKey { flow: cx.key, role: Role::Responder, isn };
        let own = self.own.find(&sender.token, cx.now.wall).cloned().ok_or_else(|| refused(Reason::Stray))?;
        let peer = self
            .held_token(&initiator.token, cx.now)
            .map_err(refused)?
            .ok_or_else(|| refused(Reason::Stray))?;
        let decision = authorize::peer(&cx.unit, Direction::Ingress, cx.key, &peer, cx.key.local.1)?;
        let received = SynReceived::new(isn, initiator, sender);
        let responder = match syn_ack {
            Some(seq) => Responder::SynAckSent(SynAckSent::new(received, seq)),
            None => Responder::SynReceived(received),
        };
        let (priority, peer_holds_token) = if holds {
            (Priority::Proven, PeerHolds::Known)
        } else {
            (Priority::Ordinary, PeerHolds::Unknown)
        };
        let handshake = Handshake {
            own: Some(own),
            peer: Some(peer),
            decision,
            peer_holds_token,
            ..Handshake::new(Half::Responder(responder), cx.unit.epoch)
        };
        let until = cx.now.monotonic + self.config.responder_timeout;
        self.keep(key, handshake, until, priority).map_err(refused)
    }

    /// Keeps a handshake that was handed over: as a rival of the engine's own, if there is one under another nonce.
    fn keep(
        &mut self,
        key: HalfOpenKey,
        handshake: Handshake,
        until: Instant,
        priority: Priority,
    ) -> Result<(), Reason> {
        self.forget_older(&key);
        let Some(kept) = self.handshakes.get_mut(&key) else {
            return self.handshakes.insert(key, handshake, until, priority);
        };
        let known = kept.own_nonce() == handshake.own_nonce();
        match (kept.entry.is_some(), handshake.entry.is_some()) {
            (true, _) => {}
            (false, true) => *kept = handshake,
            (false, false) if known => {}
            (false, false) => kept.rival = Some(Box::new(handshake)),
        }
        Ok(())
    }

    /// The back end has ended what was on the tuple before.
    fn forget_older(&mut self, key: &HalfOpenKey) {
        let older: Vec<_> = [Role::Initiator, Role::Responder]
            .into_iter()
            .flat_map(|role| self.handshakes.of_flow(key.flow, role))
            .filter(|(other, handshake)| *other != key && handshake.entry.is_some())
            .map(|(other, _)| *other)
            .collect();
        for other in older {
            self.handshakes.remove(&other);
            self.held.take(other);
        }
    }

    /// Goes on with the rival, if a message belongs to that one only: the other party has chosen.
    pub(super) fn prefer(&mut self, key: &HalfOpenKey, belongs: impl Fn(&Handshake) -> bool) {
        let Some(kept) = self.handshakes.get_mut(key).filter(|kept| !belongs(kept)) else { return };
        if kept.rival.as_ref().is_some_and(|rival| belongs(rival)) {
            kept.give_way();
        }
    }

    /// As long as the initiator has not chosen, SYN-ACKs speak for the rivals in turn: one that took the other's says nothing
    /// more until that one is repeated.
    pub(super) fn alternate(&mut self, key: &HalfOpenKey) {
        if let Some(kept) = self.handshakes.get_mut(key).filter(|kept| kept.entry.is_none()) {
            kept.give_way();
        }
    }
}

/// The state behind the SYNs that have left.
fn sent(cx: &Context<'_>, opened: &Opened, own: &OwnToken) -> SynSent {
    let mut sent = SynSent::new(opened.isn, opened.own, last_resort(&cx.unit)).after(opened.syns);
    sent.note_payload(HEADER_LEN);
    sent.note_payload(HEADER_LEN + own.token.bytes.len() + own.token.credential.len());
    sent
}

/// The responder as the entry tells of it, and the proof with the MAC that is in the entry.
fn proving(
    cx: &Context<'_>,
    opened: &Opened,
    peer: Sender,
    entry: &ConnectionEntry,
) -> Option<Authenticated> {
    let (addr, port) = entry.attested.unwrap_or(cx.key.remote);
    let payload = message::ack_again(Protocol::TCP, opened.own, entry.proof_mac, peer).ok()?;
    Some(Authenticated {
        peer,
        own: opened.own.token,
        endpoint: Attested { protocol: Protocol::TCP, port, addr },
        proof: Proof { seq: entry.proof_seq, payload, mac: entry.proof_mac },
    })
}
