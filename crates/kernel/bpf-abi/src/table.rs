//! The programs' own table: entries in a ring, found by buckets of tags, and what user space may ask of it.

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Connection, FlowKey, WAYS};

/// Of an initiator's handshake.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Opening {
    /// Our token.
    pub own_token: [u8; 16],
    /// Name of the agreement key in it.
    pub own_key: [u8; 16],
    /// Our nonce.
    pub own_nonce: [u8; 16],
    /// The responder's nonce, when proving.
    pub peer_nonce: [u8; 16],
    /// The SYN's TCP header.
    pub tcp: [u8; 60],
    /// Length of that.
    pub tcp_len: u8,
    /// How many SYNs have left.
    pub syns: u8,
    /// Hop limit of the SYN.
    pub hop_limit: u8,
    /// Traffic class of the SYN.
    pub traffic_class: u8,
}

/// Of a responder's handshake.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Answering {
    /// Our token.
    pub own_token: [u8; 16],
    /// Our nonce.
    pub own_nonce: [u8; 16],
    /// The initiator's nonce.
    pub peer_nonce: [u8; 16],
    /// The initiator's MAC key.
    pub initiator: [u8; 16],
    /// The responder's MAC key.
    pub responder: [u8; 16],
    /// Number of the rule that accepted.
    pub rule: u16,
    /// 1 if the initiator holds our token.
    pub holds: u8,
    /// Undefined.
    pub pad: [u8; 5],
}

/// A handshake as it is handed over, in [`Punt`](crate::Punt).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HalfOpen {
    /// Sequence number of the SYN.
    pub isn: u32,
    /// The unit's epoch.
    pub epoch: u32,
    /// Sequence number of the responder's SYN-ACK, once it has left.
    pub syn_ack: u32,
    /// See [`entry_state`].
    pub state: u8,
    /// Undefined.
    pub pad: [u8; 3],
    /// The peer's token, as far as it is known.
    pub peer_token: [u8; 16],
    /// An [`Opening`], or an [`Answering`] in the first bytes.
    pub half: Opening,
}

/// A connection from its SYN to its end: value of `entries`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Entry {
    /// The connection.
    pub key: FlowKey,
    /// Hash, and in the lower 24 bits an [`entry_state`].
    pub word: u64,
    /// What is known of it; of a handshake, epoch and peer.
    pub connection: Connection,
    /// When a handshake is outlived, in seconds of the boot clock.
    pub until: u32,
    /// Sequence number of the SYN.
    pub isn: u32,
    /// Where its tag stands.
    pub bucket: u32,
    /// 1 if the SYN carried the whole token; of an initiator's connection the epoch of its SYN. With the engine: which
    /// agent has it, by [`Clock::agent`](crate::Clock::agent).
    pub attached: u32,
    /// An [`Opening`], or an [`Answering`] in the first bytes.
    pub half: Opening,
}

/// Value of `buckets`: tags that lead to entries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Bucket {
    /// Hash, whether it is closing, place of the entry; 0 for none.
    pub tag: [u64; WAYS],
    /// Which of them goes next.
    pub turn: u32,
    /// 1 if connections of this bucket may lie in the map `connections`.
    pub settled: u32,
}

/// What the program `take_order` is asked for: the frame of a test run, behind an Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Order {
    /// See [`order_kind`].
    pub kind: u32,
    /// Key of the unit's state in `pus`.
    pub edge: u32,
    /// The first entry to look at.
    pub from: u32,
    /// How many.
    pub count: u32,
    /// Those without a packet since then, in nanoseconds of `CLOCK_MONOTONIC`.
    pub before: u64,
    /// The connection, or the unit.
    pub key: FlowKey,
    /// The answer to [`order_kind::READ`].
    pub held: Connection,
}

impl Default for Opening {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("holds", &self.holds).finish_non_exhaustive()
    }
}

/// Values of [`HalfOpen::state`], and of the lower bits of [`Entry::word`].
pub mod entry_state {
    /// The SYN has left with identity.
    pub const SYN_SENT: u8 = 2;
    /// The engine has this handshake of the unit's.
    pub const ELSEWHERE: u8 = 3;
    /// The peer's SYN went to the unit.
    pub const SYN_RECEIVED: u8 = 4;
    /// The SYN-ACK left.
    pub const SYN_ACK_SENT: u8 = 5;
    /// Authenticated and authorized; an initiator that is not confirmed proves itself.
    pub const CONNECTION: u8 = 6;
    /// It ended, and may be overwritten.
    pub const CLOSING: u8 = 7;
}

/// Values of [`Order::kind`].
pub mod order_kind {
    /// What is held of one connection is written to [`Order::held`](super::Order::held).
    pub const READ: u32 = 0;
    /// It is forgotten: the map `connections` says what it is from now on.
    pub const YIELD: u32 = 1;
    /// Connections without a packet since [`Order::before`](super::Order::before) go to that map.
    pub const IDLE: u32 = 2;
    /// What is held of a unit is forgotten.
    pub const UNIT: u32 = 3;
    /// Connections of any bucket may lie in that map.
    pub const SETTLED: u32 = 4;
}

const _: () = {
    assert!(size_of::<Opening>() == 128);
    assert!(offset_of!(Opening, tcp) == 64);
    assert!(size_of::<Answering>() == 88);
    assert!(size_of::<HalfOpen>() == 160);
    assert!(offset_of!(HalfOpen, half) == 32);
    assert!(size_of::<Entry>() == 320);
    assert!(offset_of!(Entry, word) == 40);
    assert!(offset_of!(Entry, connection) == 48);
    assert!(offset_of!(Entry, half) == 192);
    assert!(size_of::<Bucket>() == 64);
    assert!(size_of::<Order>() == 192);
    assert!(offset_of!(Order, held) == 64);
};
