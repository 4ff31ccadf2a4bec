//! Packets that the maps could not decide.

use trireme_bpf_abi as abi;
use trireme_bpf_abi::{PuntReason, punt_flag};
use zerocopy::FromBytes as _;

use crate::{Activity, Connection, HalfOpen, Hook, Slot};

/// A packet taken at a PU's edge; it goes on only if user space puts it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt<'a> {
    /// The PU.
    pub slot: Slot,
    /// Where it was taken.
    pub hook: Hook,
    /// Why.
    pub reason: PuntReason,
    /// The packet from its IP header on, without the padding of the frame.
    pub bytes: &'a [u8],
    /// Segment size, if the packet is larger than the wire carries; its checksum is partial.
    pub gso_size: Option<u16>,
    /// What the connection table held.
    pub connection: Option<(Connection, Activity)>,
    /// True if the entry came from the closing table.
    pub closing: bool,
    /// A handshake of the programs that they hand over: they have forgotten it.
    pub half_open: Option<HalfOpen>,
    /// Names the frame's addresses; give it back with the packet.
    pub token: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_nanos: u64,
}

/// A record of a ring, before its frame has a token.
pub(crate) struct Record<'a> {
    pub(crate) punt: Punt<'a>,
    pub(crate) ethernet: [u8; 14],
}

/// Reads one record; None for one that cannot be ours.
pub(crate) fn parse(record: &[u8]) -> Option<Record<'_>> {
    let (head, rest) = abi::Punt::ref_from_prefix(record).ok()?;
    let bytes = rest.get(..usize::try_from(head.len).ok()?)?;
    let connection = (head.flags & punt_flag::HAS_CONNECTION != 0)
        .then(|| (Connection::from_abi(&head.connection), Activity::from_abi(&head.connection)));
    let punt = Punt {
        slot: Slot(head.slot),
        hook: if head.hook == 0 { Hook::FromPu } else { Hook::ToPu },
        reason: PuntReason::from_number(head.reason)?,
        bytes: without_padding(bytes),
        gso_size: (head.gso_size != 0).then_some(head.gso_size),
        connection,
        closing: head.flags & punt_flag::CLOSING != 0,
        half_open: HalfOpen::from_abi(head.flags, &head.half_open),
        token: 0,
        time_nanos: head.time,
    };
    Some(Record { punt, ethernet: head.ethernet })
}

/// Cuts what an Ethernet frame of minimal length carries behind the packet.
fn without_padding(bytes: &[u8]) -> &[u8] {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let length = match bytes.first().map(|first| first >> 4) {
        Some(4) => word(2),
        Some(6) => word(4).filter(|payload| *payload > 0).map(|payload| payload + 40),
        _ => None,
    };
    length.filter(|length| *length >= 20).and_then(|length| bytes.get(..length)).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn padding_behind_a_short_packet_is_cut() {
        let mut packet = vec![0x45, 0, 0, 24];
        packet.resize(46, 0);
        let head = abi::Punt { slot: 3, len: 46, hook: 1, reason: 1, ..abi::Punt::default() };
        let record: Vec<u8> = head.as_bytes().iter().copied().chain(packet).collect();

        let parsed = parse(&record).unwrap();

        assert_eq!(parsed.punt.bytes.len(), 24);
        assert_eq!((parsed.punt.slot, parsed.punt.hook), (Slot(3), Hook::ToPu));
        assert_eq!(parsed.punt.connection, None);
    }

    #[test]
    fn record_shorter_than_it_says_is_no_record() {
        let head = abi::Punt { len: 46, reason: 1, ..abi::Punt::default() };

        assert!(parse(head.as_bytes()).is_none());
        assert!(parse(head.as_bytes().get(..100).unwrap()).is_none());
    }
}
