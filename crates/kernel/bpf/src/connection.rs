//! Entries of the connection table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trireme_bpf_abi as abi;
use trireme_bpf_abi::{SLOT_BITS, connection_flag};

use crate::Slot;
use crate::identity::{mapped, unmapped};

/// IP protocol of the connections.
const TCP: u32 = 6;

/// A connection as the PU sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The PU.
    pub slot: Slot,
    /// Its own end.
    pub local: (IpAddr, u16),
    /// The other end.
    pub remote: (IpAddr, u16),
}

/// Which end of the handshake the PU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It sent the SYN.
    Initiator,
    /// It answered the SYN.
    Responder,
}

/// What the connection was authorized on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The peer's identity.
    Identity,
    /// The peer's address: a peer without identity.
    Address,
    /// Nothing: it is older than the unit's enforcement, and is not judged again.
    Adopted,
}

/// What the connection table holds: packets of the connection pass as long as the epoch is the PU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Role of the PU.
    pub role: Role,
    /// What it was authorized on.
    pub class: Class,
    /// Policy epoch of the authorization.
    pub epoch: u32,
    /// Id of the peer's token.
    pub peer_token: [u8; 16],
    /// Slot of the peer's identity.
    pub peer_slot: u32,
    /// Generation of that slot.
    pub peer_generation: u32,
    /// Endpoint the responder attested.
    pub attested: Option<(IpAddr, u16)>,
    /// Sequence number at which the proof stands: the initiator's first one plus one.
    pub proof_seq: u32,
    /// MAC of the proof.
    pub proof_mac: [u8; 16],
    /// The responder's first segment behind the handshake arrived; always true for a responder.
    pub confirmed: bool,
    /// Sequence number of the unit's SYN-ACK where the programs answered as responder, else 0.
    pub syn_ack: u32,
    /// Data or FIN at `proof_seq` goes to user space while the entry is not confirmed; the programs set it when
    /// such a segment has passed.
    pub data_seen: bool,
}

/// What passed on a connection without user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Activity {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub last_seen_nanos: u64,
    /// Packets sent by the PU.
    pub packets_from: u64,
    /// Bytes sent by the PU.
    pub bytes_from: u64,
    /// Packets received by the PU.
    pub packets_to: u64,
    /// Bytes received by the PU.
    pub bytes_to: u64,
}

impl FlowKey {
    pub(crate) fn to_abi(self) -> abi::FlowKey {
        abi::FlowKey {
            unit: unit_of(self.slot),
            local_port: self.local.1.to_be_bytes(),
            remote_port: self.remote.1.to_be_bytes(),
            local: mapped(self.local.0),
            remote: mapped(self.remote.0),
        }
    }

    pub(crate) fn from_abi(key: &abi::FlowKey) -> Self {
        Self {
            slot: Slot(key.unit & ((1 << SLOT_BITS) - 1)),
            local: (unmapped(key.local), u16::from_be_bytes(key.local_port)),
            remote: (unmapped(key.remote), u16::from_be_bytes(key.remote_port)),
        }
    }
}

/// A unit's part of the keys of its connections.
pub(crate) const fn unit_of(slot: Slot) -> u32 {
    slot.0 | TCP << SLOT_BITS
}

impl Connection {
    /// An entry for a connection that is older than its PU's enforcement.
    pub(crate) fn adopted(epoch: u32) -> Self {
        Self {
            role: Role::Initiator,
            class: Class::Adopted,
            epoch,
            peer_token: [0; 16],
            peer_slot: u32::MAX,
            peer_generation: 0,
            attested: None,
            proof_seq: 0,
            proof_mac: [0; 16],
            confirmed: true,
            syn_ack: 0,
            data_seen: false,
        }
    }

    pub(crate) fn to_abi(self, now_nanos: u64) -> abi::Connection {
        let (attested_family, attested_port, attested_address) = match self.attested {
            None => (0, 0, [0; 16]),
            Some((IpAddr::V4(address), port)) => {
                let mut bytes = [0; 16];
                for (to, from) in bytes.iter_mut().zip(address.octets()) {
                    *to = from;
                }
                (4, port, bytes)
            }
            Some((IpAddr::V6(address), port)) => (6, port, address.octets()),
        };
        abi::Connection {
            epoch: self.epoch,
            flags: flags(self.confirmed, connection_flag::CONFIRMED)
                | flags(self.data_seen, connection_flag::DATA_SEEN),
            peer_slot: self.peer_slot,
            peer_generation: self.peer_generation,
            proof_seq: self.proof_seq,
            attested_port,
            attested_family,
            role: u8::from(self.role == Role::Responder),
            class: match self.class {
                Class::Identity => 0,
                Class::Address => 1,
                Class::Adopted => 2,
            },
            syn_ack: self.syn_ack,
            attested_address,
            proof_mac: self.proof_mac,
            peer_token: self.peer_token,
            last_seen: now_nanos,
            ..abi::Connection::default()
        }
    }

    pub(crate) fn from_abi(entry: &abi::Connection) -> Self {
        let [a, b, c, d, ..] = entry.attested_address;
        let address = match entry.attested_family {
            4 => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
            6 => Some(IpAddr::V6(Ipv6Addr::from(entry.attested_address))),
            _ => None,
        };
        Self {
            role: if entry.role == 1 { Role::Responder } else { Role::Initiator },
            class: match entry.class {
                1 => Class::Address,
                2 => Class::Adopted,
                _ => Class::Identity,
            },
            syn_ack: entry.syn_ack,
            epoch: entry.epoch,
            peer_token: entry.peer_token,
            peer_slot: entry.peer_slot,
            peer_generation: entry.peer_generation,
            attested: address.map(|address| (address, entry.attested_port)),
            proof_seq: entry.proof_seq,
            proof_mac: entry.proof_mac,
            confirmed: entry.flags & connection_flag::CONFIRMED != 0,
            data_seen: entry.flags & connection_flag::DATA_SEEN != 0,
        }
    }
}

impl Activity {
    pub(crate) fn from_abi(entry: &abi::Connection) -> Self {
        Self {
            last_seen_nanos: entry.last_seen,
            packets_from: entry.packets_from,
            bytes_from: entry.bytes_from,
            packets_to: entry.packets_to,
            bytes_to: entry.bytes_to,
        }
    }
}

const fn flags(set: bool, flag: u32) -> u32 {
    if set { flag } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_entry_survive_the_way_into_the_map_and_back() {
        for address in [IpAddr::from([10, 1, 2, 3]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7])] {
            let key = FlowKey { slot: Slot(9), local: (address, 1), remote: (address, 65535) };
            let entry = Connection {
                role: Role::Responder,
                class: Class::Address,
                epoch: 4,
                peer_token: [1; 16],
                peer_slot: 2,
                peer_generation: 3,
                attested: Some((address, 8080)),
                proof_seq: 0xffff_fff0,
                proof_mac: [5; 16],
                confirmed: true,
                syn_ack: 6,
                data_seen: true,
            };

            assert_eq!(FlowKey::from_abi(&key.to_abi()), key);
            assert_eq!(Connection::from_abi(&entry.to_abi(77)), entry);
            assert_eq!(Activity::from_abi(&entry.to_abi(77)).last_seen_nanos, 77);
        }
    }
}
