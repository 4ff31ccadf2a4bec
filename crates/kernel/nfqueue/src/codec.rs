//! Netlink messages and attributes (linux/netlink.h, linux/netfilter/nfnetlink.h).
//!
//! Header: length u32, type u16, flags u16, sequence u32, port u32, all in the machine's order; behind it family u8,
//! version u8, queue number u16 (big-endian), then attributes: length u16, type u16, value, padded to four bytes.

pub(crate) const HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// Nested, or big-endian: says nothing about the type.
const TYPE_MASK: u16 = 0x3fff;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACKNOWLEDGE: u16 = 4;

/// Answer to a request, with an error number or 0.
pub(crate) const ERROR: u16 = 2;

/// NFNL_SUBSYS_QUEUE, in the upper half of a type.
const QUEUES: u16 = 3 << 8;
pub(crate) const PACKET: u16 = QUEUES;
pub(crate) const VERDICT: u16 = QUEUES | 1;
pub(crate) const CONFIG: u16 = QUEUES | 2;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram, up to the first that is not whole.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = datagram.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(padded(length)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    })
}

/// Queue number and attributes of a netfilter message.
pub(crate) fn netfilter(body: &[u8]) -> Option<(u16, &[u8])> {
    let ([_family, _version, high, low], attributes) = body.split_first_chunk::<NETFILTER_HEADER>()?;
    Some((u16::from_be_bytes([*high, *low]), attributes))
}

/// Types and values of attributes, up to the first that is not whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(padded(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value))
    })
}

/// What an error message says: the sequence number is that of the request.
pub(crate) fn error_number(body: &[u8]) -> Option<i32> {
    body.first_chunk().map(|code| i32::from_ne_bytes(*code).saturating_neg())
}

/// Appends one netfilter message to a datagram.
pub(crate) struct Writer<'a> {
    datagram: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn begin(datagram: &'a mut Vec<u8>, kind: u16, flags: u16, sequence: u32, queue: u16) -> Self {
        let start = datagram.len();
        datagram.extend_from_slice(&[0; 4]);
        datagram.extend_from_slice(&kind.to_ne_bytes());
        datagram.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        datagram.extend_from_slice(&sequence.to_ne_bytes());
        datagram.extend_from_slice(&[0; 4]);
        // Any family, version 0.
        datagram.extend_from_slice(&[0; 2]);
        datagram.extend_from_slice(&queue.to_be_bytes());
        Self { datagram, start }
    }

    /// One attribute; false, and nothing is written, if the value is longer than an attribute can be.
    #[must_use]
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> bool {
        let Ok(length) = u16::try_from(ATTRIBUTE_HEADER + value.len()) else { return false };
        self.datagram.extend_from_slice(&length.to_ne_bytes());
        self.datagram.extend_from_slice(&kind.to_ne_bytes());
        self.datagram.extend_from_slice(value);
        self.pad();
        true
    }

    /// Writes the length.
    pub(crate) fn end(self) {
        let length = u32::try_from(self.datagram.len() - self.start).unwrap_or(u32::MAX);
        if let Some(place) = self.datagram.get_mut(self.start..self.start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// Takes back what was written of this message.
    pub(crate) fn abandon(self) {
        self.datagram.truncate(self.start);
    }

    fn pad(&mut self) {
        self.datagram.resize(padded(self.datagram.len()), 0);
    }
}

const fn padded(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut datagram = Vec::new();
        for (sequence, value) in [(7, &b"abc"[..]), (8, b"")] {
            let mut writer = Writer::begin(&mut datagram, VERDICT, ACKNOWLEDGE, sequence, 513);
            assert!(writer.attribute(9, value));
            assert!(writer.attribute(3, &1_u32.to_be_bytes()));
            writer.end();
        }

        let read: Vec<_> = messages(&datagram).collect();

        assert_eq!(
            read.iter().map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(),
            [(VERDICT, 7), (VERDICT, 8)]
        );
        let (queue, rest) = netfilter(read.first().unwrap().body).unwrap();
        assert_eq!(queue, 513);
        assert_eq!(attributes(rest).collect::<Vec<_>>(), [(9, &b"abc"[..]), (3, &[0, 0, 0, 1])]);
    }

    #[test]
    fn a_value_that_no_attribute_holds_is_refused_and_leaves_nothing() {
        let mut datagram = vec![1, 2];
        let mut writer = Writer::begin(&mut datagram, VERDICT, 0, 1, 1);
        assert!(!writer.attribute(10, &vec![0; 65_532]));
        writer.abandon();
        assert_eq!(datagram, [1, 2]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_their_bounds(bytes: Vec<u8>) {
            let mut total = 0;
            for message in messages(&bytes) {
                total += HEADER + message.body.len();
                let inner = netfilter(message.body).map_or(&[][..], |(_, attributes)| attributes);
                proptest::prop_assert!(attributes(inner).map(|(_, value)| value.len()).sum::<usize>() <= inner.len());
                let _ = error_number(message.body);
            }
            proptest::prop_assert!(total <= bytes.len());
        }
    }
}
