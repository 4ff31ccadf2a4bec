//! What the engine keeps about a handshake besides the state machine's own state.

use std::sync::Arc;
use std::time::Duration;

use trireme_flow::{ConnectionClass, ConnectionEntry, FlowKey, HalfOpenKey, NO_PEER_SLOT, Reason};
use trireme_handshake::Fault;
use trireme_handshake::initiator::Initiator;
use trireme_handshake::responder::Responder;
use trireme_identity::time::Instant;
use trireme_policy::Decision;
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, PairKeys, Role, TokenId, Verified, pair_keys};
use trireme_wire::tcp::Segment;

use super::exchange::Retry;
use super::{Context, Engine};
use crate::{Effect, Hook};

/// The half of the protocol that is played here.
#[derive(Clone, Debug)]
pub(crate) enum Half {
    Initiator(Initiator),
    Responder(Responder),
}

/// One handshake.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    pub(crate) half: Half,
    /// The token of ours in use; none towards peers without identity.
    pub(crate) own: Option<OwnToken>,
    /// The token of ours to go back to, should the one in use find no answer.
    pub(crate) older: Option<OwnToken>,
    /// The peer, once its token has verified.
    pub(crate) peer: Option<Arc<Verified>>,
    /// What the initiator called itself in an earlier SYN with the same nonce.
    pub(crate) peer_before: Option<Arc<Verified>>,
    /// Why the peer was accepted.
    pub(crate) decision: Option<Decision>,
    /// The epoch of the unit when it was.
    pub(crate) epoch: u32,
    /// What was installed.
    pub(crate) entry: Option<ConnectionEntry>,
    /// When.
    pub(crate) installed_at: Option<Instant>,
    /// The unit's SYN without TAP, to be sent again on request.
    pub(crate) syn: Vec<u8>,
    /// Whether the initiator's stack wants Multipath TCP: then its own third ACK must be the first to arrive.
    pub(crate) multipath: Multipath,
    /// Whether the initiator holds our current token.
    pub(crate) peer_holds_token: PeerHolds,
    /// How often the proof was sent.
    pub(crate) proofs: u32,
    /// Over UDP: when the last message is repeated.
    pub(crate) retry: Option<Retry>,
    /// The same handshake under another nonce: a back end may begin one that the engine has begun already, when it has
    /// learned to meanwhile. Which of the two counts is for the other party to say.
    pub(crate) rival: Option<Box<Self>>,
}

/// Whether a SYN asked for Multipath TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multipath {
    Asked,
    NotAsked,
}

/// Whether the peer is known to hold our token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerHolds {
    Known,
    Unknown,
}

impl Handshake {
    pub(crate) fn new(half: Half, epoch: u32) -> Self {
        Self {
            half,
            own: None,
            older: None,
            peer: None,
            peer_before: None,
            decision: None,
            epoch,
            entry: None,
            installed_at: None,
            syn: Vec::new(),
            multipath: Multipath::NotAsked,
            peer_holds_token: PeerHolds::Unknown,
            proofs: 0,
            retry: None,
            rival: None,
        }
    }

    /// Our nonce, where identity is shown.
    pub(crate) const fn own_nonce(&self) -> Option<Nonce> {
        match &self.half {
            Half::Initiator(Initiator::SynSent(sent)) => Some(sent.own().nonce),
            Half::Initiator(Initiator::Proving(proving)) => Some(proving.sent().own().nonce),
            Half::Initiator(Initiator::PlainSent(_) | Initiator::AddressAdmitted(_)) => None,
            Half::Responder(responder) => match responder.syn() {
                Some(syn) => Some(syn.own().nonce),
                None => None,
            },
        }
    }

    /// The nonce of an initiator with identity.
    pub(crate) fn peer_nonce(&self) -> Option<Nonce> {
        match &self.half {
            Half::Initiator(_) => None,
            Half::Responder(responder) => responder.syn().map(|syn| syn.peer().nonce),
        }
    }

    /// Changes places with the rival.
    pub(crate) fn give_way(&mut self) {
        if let Some(rival) = self.rival.take() {
            let own = std::mem::replace(self, *rival);
            self.rival = Some(Box::new(Self { rival: None, ..own }));
        }
    }

    /// Our token and nonce.
    pub(crate) fn shown(&self) -> Option<(OwnToken, Nonce)> {
        Some((self.own.clone()?, self.own_nonce()?))
    }

    /// Whether a SYN with the nonce of this handshake may show this token instead: it must be of the same unit, and no
    /// third one.
    pub(crate) fn may_be(&self, peer: &Verified) -> bool {
        let same = |known: &Arc<Verified>| {
            (&known.claims.issuer, &known.claims.subject) == (&peer.claims.issuer, &peer.claims.subject)
        };
        self.peer.as_ref().is_some_and(same)
            && self.peer_before.as_ref().is_none_or(|before| before.id == peer.id)
    }

    /// The entry of a connection judged by address.
    pub(crate) const fn address_entry(role: Role, epoch: u32, isn: u32) -> ConnectionEntry {
        ConnectionEntry {
            role,
            epoch,
            peer_token: TokenId::ZERO,
            peer_slot: NO_PEER_SLOT,
            peer_generation: 0,
            attested: None,
            proof_seq: isn.wrapping_add(1),
            proof_mac: [0; 16],
            confirmed: true,
            data_seen: false,
            class: ConnectionClass::Address,
            syn_ack: 0,
        }
    }
}

impl Multipath {
    pub(crate) fn of(segment: &Segment, bytes: &[u8]) -> Self {
        if segment.options(bytes).has_multipath() { Self::Asked } else { Self::NotAsked }
    }
}

impl Engine {
    /// The keys shared with a peer's node, derived once per pair of agreement keys.
    pub(super) fn keys(
        &mut self,
        own: &OwnToken,
        peer: &Verified,
        role: Role,
    ) -> Result<Arc<PairKeys>, Reason> {
        let name = (own.key.public(), peer.claims.agreement, role);
        if let Some(keys) = self.pair_keys.get_mut(&name) {
            return Ok(Arc::clone(keys));
        }
        let keys = pair_keys(&own.key, &peer.claims.agreement, role, self.secrets.signer.pair_mode())
            .map_err(|_| Reason::AgreementKey)?;
        let keys = Arc::new(keys);
        self.pair_keys.insert(name, Arc::clone(&keys));
        Ok(keys)
    }

    /// The handshake that a segment without SYN belongs to: the one whose first sequence number lies closest before it.
    pub(super) fn handshake_of(&self, key: FlowKey, segment: &Segment, hook: Hook) -> Option<HalfOpenKey> {
        [Role::Initiator, Role::Responder]
            .into_iter()
            .flat_map(|role| self.handshakes.of_flow(key, role).map(|(key, _)| *key))
            .min_by_key(|found| distance(found, segment, hook))
    }

    /// Whether a handshake may speak for a segment of which the back end's table knows no connection. A completed one may
    /// for as long as segments are on their way that were taken before its entry was written: the table's entry may have
    /// ended since, by a new handshake of the back end's own.
    pub(super) fn speaks_for(&self, found: &HalfOpenKey, cx: &Context<'_>, hook: Hook) -> bool {
        let Some(handshake) = self.handshakes.get(found) else { return false };
        match handshake.installed_at.filter(|_| handshake.entry.is_some()) {
            None => true,
            Some(at) => {
                cx.now.monotonic.since(at) <= ON_THE_WAY && distance(found, &cx.view, hook) <= FIRST_BYTES
            }
        }
    }

    /// A new connection on the tuple ends what was there before it.
    pub(super) fn end_others(
        &mut self,
        cx: &mut Context<'_>,
        keep: &HalfOpenKey,
        held: Option<ConnectionEntry>,
    ) {
        // A unit that opens anew has given its older attempts up; SYNs of others it has not seen the last of.
        let own = |role| role == Role::Initiator && keep.role == Role::Initiator;
        let others: Vec<_> = [Role::Initiator, Role::Responder]
            .into_iter()
            .flat_map(|role| self.handshakes.of_flow(cx.key, role))
            .filter(|(key, other)| *key != keep && (own(key.role) || other.entry.is_some()))
            .map(|(key, other)| (*key, other.entry.is_some()))
            .collect();
        let installed = others.iter().any(|(_, installed)| *installed);
        for (key, _) in others {
            self.handshakes.remove(&key);
            self.held.take(key);
        }
        let own_entry = self.handshakes.get(keep).is_some_and(|kept| kept.entry.is_some());
        if installed || (held.is_some() && !own_entry) {
            cx.out.push(Effect::Remove(cx.key));
        }
    }
}

/// How far a segment lies behind the first sequence number of a handshake.
const fn distance(found: &HalfOpenKey, segment: &Segment, hook: Hook) -> u32 {
    let number = match (found.role, hook) {
        (Role::Initiator, Hook::FromPu) | (Role::Responder, Hook::ToPu) => segment.seq,
        (Role::Initiator, Hook::ToPu) | (Role::Responder, Hook::FromPu) => segment.ack,
    };
    number.wrapping_sub(found.isn)
}

/// How long a segment may be on its way between the back end and the engine.
pub(super) const ON_THE_WAY: Duration = Duration::from_secs(1);
/// More than an initiator sends in one flight.
const FIRST_BYTES: u32 = 1 << 20;

/// The reason that a fault is reported as.
pub(crate) const fn reason_of(fault: Fault) -> Reason {
    match fault {
        Fault::Stray => Reason::Stray,
        Fault::BeyondSyn => Reason::HostilePath,
        Fault::Unexpected => Reason::TapUnexpected,
        Fault::MacMissing => Reason::MacMissing,
        Fault::MacInvalid => Reason::MacInvalid,
        Fault::NonceMismatch => Reason::NonceMismatch,
        Fault::IdentityStripped => Reason::IdentityStripped,
        Fault::SimultaneousOpen => Reason::SimultaneousOpen,
        Fault::ResetUnproven => Reason::ResetUnproven,
        Fault::ProofMissing => Reason::ProofMissing,
    }
}
