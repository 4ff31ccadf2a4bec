//! What the engine teaches a back end that completes handshakes of known identities by itself, and what such a back
//! end hands over when it cannot go on.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use trireme_flow::{PuSlot, Reason};
use trireme_identity::time::WallTime;
use trireme_identity::{Direction, Protocol};
use trireme_token::{AgreementPublic, Nonce, PairKeys, Role, TokenId};

/// A short name of an agreement key: the first 16 bytes of its public half. Finding another key pair of the same name
/// takes 2^128 attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(pub [u8; 16]);

impl From<AgreementPublic> for KeyName {
    fn from(key: AgreementPublic) -> Self {
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(key.0) {
            *to = from;
        }
        Self(name)
    }
}

/// One fact. A fact of another epoch or generation than the current one counts for nothing, so only
/// [`Lesson::ForgetPeer`] and [`Lesson::ForgetDestination`] take something back.
#[derive(Clone, Debug)]
pub enum Lesson {
    /// The unit's own tokens, newest first; replaces what was said before. At most two.
    OwnTokens {
        /// The unit.
        pu: PuSlot,
        /// Its tokens.
        tokens: Vec<OwnAttachment>,
    },
    /// A peer whose MAC has verified.
    Peer {
        /// Its token.
        token: TokenId,
        /// Its place in the engine's peer table.
        slot: u32,
        /// The generation of that place.
        generation: u32,
        /// How long its token is accepted, leeway included.
        until: WallTime,
        /// The agreement key in its token.
        key: KeyName,
        /// The agreement key of ours that its node used last.
        own_key: KeyName,
    },
    /// A peer's place was given to another, or its token was revoked.
    ForgetPeer(TokenId),
    /// The MAC keys shared with a peer's node.
    Pair {
        /// Our agreement key.
        own: KeyName,
        /// The peer's.
        peer: KeyName,
        /// The unit's role.
        role: Role,
        /// The keys.
        keys: Arc<PairKeys>,
    },
    /// What a unit's policy says about a peer, whatever its address.
    Verdict {
        /// The unit.
        pu: PuSlot,
        /// Whether the unit is called (ingress) or calls (egress).
        direction: Direction,
        /// The peer's place.
        peer_slot: u32,
        /// The generation of that place.
        generation: u32,
        /// The responder's own port.
        port: u16,
        /// The unit's epoch.
        epoch: u32,
        /// The number of the rule that decided.
        rule: Option<u16>,
        /// [`Reason::Accepted`], or why not.
        reason: Reason,
    },
    /// A unit shows its identity at this address.
    Destination {
        /// The unit.
        pu: PuSlot,
        /// The address and port called.
        remote: (IpAddr, u16),
        /// The unit's epoch.
        epoch: u32,
        /// The one peer behind it and the token of ours that it holds; none behind a service.
        peer: Option<(TokenId, TokenId)>,
    },
    /// Nothing is known about this address any more.
    ForgetDestination {
        /// The unit.
        pu: PuSlot,
        /// The address and port called.
        remote: (IpAddr, u16),
    },
    /// An initiator whose token has a valid signature, and which the unit's policy refuses. It can only refuse.
    Refusal {
        /// The unit.
        pu: PuSlot,
        /// The unit's own port.
        port: u16,
        /// The initiator's token.
        token: TokenId,
        /// The unit's epoch.
        epoch: u32,
        /// The number of the rule that decided.
        rule: Option<u16>,
        /// Why.
        reason: Reason,
        /// How long the token is valid.
        until: WallTime,
        /// The initiator's place in the engine's table of refused peers.
        slot: u32,
        /// The generation of that place.
        generation: u32,
    },
}

/// A token of a unit's own as it is attached to segments.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnAttachment {
    /// Its id.
    pub id: TokenId,
    /// The agreement key in it.
    pub key: KeyName,
    /// It is not used from here on.
    pub until: WallTime,
    /// The token.
    pub token: Arc<[u8]>,
    /// The certificate or key token beside it; may be empty.
    pub credential: Arc<[u8]>,
}

impl fmt::Debug for OwnAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnAttachment")
            .field("id", &self.id)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// One party's token and nonce in a handshake of the back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its token.
    pub token: TokenId,
    /// Its nonce.
    pub nonce: Nonce,
}

/// A handshake that the back end began and hands over with a packet: it has forgotten it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HalfOpenEntry {
    /// The unit is the initiator.
    Opening {
        /// The sequence number of its SYN.
        isn: u32,
        /// Its epoch then.
        epoch: u32,
        /// How many SYNs have left.
        syns: u8,
        /// Our token and nonce.
        own: Party,
        /// The responder, once it was authenticated and authorized; the packet's `connection` then is what was installed.
        peer: Option<Party>,
        /// The SYN without TAP: its hop limit, traffic class and TCP header.
        syn: SynHeader,
    },
    /// The unit is the responder.
    Answering {
        /// The sequence number of the initiator's SYN.
        isn: u32,
        /// The unit's epoch then.
        epoch: u32,
        /// Our token and nonce.
        own: Party,
        /// The initiator's.
        peer: Party,
        /// Whether the initiator is known to hold our token.
        holds: bool,
        /// The sequence number of the unit's SYN-ACK, once it has left.
        syn_ack: Option<u32>,
    },
}

/// What is needed to send a SYN again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynHeader {
    /// Its hop limit or time to live.
    pub hop_limit: u8,
    /// Its traffic class or type of service.
    pub traffic_class: u8,
    /// Its TCP header, options included.
    pub tcp: Vec<u8>,
}

/// Equal events of handshakes, connections and flows that the back end decided by itself, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendEvent {
    /// The unit.
    pub pu: PuSlot,
    /// Whether it was called (ingress) or called (egress).
    pub direction: Direction,
    /// The peer.
    pub peer: PeerPlace,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The responder's own port, or what stands for it in the name of a flow.
    pub port: u16,
    /// [`Reason::Accepted`], or why not.
    pub reason: Reason,
    /// The number of the rule that decided.
    pub rule: Option<u16>,
    /// The unit's address.
    pub local: IpAddr,
    /// The other address.
    pub remote: IpAddr,
    /// Connections that began.
    pub starts: u64,
    /// Handshakes refused; packets dropped because of an [`Effect::Block`](crate::Effect::Block).
    pub refused: u64,
    /// Connections that ended.
    pub ends: u64,
    /// What went over those that ended.
    pub traffic: trireme_flow::Traffic,
    /// When the first of these events happened.
    pub first: WallTime,
    /// When the last of them happened.
    pub last: WallTime,
}

/// Where the engine finds the peer of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPlace {
    /// In the table of peers: place and generation.
    Known(u32, u32),
    /// In the table of refused initiators: place and generation.
    Refused(u32, u32),
    /// It has no identity.
    None,
}
