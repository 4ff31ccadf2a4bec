//! Handshakes that the programs began and hand over with a packet.

use std::fmt;

use trireme_bpf_abi as abi;
use trireme_bpf_abi::{entry_state, punt_flag};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// A handshake that the programs cannot go on with; they have forgotten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOpen {
    /// The unit is the initiator.
    Opening(OpeningState),
    /// The unit is the responder.
    Answering(AnsweringState),
}

/// One party's token and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartyState {
    /// Id of its token.
    pub token: [u8; 16],
    /// Its nonce.
    pub nonce: [u8; 16],
}

/// An initiator's handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OpeningState {
    /// Sequence number of the SYN.
    pub isn: u32,
    /// The unit's epoch then.
    pub epoch: u32,
    /// How many SYNs have left.
    pub syns: u8,
    /// Hop limit of the SYN.
    pub hop_limit: u8,
    /// Traffic class of the SYN.
    pub traffic_class: u8,
    /// Our token and nonce.
    pub own: PartyState,
    /// The responder's, once it was authenticated and authorized: the connection is in the table then.
    pub peer: Option<PartyState>,
    tcp: [u8; 60],
    tcp_len: usize,
}

/// A responder's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweringState {
    /// Sequence number of the initiator's SYN.
    pub isn: u32,
    /// The unit's epoch then.
    pub epoch: u32,
    /// Whether the initiator is known to hold our token.
    pub holds: bool,
    /// Sequence number of the unit's SYN-ACK, once it has left.
    pub syn_ack: Option<u32>,
    /// Our token and nonce.
    pub own: PartyState,
    /// The initiator's.
    pub peer: PartyState,
}

impl HalfOpen {
    /// Reads what a punt record carries.
    pub(crate) fn from_abi(flags: u8, half_open: &abi::HalfOpen) -> Option<Self> {
        if flags & punt_flag::HAS_OPENING != 0 {
            return OpeningState::from_abi(half_open).map(Self::Opening);
        }
        if flags & punt_flag::HAS_ANSWERING != 0 {
            return AnsweringState::from_abi(half_open).map(Self::Answering);
        }
        None
    }
}

impl OpeningState {
    /// The TCP header of the unit's SYN, options included, without identity.
    pub fn tcp(&self) -> &[u8] {
        self.tcp.get(..self.tcp_len).unwrap_or_default()
    }

    /// None for a handshake that was the engine's all along.
    fn from_abi(half_open: &abi::HalfOpen) -> Option<Self> {
        let opening = &half_open.half;
        let peer = match half_open.state {
            entry_state::SYN_SENT => None,
            entry_state::CONNECTION => {
                Some(PartyState { token: half_open.peer_token, nonce: opening.peer_nonce })
            }
            _ => return None,
        };
        Some(Self {
            isn: half_open.isn,
            epoch: half_open.epoch,
            syns: opening.syns,
            hop_limit: opening.hop_limit,
            traffic_class: opening.traffic_class,
            own: PartyState { token: opening.own_token, nonce: opening.own_nonce },
            peer,
            tcp: opening.tcp,
            tcp_len: usize::from(opening.tcp_len).min(opening.tcp.len()),
        })
    }
}

impl fmt::Debug for OpeningState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningState")
            .field("isn", &self.isn)
            .field("syns", &self.syns)
            .field("own", &self.own)
            .field("peer", &self.peer)
            .field("tcp", &self.tcp())
            .finish_non_exhaustive()
    }
}

impl AnsweringState {
    fn from_abi(half_open: &abi::HalfOpen) -> Option<Self> {
        let (answering, _) = abi::Answering::read_from_prefix(half_open.half.as_bytes()).ok()?;
        let left = half_open.state == entry_state::SYN_ACK_SENT;
        Some(Self {
            isn: half_open.isn,
            epoch: half_open.epoch,
            holds: answering.holds != 0,
            syn_ack: left.then_some(half_open.syn_ack),
            own: PartyState { token: answering.own_token, nonce: answering.own_nonce },
            peer: PartyState { token: half_open.peer_token, nonce: answering.peer_nonce },
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn opening(state: u8, opening: abi::Opening) -> Option<HalfOpen> {
        let entry =
            abi::HalfOpen { isn: 7, state, peer_token: [2; 16], half: opening, ..abi::HalfOpen::default() };
        HalfOpen::from_abi(punt_flag::HAS_OPENING, &entry)
    }

    #[test]
    fn opening_is_read_with_its_header_and_its_peer_only_when_proving() {
        let entry = abi::Opening { tcp: [9; 60], tcp_len: 24, own_token: [1; 16], ..abi::Opening::default() };

        let Some(HalfOpen::Opening(sent)) = opening(entry_state::SYN_SENT, entry) else { unreachable!() };
        assert_eq!((sent.isn, sent.tcp().len(), sent.own.token, sent.peer), (7, 24, [1; 16], None));

        let Some(HalfOpen::Opening(proving)) = opening(entry_state::CONNECTION, entry) else {
            unreachable!()
        };
        assert_eq!(proving.peer.unwrap().token, [2; 16]);
        assert_eq!(opening(entry_state::ELSEWHERE, entry), None);
        assert_eq!(HalfOpen::from_abi(0, &abi::HalfOpen::default()), None);
    }

    #[test]
    fn header_longer_than_any_is_cut() {
        let entry = abi::Opening { tcp_len: u8::MAX, ..abi::Opening::default() };

        let Some(HalfOpen::Opening(opening)) = opening(entry_state::SYN_SENT, entry) else { unreachable!() };
        assert_eq!(opening.tcp().len(), 60);
    }

    #[test]
    fn answering_is_read_from_the_same_place() {
        let answering = abi::Answering { holds: 1, peer_nonce: [4; 16], ..abi::Answering::default() };
        let mut record = abi::HalfOpen {
            isn: 3,
            state: entry_state::SYN_ACK_SENT,
            syn_ack: 8,
            ..abi::HalfOpen::default()
        };
        let bytes = record.half.as_mut_bytes();
        bytes.get_mut(..answering.as_bytes().len()).unwrap().copy_from_slice(answering.as_bytes());

        let Some(HalfOpen::Answering(state)) = HalfOpen::from_abi(punt_flag::HAS_ANSWERING, &record) else {
            unreachable!()
        };
        assert_eq!((state.isn, state.holds, state.syn_ack, state.peer.nonce), (3, true, Some(8), [4; 16]));
    }
}
