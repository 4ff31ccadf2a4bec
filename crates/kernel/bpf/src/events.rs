//! Flow events that the programs added up.

use std::net::IpAddr;

use trireme_bpf_abi as abi;

use crate::identity::{direction_of, unmapped};
use crate::{Direction, Slot};

/// Place of a peer that has no identity.
const NO_PEER: u32 = u32::MAX;

/// Where the engine finds the peer of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventPeer {
    /// In the table of peers: place and generation.
    Known(u32, u32),
    /// In the table of refused initiators: place and generation.
    Refused(u32, u32),
    /// It has no identity.
    None,
}

/// Equal events of handshakes and connections that the programs decided, added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventReport {
    /// The unit.
    pub slot: Slot,
    /// The peer.
    pub peer: EventPeer,
    /// Which end the unit is.
    pub direction: Direction,
    /// The responder's own port.
    pub port: u16,
    /// 0 accepted, else the code of the reason.
    pub reason: u16,
    /// Number of the rule, 0 for none.
    pub rule: u16,
    /// The unit's address.
    pub local: IpAddr,
    /// The other address.
    pub remote: IpAddr,
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
    /// First event, in nanoseconds of the wall clock.
    pub first_wall_nanos: u64,
    /// Last event, in nanoseconds of the wall clock.
    pub last_wall_nanos: u64,
}

impl EventReport {
    /// `wall_offset` is the wall clock less the boot clock, wrapping.
    pub(crate) fn from_abi(key: &abi::EventKey, event: &abi::Event, wall_offset: u64) -> Self {
        let place = (key.peer_slot, key.peer_generation);
        let peer = match (key.refused, place) {
            (_, (NO_PEER, _)) => EventPeer::None,
            (0, (slot, generation)) => EventPeer::Known(slot, generation),
            (_, (slot, generation)) => EventPeer::Refused(slot, generation),
        };
        Self {
            slot: Slot(key.slot),
            peer,
            direction: direction_of(key.direction),
            port: u16::from_be_bytes(key.port),
            reason: key.reason,
            rule: key.rule,
            local: unmapped(key.local),
            remote: unmapped(key.remote),
            starts: event.starts,
            refused: event.refused,
            ends: event.ends,
            packets_from: event.packets_from,
            bytes_from: event.bytes_from,
            packets_to: event.packets_to,
            bytes_to: event.bytes_to,
            first_wall_nanos: event.first.wrapping_add(wall_offset),
            last_wall_nanos: event.last.wrapping_add(wall_offset),
        }
    }
}
