//! A packet that waits in a queue.

use crate::codec::{PACKET, attributes, messages, netfilter};

const PACKET_HEADER: u16 = 1;
const MARK: u16 = 3;
const IN_DEVICE: u16 = 5;
const OUT_DEVICE: u16 = 6;
const PAYLOAD: u16 = 10;
const WHOLE_LENGTH: u16 = 13;
const BUFFER_INFO: u16 = 14;

/// NFQA_SKB_CSUMNOTREADY, NFQA_SKB_GSO, NFQA_SKB_CSUM_NOTVERIFIED.
const CHECKSUM_NOT_READY: u32 = 1;
const SEGMENTS_LATER: u32 = 2;
const CHECKSUM_NOT_VERIFIED: u32 = 4;

/// Where in netfilter a packet was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Before routing, on its way in.
    PreRouting,
    /// For this namespace's own sockets.
    LocalIn,
    /// On its way through.
    Forward,
    /// From this namespace's own sockets.
    LocalOut,
    /// Behind routing, on its way out.
    PostRouting,
}

/// What is known about a packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// The kernel vouches for it, or it is to be trusted like any.
    Verified,
    /// Nobody has looked at it yet.
    NotVerified,
    /// It covers the pseudo-header only: the device will fill in the rest.
    Partial,
}

/// One packet, as long as the kernel holds it: until its verdict, at the latest until the queue is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its name in this queue.
    pub id: u32,
    /// The number of the queue.
    pub queue: u16,
    /// Where it was caught.
    pub hook: Hook,
    /// From the IP header on.
    pub bytes: &'a [u8],
    /// How long it is where it was too long to be copied whole; its verdict must not replace it then.
    pub truncated_from: Option<u32>,
    /// Its mark, 0 if it has none.
    pub mark: u32,
    /// Index of the interface that it came in by, 0 if none.
    pub in_device: u32,
    /// Index of the interface that it goes out by, 0 if none.
    pub out_device: u32,
    /// What its transport checksum is worth.
    pub checksum: Checksum,
    /// Whether it will be cut into segments later: it may be longer than the path takes.
    pub segments_later: bool,
}

/// What a datagram from the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A packet that waits for its verdict.
    Packet(Packet<'a>),
    /// A request was refused with this error number.
    Refused(i32),
    /// Nothing that this crate reads, or not whole.
    Unknown,
}

/// Reads a datagram from the kernel, up to the first message that is not whole; acknowledgements are left out.
pub fn parse_datagram(datagram: &[u8]) -> impl Iterator<Item = Incoming<'_>> {
    messages(datagram).filter_map(|message| match message.kind {
        PACKET => Some(packet(message.body).map_or(Incoming::Unknown, Incoming::Packet)),
        crate::codec::ERROR => match crate::codec::error_number(message.body) {
            Some(0) => None,
            Some(error) => Some(Incoming::Refused(error)),
            None => Some(Incoming::Unknown),
        },
        _ => Some(Incoming::Unknown),
    })
}

fn packet(body: &[u8]) -> Option<Packet<'_>> {
    let (queue, rest) = netfilter(body)?;
    let mut found = Packet {
        id: 0,
        queue,
        hook: Hook::PreRouting,
        bytes: &[],
        truncated_from: None,
        mark: 0,
        in_device: 0,
        out_device: 0,
        checksum: Checksum::Verified,
        segments_later: false,
    };
    let (mut named, mut whole) = (false, None);
    for (kind, value) in attributes(rest) {
        match kind {
            PACKET_HEADER => {
                let [i0, i1, i2, i3, _, _, place] = *value.first_chunk()?;
                found.id = u32::from_be_bytes([i0, i1, i2, i3]);
                found.hook = hook(place)?;
                named = true;
            }
            MARK => found.mark = number(value)?,
            IN_DEVICE => found.in_device = number(value)?,
            OUT_DEVICE => found.out_device = number(value)?,
            PAYLOAD => found.bytes = value,
            WHOLE_LENGTH => whole = Some(number(value)?),
            BUFFER_INFO => {
                let info = number(value)?;
                found.segments_later = info & SEGMENTS_LATER != 0;
                found.checksum = checksum(info);
            }
            _ => {}
        }
    }
    found.truncated_from = whole.filter(|whole| usize::try_from(*whole) != Ok(found.bytes.len()));
    named.then_some(found)
}

const fn checksum(info: u32) -> Checksum {
    if info & CHECKSUM_NOT_READY != 0 {
        Checksum::Partial
    } else if info & CHECKSUM_NOT_VERIFIED != 0 {
        Checksum::NotVerified
    } else {
        Checksum::Verified
    }
}

const fn hook(number: u8) -> Option<Hook> {
    match number {
        0 => Some(Hook::PreRouting),
        1 => Some(Hook::LocalIn),
        2 => Some(Hook::Forward),
        3 => Some(Hook::LocalOut),
        4 => Some(Hook::PostRouting),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::codec::Writer;

    fn datagram(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, PACKET, 0, 0, 5);
        for (kind, value) in attributes {
            assert!(writer.attribute(*kind, value));
        }
        writer.end();
        bytes
    }

    fn only(bytes: &[u8]) -> Incoming<'_> {
        let all: Vec<_> = parse_datagram(bytes).collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn every_attribute_finds_its_place() {
        let bytes = datagram(&[
            (1, &[0, 0, 0, 42, 8, 0, 3]),
            (3, &[0, 0, 1, 0]),
            (6, &[0, 0, 0, 9]),
            (14, &3_u32.to_be_bytes()),
            (13, &40_u32.to_be_bytes()),
            (10, b"packet"),
        ]);

        let Incoming::Packet(packet) = only(&bytes) else { panic!("no packet") };

        assert_eq!((packet.id, packet.queue, packet.hook), (42, 5, Hook::LocalOut));
        assert_eq!((packet.mark, packet.in_device, packet.out_device), (256, 0, 9));
        assert_eq!((packet.bytes, packet.truncated_from), (&b"packet"[..], Some(40)));
        assert_eq!((packet.checksum, packet.segments_later), (Checksum::Partial, true));
    }

    #[test]
    fn a_packet_without_a_name_or_with_a_short_one_is_none() {
        assert_eq!(only(&datagram(&[(10, b"packet")])), Incoming::Unknown);
        assert_eq!(only(&datagram(&[(1, &[0, 0, 0, 42, 8])])), Incoming::Unknown);
        assert_eq!(only(&datagram(&[(1, &[0, 0, 0, 42, 8, 0, 9])])), Incoming::Unknown);
    }

    #[test]
    fn refusals_are_told_and_acknowledgements_are_not() {
        let answer = |code: i32| {
            let mut bytes = 20_u32.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&crate::codec::ERROR.to_ne_bytes());
            bytes.extend_from_slice(&[0; 10]);
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert_eq!(only(&answer(-2)), Incoming::Refused(2));
        assert_eq!(parse_datagram(&answer(0)).count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_attributes_are_read_without_panic(kinds: Vec<(u16, Vec<u8>)>) {
            let kinds: Vec<(u16, &[u8])> = kinds.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
            for found in parse_datagram(&datagram(&kinds)) {
                if let Incoming::Packet(packet) = found {
                    proptest::prop_assert!(kinds.iter().any(|(_, value)| *value == packet.bytes) || packet.bytes.is_empty());
                }
            }
        }
    }
}
