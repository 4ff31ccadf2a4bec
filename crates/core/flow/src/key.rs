//! Keys and entries of the connection table that the back end owns.

use std::net::IpAddr;

use trireme_token::{Role, TokenId};

/// The `peer_slot` of an entry whose peer has no identity.
pub const NO_PEER_SLOT: u32 = u32::MAX;

/// The number under which back end and engine know a processing unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PuSlot(pub u32);

/// Names one connection as its processing unit sees it.
///
/// The role needs no place in the key: for a unit that talks to itself, local and remote end are swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The processing unit at whose edge the packet was taken.
    pub pu: PuSlot,
    /// The unit's own address and port, as seen at its edge.
    pub local: (IpAddr, u16),
    /// The other end, as seen at the unit's edge.
    pub remote: (IpAddr, u16),
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

/// One admitted connection, as the back end's connection table holds it.
///
/// Packets of an entry with the unit's current `epoch` pass without the engine, with these exceptions:
/// - a SYN (with or without ACK) always goes to the engine;
/// - towards the unit, a segment at `proof_seq` whose payload is a kind-3 message with the MAC `proof_mac`
///   goes to the engine, which strips it;
/// - while `confirmed` is false, from the unit: an empty ACK goes to the engine (the proof is attached again);
///   data or FIN at `proof_seq` goes to the engine when `data_seen` is true and else passes and sets it;
///   towards the unit: the first non-SYN segment sets `confirmed` and passes.
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
