//! Keys and entries of the connection table that the back end owns.

use std::cmp::Ordering;
use std::net::IpAddr;

use trireme_identity::Protocol;
use trireme_token::{Role, TokenId};

/// The `peer_slot` of an entry whose peer has no identity.
pub const NO_PEER_SLOT: u32 = u32::MAX;

/// The number under which back end and engine know a processing unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PuSlot(pub u32);

/// Names one connection, or one flow of a protocol without connections, as its processing unit sees it.
///
/// The role needs no place in the key: for a unit that talks to itself, local and remote end are swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The processing unit at whose edge the packet was taken.
    pub pu: PuSlot,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The unit's own address and port, as seen at its edge: for an incoming packet to a group, the group's.
    ///
    /// What stands for the port in ICMP: the identifier at the end that asks, `type × 256` of the query at the end that is
    /// asked; for messages that nothing answers zero at the sender and `type × 256 + code` at the receiver. Zero at both
    /// ends for protocols that have neither.
    pub local: (IpAddr, u16),
    /// The other end, as seen at the unit's edge.
    pub remote: (IpAddr, u16),
}

/// By unit, then by what tells two flows of a unit apart soonest.
impl Ord for FlowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let ports = |key: &Self| (key.pu, key.remote.1, key.local.1, key.protocol);
        ports(self)
            .cmp(&ports(other))
            .then_with(|| (self.remote.0, self.local.0).cmp(&(other.remote.0, other.local.0)))
    }
}

impl PartialOrd for FlowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FlowKey {
    /// A flow of any protocol.
    #[must_use]
    pub const fn new(pu: PuSlot, protocol: Protocol, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        Self { pu, protocol, local, remote }
    }

    /// A TCP connection.
    #[must_use]
    pub const fn tcp(pu: PuSlot, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Self {
        Self::new(pu, Protocol::TCP, local, remote)
    }

    /// Whether the protocol has connections that handshakes open.
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        matches!(self.protocol, Protocol::TCP)
    }
}

/// How the peer of an admitted connection was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionClass {
    /// By the claims of a token whose holder proved itself.
    Identity,
    /// By its address: a peer without TAP.
    Address,
    /// Not at all: it is older than its unit's enforcement.
    Adopted,
}

/// One admitted connection, or one admitted flow of a protocol without connections, as the back end's connection table
/// holds it.
///
/// **TCP.** Packets of an entry with the unit's current `epoch` pass without the engine, with these exceptions:
/// - a SYN (with or without ACK) always goes to the engine;
/// - towards the unit, a segment at `proof_seq` whose payload is a kind-3 message with the MAC `proof_mac`
///   goes to the engine, which strips it;
/// - while `confirmed` is false, from the unit: an empty ACK goes to the engine (the proof is attached again);
///   data or FIN at `proof_seq` goes to the engine when `data_seen` is true and else passes and sets it;
///   towards the unit: the first non-SYN segment sets `confirmed` and passes.
///
/// **Other protocols** ([`FlowKey::protocol`]). Packets of an entry with the unit's current `epoch` pass without the engine
/// in both directions: the role says who sent first, replies need no other reason. `confirmed` is true, `data_seen` false,
/// `proof_seq` and `syn_ack` zero. These packets of an entry go to the engine all the same:
/// - UDP, either direction: a datagram whose data begins with the first three bytes of the TAP magic;
/// - ICMP: a query that does not come from the end that `role` says has asked, and a reply that does not go there. In a
///   unit's own numbers a query of one end may look like a reply to another's;
/// - a fragment, unless the back end itself lets later fragments follow the first: by source, destination, protocol and
///   identification, as long as it takes to reassemble a packet ([`FRAGMENT_TIME`](crate::FRAGMENT_TIME)).
///
/// Nothing ends such a flow but silence: the back end removes an entry for which no packet has passed for
/// [`idle_time`](crate::idle_time), which depends on the protocol and on whether both ends have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionEntry {
    /// The unit's part in the handshake.
    pub role: Role,
    /// The policy epoch of the unit under which the connection was judged.
    pub epoch: u32,
    /// The peer's token, all zero for [`ConnectionClass::Address`].
    pub peer_token: TokenId,
    /// The peer's place in the engine's peer table, [`NO_PEER_SLOT`] for [`ConnectionClass::Address`].
    pub peer_slot: u32,
    /// The generation of that place; another generation is another peer.
    pub peer_generation: u32,
    /// The responder's own end as it attested it; known to initiators only.
    pub attested: Option<(IpAddr, u16)>,
    /// The sequence number of the proof: the initiator's first SYN plus one.
    pub proof_seq: u32,
    /// The MAC of the proof, all zero for [`ConnectionClass::Address`].
    pub proof_mac: [u8; 16],
    /// Whether the responder is known to have the proof. Always true for responders and for peers without TAP.
    pub confirmed: bool,
    /// Whether data at `proof_seq` has to see the engine.
    ///
    /// True from the start, so that data that leaves before any empty ACK (delayed ACK) gets the proof in front
    /// of it; false once the engine has attached the proof; true again, set by the back end, after the first
    /// data segment has passed.
    pub data_seen: bool,
    /// How the peer was judged.
    pub class: ConnectionClass,
    /// The sequence number of the unit's SYN-ACK, for a responder whose handshake the back end completed by itself: such
    /// a SYN-ACK may leave again, bare. Zero where the engine has the handshake.
    pub syn_ack: u32,
}
