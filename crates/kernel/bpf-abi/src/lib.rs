//! The layouts that the BPF programs and user space share: map keys and values, the punt record, the frame
//! trailer of the injector, and the numbers they carry.
//!
//! Start from [`Connection`] (what the connection table holds) and [`Punt`] (the head of a record in a ring).
//! The C side is `crates/kernel/bpf-prog/src/abi.h`; both sides assert sizes and offsets when they are compiled.
//!
//! This crate must not talk to the kernel, and no type here may have padding that is not a field.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

mod fast;
mod numbers;
mod table;

pub use fast::{
    Clock, Destination, DestinationKey, Event, EventKey, Own, OwnToken, Pair, PairKey, Peer, Quota, Refusal,
    RefusalKey, Source, Verdict, VerdictKey,
};
pub use numbers::{Counter, PuntReason, connection_flag, pu_flag, punt_flag};
pub use table::{Answering, Bucket, Entry, HalfOpen, Opening, Order, entry_state, order_kind};

/// Version of every layout and map definition; pins of another version are never touched.
pub const ABI_VERSION: u32 = 3;

/// Slot under which counters that belong to no PU are kept.
pub const SLOT_NONE: u32 = u32::MAX;

/// Number of one-time marks that can be on their way from the injector to an edge.
pub const TICKETS: u32 = 4096;

/// Number of counters in [`Counters`]; some are reserved.
pub const COUNTERS: usize = 32;

/// Size of the map `near`: interfaces are found in it by the low bits of their index.
pub const NEAR: u32 = 4096;

/// Tags in one bucket of the programs' table.
pub const WAYS: usize = 7;

/// Bits of [`FlowKey::unit`] that are the slot; the IP protocol stands above them.
pub const SLOT_BITS: u32 = 24;

/// Buckets in the map `sources`.
pub const SOURCES: u32 = 4096;

/// Most bytes of token and credential together in [`OwnToken`].
pub const ATTACHED_MAX: usize = 1080;

/// Age of [`Clock::alive_at`] from which on the agent counts as away.
pub const ALIVE_NANOS: u64 = 3_000_000_000;

/// Length of one window of [`Quota`] in nanoseconds.
pub const QUOTA_WINDOW_NANOS: u64 = 1 << 35;

/// Length of one rate window in nanoseconds; [`Limit::max`] counts punts in it.
pub const LIMIT_WINDOW_NANOS: u64 = 1 << 27;

/// State of a PU: value of the map `pus`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Pu {
    /// Slot of the PU.
    pub slot: u32,
    /// Policy epoch; entries of another epoch go to user space.
    pub epoch: u32,
    /// 0 enforce, 1 off (everything passes).
    pub mode: u8,
    /// Protocols that are neither TCP nor neighbour discovery: 0 deny, 1 allow.
    pub other: u8,
    /// When the agent is away: 0 closed, 1 last known, 2 open.
    pub fail: u8,
    /// See [`pu_flag`].
    pub flags: u8,
    /// Interface index of the edge in its own namespace.
    pub ifindex: u32,
    /// How long behind the agent's last sign of life tokens that were valid then count as valid (last known).
    pub fail_nanos: u64,
    /// Differs from that of whoever had the slot before.
    pub incarnation: u64,
    /// The unit's tokens, newest first.
    pub own: [Own; 2],
    /// Zero: a whole number of cache lines.
    pub pad: [u64; 2],
}

/// Key of the map `connections` and of the entries of the programs' table.
///
/// IPv4 addresses are IPv4-mapped; ports are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FlowKey {
    /// Slot of the PU in the lower [`SLOT_BITS`], IP protocol above.
    pub unit: u32,
    /// Port of the PU's own end.
    pub local_port: [u8; 2],
    /// Port of the other end.
    pub remote_port: [u8; 2],
    /// Address of the PU's own end.
    pub local: [u8; 16],
    /// Address of the other end.
    pub remote: [u8; 16],
}

/// An established connection: value of the map `connections`, and part of the entries of the programs' table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Connection {
    /// Policy epoch under which it was authorized.
    pub epoch: u32,
    /// See [`connection_flag`].
    pub flags: u32,
    /// Nanoseconds of `CLOCK_MONOTONIC`, at the resolution of a timer tick.
    pub last_seen: u64,
    /// Packets sent by the PU.
    pub packets_from: u64,
    /// Bytes sent by the PU, from the IP header on.
    pub bytes_from: u64,
    /// Packets received by the PU.
    pub packets_to: u64,
    /// Bytes received by the PU, from the IP header on.
    pub bytes_to: u64,
    /// Sequence number at which the proof stood.
    pub proof_seq: u32,
    /// Sequence number behind the FIN that went to the PU; kept by the programs.
    pub fin_to: u32,
    /// Slot of the peer's identity.
    pub peer_slot: u32,
    /// Generation of that slot.
    pub peer_generation: u32,
    /// Sequence number of the unit's SYN-ACK, for responders; 0 where the engine has the handshake.
    pub syn_ack: u32,
    /// Port that the responder attested.
    pub attested_port: u16,
    /// Family of the attested address: 4, 6, or 0 if there is none.
    pub attested_family: u8,
    /// 0 initiator, 1 responder.
    pub role: u8,
    /// 0 identity, 1 address (a peer without identity), 2 adopted (older than the unit's enforcement).
    pub class: u8,
    /// Zero.
    pub pad: [u8; 7],
    /// Attested address; IPv4 in the first four bytes.
    pub attested_address: [u8; 16],
    /// MAC of the proof.
    pub proof_mac: [u8; 16],
    /// Id of the peer's token.
    pub peer_token: [u8; 16],
}

/// Head of a record in a punt ring; [`Punt::len`] bytes of packet follow, from the IP header on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Punt {
    /// Slot of the PU.
    pub slot: u32,
    /// Interface index of the edge.
    pub ifindex: u32,
    /// Bytes of packet behind this head, padding of the frame included.
    pub len: u32,
    /// Segment size of an offloaded packet, else 0.
    pub gso_size: u16,
    /// Number of segments in an offloaded packet, else 0.
    pub gso_segs: u16,
    /// 0 from the PU, 1 to the PU.
    pub hook: u8,
    /// See [`PuntReason`].
    pub reason: u8,
    /// See [`punt_flag`].
    pub flags: u8,
    /// Undefined.
    pub pad: u8,
    /// The Ethernet header as it arrived.
    pub ethernet: [u8; 14],
    /// Undefined.
    pub pad2: [u8; 6],
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// What the connection table held, if [`punt_flag::HAS_CONNECTION`]; else undefined.
    pub connection: Connection,
    /// The handshake, if [`punt_flag::HAS_OPENING`] or [`punt_flag::HAS_ANSWERING`]; else undefined.
    pub half_open: HalfOpen,
}

/// Rate limit of one PU and kind of punt: value of the map `limits`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Limit {
    /// Number of the current window.
    pub window: u64,
    /// Punts in the current window.
    pub count: u64,
    /// Most punts in a window.
    pub max: u64,
}

/// Counters of one PU on one CPU: value of the map `counters`, indexed by [`Counter`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Counters {
    /// One number per [`Counter`].
    pub value: [u64; COUNTERS],
}

/// Trailer of a frame on the injector.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Ticket {
    /// Secret of the injector.
    pub secret: [u8; 16],
    /// Interface on whose ingress the frame goes.
    pub ifindex: u32,
    /// One-time mark; its low bits are the ticket's place.
    pub mark: u32,
}

impl core::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ticket").field("ifindex", &self.ifindex).finish_non_exhaustive()
    }
}

/// Where a PU is attached: value of the map `edges`, used by user space alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EdgeRecord {
    /// Interface index in its namespace.
    pub ifindex: u32,
    /// Bits of [`edge_flag`].
    pub flags: u32,
    /// Device number of the namespace's inode.
    pub netns_device: u64,
    /// Inode number of the namespace.
    pub netns_inode: u64,
    /// Name of the interface, padded with zeros.
    pub name: [u8; 16],
    /// Path of the namespace, padded with zeros; empty for an edge in the agent's own namespace.
    pub path: [u8; 216],
}

/// Bits of [`EdgeRecord::flags`].
pub mod edge_flag {
    /// The edge lies inside the PU's namespace.
    pub const NAMESPACE: u32 = 1;
    /// Attached as cls_bpf filters, not tcx links.
    pub const CLSACT: u32 = 1 << 1;
    /// The clsact qdisc did not exist before.
    pub const QDISC_CREATED: u32 = 1 << 2;
}

const _: () = {
    assert!(size_of::<Pu>() == 128);
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Connection>() == 128);
    assert!(offset_of!(Connection, proof_seq) == 48);
    assert!(offset_of!(Connection, attested_port) == 68);
    assert!(offset_of!(Connection, attested_address) == 80);
    assert!(size_of::<Punt>() == 336);
    assert!(offset_of!(Punt, ethernet) == 20);
    assert!(offset_of!(Punt, time) == 40);
    assert!(offset_of!(Punt, connection) == 48);
    assert!(offset_of!(Punt, half_open) == 176);
    assert!(size_of::<Limit>() == 24);
    assert!(size_of::<Counters>() == 256);
    assert!(size_of::<Ticket>() == 24);
    assert!(size_of::<EdgeRecord>() == 256);
};
