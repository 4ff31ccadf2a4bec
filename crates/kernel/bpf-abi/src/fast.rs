//! What the programs know about identities and handshakes.
//!
//! Names of agreement keys are the first 16 bytes of their public halves. Times named `until` are nanoseconds of the
//! wall clock, which the programs compute from the boot clock and [`Clock::wall_offset`].

use core::fmt;
use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ATTACHED_MAX;

/// A token of a unit's own, in [`Pu`](crate::Pu).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Own {
    /// Its id; all zero for none.
    pub token: [u8; 16],
    /// Name of the agreement key in it.
    pub key: [u8; 16],
    /// It is not used behind this time.
    pub until: u64,
}

/// What is attached where a peer may not hold the token: value of `own_tokens`, by token id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct OwnToken {
    /// Length of token and credential.
    pub len: u16,
    /// Length of the token.
    pub token_len: u16,
    /// Sum of the bytes in 16-bit words of memory order, folded to 32 bits, as `bpf_csum_diff` makes it.
    pub checksum: u32,
    /// Token, then credential, then zeros.
    pub bytes: [u8; ATTACHED_MAX],
}

/// A peer that has shown a MAC: value of `peers`, by token id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Peer {
    /// Its place in the engine's peer table.
    pub slot: u32,
    /// The generation of that place.
    pub generation: u32,
    /// Its token is not accepted behind this time.
    pub until: u64,
    /// Name of its agreement key.
    pub key: [u8; 16],
    /// Name of the agreement key of ours that its node used last.
    pub own_key: [u8; 16],
    /// Name of the newest key of ours for which a renewal was begun; written by the programs.
    pub tried_key: [u8; 16],
}

/// Key of `pair_keys`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PairKey {
    /// Name of our agreement key.
    pub own: [u8; 16],
    /// Name of the peer's.
    pub peer: [u8; 16],
    /// The unit's role: 0 initiator, 1 responder.
    pub role: u32,
    /// Zero.
    pub pad: u32,
}

/// The two MAC keys of a pair of agreement keys and a role: value of `pair_keys`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Pair {
    /// The initiator's MAC key.
    pub initiator: [u8; 16],
    /// The responder's MAC key.
    pub responder: [u8; 16],
}

/// Key of `verdicts`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VerdictKey {
    /// The PU.
    pub slot: u32,
    /// The peer's place.
    pub peer_slot: u32,
    /// The responder's own port, in network byte order.
    pub port: [u8; 2],
    /// 0 ingress, 1 egress.
    pub direction: u8,
    /// IP protocol.
    pub protocol: u8,
}

/// What the policy says about a peer: value of `verdicts`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Verdict {
    /// The unit's epoch when it was judged.
    pub epoch: u32,
    /// The generation of the peer's place.
    pub generation: u32,
    /// Number of the rule, 0 for none.
    pub rule: u16,
    /// 0 accepted, else the code of the reason.
    pub reason: u16,
}

/// Key of `destinations`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DestinationKey {
    /// The PU.
    pub slot: u32,
    /// Port called, in network byte order.
    pub port: [u8; 2],
    /// Zero.
    pub pad: u16,
    /// Address called; IPv4 is mapped.
    pub address: [u8; 16],
}

/// Where a unit shows its identity: value of `destinations`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Destination {
    /// The unit's epoch when it was found out.
    pub epoch: u32,
    /// Zero.
    pub pad: u32,
    /// Token id of the one peer behind it; all zero where there is none: the token is attached and no MAC made.
    pub peer: [u8; 16],
    /// Id of the token of ours which that peer holds.
    pub own_token: [u8; 16],
}

/// Key of `refusals`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct RefusalKey {
    /// The PU.
    pub slot: u32,
    /// Its own port, in network byte order.
    pub port: [u8; 2],
    /// Zero.
    pub pad: u16,
    /// Token id of the refused initiator.
    pub token: [u8; 16],
}

/// An initiator that the policy refuses: value of `refusals`. It can only refuse.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Refusal {
    /// The unit's epoch when it was judged.
    pub epoch: u32,
    /// Number of the rule, 0 for none.
    pub rule: u16,
    /// Code of the reason.
    pub reason: u16,
    /// Its token is not valid behind this time.
    pub until: u64,
    /// The initiator's place in the engine's table of refused peers.
    pub peer_slot: u32,
    /// The generation of that place.
    pub peer_generation: u32,
}

/// Unfinished handshakes of one unit and role: value of `quotas`, by slot * 2 + role.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Quota {
    /// Number of the current window.
    pub window: u64,
    /// Begun less finished in this window.
    pub now: i64,
    /// The same of the window before.
    pub before: i64,
    /// Most in both.
    pub max: u64,
}

/// Punts for unknown senders: value of `sources`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Source {
    /// Number of the current window.
    pub window: u64,
    /// Punts in it.
    pub count: u64,
}

/// Key of `events_0` and `events_1`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EventKey {
    /// The PU.
    pub slot: u32,
    /// The peer's place, or the refused peer's.
    pub peer_slot: u32,
    /// The generation of that place.
    pub peer_generation: u32,
    /// The responder's own port, in network byte order.
    pub port: [u8; 2],
    /// 0 accepted, else the code of the reason.
    pub reason: u16,
    /// Number of the rule, 0 for none.
    pub rule: u16,
    /// 0 ingress, 1 egress.
    pub direction: u8,
    /// 1 if the place is one of a [`Refusal`].
    pub refused: u8,
    /// The unit's address; IPv4 is mapped.
    pub local: [u8; 16],
    /// The other address.
    pub remote: [u8; 16],
}

/// Equal flow events added up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Event {
    /// Connections that began.
    pub starts: u64,
    /// Handshakes and packets refused.
    pub refused: u64,
    /// Connections that ended; the numbers below are theirs.
    pub ends: u64,
    /// Packets that the unit sent.
    pub packets_from: u64,
    /// Bytes that the unit sent.
    pub bytes_from: u64,
    /// Packets that went to the unit.
    pub packets_to: u64,
    /// Bytes that went to the unit.
    pub bytes_to: u64,
    /// First event, in nanoseconds of the boot clock.
    pub first: u64,
    /// Last event.
    pub last: u64,
}

/// What the programs know about user space and time: the one value of `clock`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Clock {
    /// Last sign of life, in nanoseconds of the boot clock.
    pub alive_at: u64,
    /// Wall clock less boot clock, in nanoseconds, wrapping.
    pub wall_offset: u64,
    /// Which of the two maps of events is written to.
    pub events: u32,
    /// How many agents there have been; what was handed to an earlier one is an orphan.
    pub agent: u32,
}

impl Default for OwnToken {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(redacted)")
    }
}

const _: () = {
    assert!(size_of::<Own>() == 40);
    assert!(size_of::<OwnToken>() == 1088);
    assert!(size_of::<Peer>() == 64);
    assert!(size_of::<PairKey>() == 40);
    assert!(size_of::<Pair>() == 32);
    assert!(size_of::<VerdictKey>() == 12);
    assert!(size_of::<Verdict>() == 12);
    assert!(size_of::<DestinationKey>() == 24);
    assert!(size_of::<Destination>() == 40);
    assert!(size_of::<RefusalKey>() == 24);
    assert!(size_of::<Refusal>() == 24);
    assert!(size_of::<Quota>() == 32);
    assert!(size_of::<Source>() == 16);
    assert!(size_of::<EventKey>() == 52);
    assert!(size_of::<Event>() == 72);
    assert!(size_of::<Clock>() == 24);
    assert!(offset_of!(EventKey, local) == 20);
};
