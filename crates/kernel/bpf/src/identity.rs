//! What the programs are told about identities, so that they decide handshakes by themselves.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use trireme_bpf_abi as abi;

use crate::{PlaneError, Role, Slot};

/// Which of the two ends a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The unit is called.
    Ingress,
    /// The unit calls.
    Egress,
}

/// A peer that has shown a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerState {
    /// Its place in the engine's peer table.
    pub slot: u32,
    /// The generation of that place.
    pub generation: u32,
    /// Its token is not accepted behind this time; nanoseconds of the wall clock.
    pub until_wall_nanos: u64,
    /// Name of its agreement key.
    pub key: [u8; 16],
    /// Name of the agreement key of ours that its node used last.
    pub own_key: [u8; 16],
}

/// The two MAC keys of a pair of agreement keys and a role.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairKeys {
    /// The initiator's MAC key.
    pub initiator: [u8; 16],
    /// The responder's MAC key.
    pub responder: [u8; 16],
}

impl fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairKeys(redacted)")
    }
}

/// What a unit's policy says about a peer, whatever its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerdictState {
    /// The unit.
    pub slot: Slot,
    /// The peer's place.
    pub peer_slot: u32,
    /// The generation of that place.
    pub generation: u32,
    /// Which end the unit is.
    pub direction: Direction,
    /// The responder's own port.
    pub port: u16,
    /// The unit's epoch when it was judged.
    pub epoch: u32,
    /// Number of the rule, 0 for none.
    pub rule: u16,
    /// 0 accepted, else the code of the reason.
    pub reason: u16,
}

/// An initiator that a unit's policy refuses. It can only refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefusalState {
    /// The unit.
    pub slot: Slot,
    /// Its own port.
    pub port: u16,
    /// Id of the initiator's token.
    pub token: [u8; 16],
    /// The unit's epoch when it was judged.
    pub epoch: u32,
    /// Number of the rule, 0 for none.
    pub rule: u16,
    /// Code of the reason.
    pub reason: u16,
    /// The token is not valid behind this time; nanoseconds of the wall clock.
    pub until_wall_nanos: u64,
    /// The initiator's place in the engine's table of refused peers.
    pub peer_slot: u32,
    /// The generation of that place.
    pub peer_generation: u32,
}

impl PeerState {
    /// `tried_key` is the programs' own.
    pub(crate) fn to_abi(self, tried_key: [u8; 16]) -> abi::Peer {
        abi::Peer {
            slot: self.slot,
            generation: self.generation,
            until: self.until_wall_nanos,
            key: self.key,
            own_key: self.own_key,
            tried_key,
        }
    }

    pub(crate) fn from_abi(peer: &abi::Peer) -> Self {
        Self {
            slot: peer.slot,
            generation: peer.generation,
            until_wall_nanos: peer.until,
            key: peer.key,
            own_key: peer.own_key,
        }
    }
}

impl VerdictState {
    pub(crate) fn to_abi(self) -> (abi::VerdictKey, abi::Verdict) {
        let key = abi::VerdictKey {
            slot: self.slot.0,
            peer_slot: self.peer_slot,
            port: self.port.to_be_bytes(),
            direction: direction_number(self.direction),
            protocol: TCP,
        };
        let Self { epoch, generation, rule, reason, .. } = self;
        (key, abi::Verdict { epoch, generation, rule, reason })
    }
}

impl RefusalState {
    pub(crate) fn to_abi(self) -> (abi::RefusalKey, abi::Refusal) {
        let port = self.port.to_be_bytes();
        let key = abi::RefusalKey { slot: self.slot.0, port, pad: 0, token: self.token };
        let refusal = abi::Refusal {
            epoch: self.epoch,
            rule: self.rule,
            reason: self.reason,
            until: self.until_wall_nanos,
            peer_slot: self.peer_slot,
            peer_generation: self.peer_generation,
        };
        (key, refusal)
    }
}

/// Protocol number of TCP.
const TCP: u8 = 6;

/// Token and credential as the programs attach them.
pub(crate) fn attachment(token: &[u8], credential: &[u8]) -> Result<abi::OwnToken, PlaneError> {
    let length = token.len() + credential.len();
    let too_long = || PlaneError::TooLong { length, most: abi::ATTACHED_MAX };
    if length > abi::ATTACHED_MAX {
        return Err(too_long());
    }
    let mut attached = abi::OwnToken {
        len: u16::try_from(length).map_err(|_| too_long())?,
        token_len: u16::try_from(token.len()).map_err(|_| too_long())?,
        ..abi::OwnToken::default()
    };
    for (to, from) in attached.bytes.iter_mut().zip(token.iter().chain(credential)) {
        *to = *from;
    }
    attached.checksum = memory_sum(&attached.bytes);
    Ok(attached)
}

/// Key of `destinations`.
pub(crate) fn destination_key(slot: Slot, (address, port): (IpAddr, u16)) -> abi::DestinationKey {
    abi::DestinationKey { slot: slot.0, port: port.to_be_bytes(), pad: 0, address: mapped(address) }
}

/// An address as the maps write it.
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// An address of the maps.
pub(crate) fn unmapped(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}

pub(crate) fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    }
}

pub(crate) fn direction_of(number: u8) -> Direction {
    if number == 0 { Direction::Ingress } else { Direction::Egress }
}

pub(crate) fn role_number(role: Role) -> u32 {
    match role {
        Role::Initiator => 0,
        Role::Responder => 1,
    }
}

/// Sum of 16-bit words in memory order; 1,080 bytes cannot overflow it.
fn memory_sum(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<2>().0.iter().fold(0, |sum, word| sum + u32::from(u16::from_ne_bytes(*word)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn attachment_is_token_then_credential_with_the_sum_of_both() {
        let attached = attachment(&[1, 2, 3], &[4, 5]).unwrap();

        assert_eq!((attached.len, attached.token_len), (5, 3));
        assert_eq!(attached.bytes.get(..6).unwrap(), [1, 2, 3, 4, 5, 0]);
        let words = [[1, 2], [3, 4], [5, 0]].map(|word| u32::from(u16::from_ne_bytes(word)));
        assert_eq!(attached.checksum, words.iter().sum::<u32>());
    }

    #[test]
    fn attachment_fits_to_the_byte_and_one_more_is_refused() {
        let full = attachment(&[255; 1000], &[255; 80]).unwrap();
        assert_eq!((full.len, full.checksum), (1080, 540 * 65535));

        let error = attachment(&[0; 1000], &[0; 81]).unwrap_err();
        assert!(matches!(error, PlaneError::TooLong { length: 1081, most: 1080 }), "{error}");
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = PairKeys { initiator: [0xab; 16], responder: [0xcd; 16] };

        assert_eq!(format!("{keys:?}"), "PairKeys(redacted)");
    }
}
