//! The Internet checksum: verification, incremental update and full computation.
//!
//! Source: RFC 1071, RFC 1624.

use std::net::IpAddr;

use trireme_identity::Protocol;

use crate::ParseError;
use crate::bytes::{be16, put};
use crate::datagram::{self, Datagram, Ports, Transport};
use crate::ip::{self, Family};
use crate::tcp::{self, Segment};

/// What the checksum field of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checksum {
    /// Covers the whole segment and is right.
    Valid,
    /// Holds the sum of the pseudo-header only; whoever transmits the segment completes it.
    Partial,
    /// Neither: the segment was damaged, or its IPv4 header was.
    Invalid,
}

/// Checks the TCP checksum and, for IPv4, the header checksum.
///
/// A field that is both a right checksum and the pseudo-header sum counts as [`Checksum::Valid`].
/// A segment that was not parsed from these bytes is [`Checksum::Invalid`].
#[must_use]
pub fn verify(bytes: &[u8], segment: &Segment) -> Checksum {
    let ip = &segment.ip;
    let Some(transport) = bytes.get(ip.payload()) else {
        return Checksum::Invalid;
    };
    if ip.family == Family::V4 && !ip::ipv4_header_is_intact(bytes, ip.header_len) {
        return Checksum::Invalid;
    }
    let pseudo = pseudo_header(ip.src, ip.dst, Protocol::TCP, transport.len());
    if pseudo.with(transport).fold() == u16::MAX {
        Checksum::Valid
    } else if be16(transport, tcp::CHECKSUM_AT) == Some(pseudo.fold()) {
        Checksum::Partial
    } else {
        Checksum::Invalid
    }
}

/// Computes the IPv4 header checksum and the TCP checksum anew.
///
/// This makes any segment valid: call it for segments that were built here or whose checksum
/// was [`Checksum::Partial`], never to repair one that came in as [`Checksum::Invalid`].
///
/// # Errors
/// Those of [`Segment::parse`].
pub fn complete(bytes: &mut [u8]) -> Result<(), ParseError> {
    let segment = Segment::parse(bytes)?;
    let ip = segment.ip;
    if ip.family == Family::V4 {
        ip::refresh_ipv4_checksum(bytes, ip.header_len).ok_or(ParseError::Truncated)?;
    }
    let at = ip.header_len + tcp::CHECKSUM_AT;
    put(bytes, at, &[0, 0]).ok_or(ParseError::Truncated)?;
    let transport = bytes.get(ip.payload()).ok_or(ParseError::Truncated)?;
    let sum = pseudo_header(ip.src, ip.dst, Protocol::TCP, transport.len()).with(transport);
    put(bytes, at, &(!sum.fold()).to_be_bytes()).ok_or(ParseError::Truncated)
}

/// Checks the checksum of a whole UDP datagram and, for IPv4, the header checksum; over IPv4 it may be absent.
///
/// A fragment, or a datagram that was not parsed from these bytes, is [`Checksum::Invalid`].
#[must_use]
pub fn verify_udp(bytes: &[u8], datagram: &Datagram) -> Checksum {
    let ip = &datagram.ip;
    let Some(udp) = udp_of(bytes, datagram) else { return Checksum::Invalid };
    if ip.family == Family::V4 && !ip::ipv4_header_is_intact(bytes, ip.header_len) {
        return Checksum::Invalid;
    }
    let field = be16(udp, datagram::UDP_CHECKSUM_AT);
    let pseudo = pseudo_header(ip.src, ip.dst, Protocol::UDP, udp.len());
    let is_right = match field {
        Some(0) => ip.family == Family::V4,
        Some(_) | None => pseudo.with(udp).fold() == u16::MAX,
    };
    if is_right {
        Checksum::Valid
    } else if field == Some(pseudo.fold()) {
        Checksum::Partial
    } else {
        Checksum::Invalid
    }
}

/// Computes the IPv4 header checksum and the UDP checksum of a datagram anew. As [`complete`], it repairs anything.
///
/// # Errors
/// Those of [`Datagram::parse`].
pub fn complete_udp(bytes: &mut [u8]) -> Result<(), ParseError> {
    let datagram = Datagram::parse(bytes)?;
    let ip = datagram.ip;
    if ip.family == Family::V4 {
        ip::refresh_ipv4_checksum(bytes, ip.header_len).ok_or(ParseError::Truncated)?;
    }
    let at = ip.header_len + datagram::UDP_CHECKSUM_AT;
    put(bytes, at, &[0, 0]).ok_or(ParseError::Truncated)?;
    let udp = udp_of(bytes, &datagram).ok_or(ParseError::UdpLength)?;
    let sum = !pseudo_header(ip.src, ip.dst, Protocol::UDP, udp.len()).with(udp).fold();
    // Zero means that there is none (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    put(bytes, at, &sum.to_be_bytes()).ok_or(ParseError::Truncated)
}

/// UDP header and data, as far as the UDP length says.
fn udp_of<'a>(bytes: &'a [u8], datagram: &Datagram) -> Option<&'a [u8]> {
    let Transport::Ports(Ports { data, .. }) = &datagram.transport else { return None };
    datagram.is_whole_udp().then(|| bytes.get(datagram.ip.header_len..data.end))?
}

/// Makes a segment's checksum partial, as a stack with checksum offload leaves it.
///
/// # Errors
/// Those of [`Segment::parse`].
pub fn make_partial(bytes: &mut [u8]) -> Result<(), ParseError> {
    let ip = Segment::parse(bytes)?.ip;
    let sum = pseudo_header(ip.src, ip.dst, Protocol::TCP, ip.payload_len());
    let at = ip.header_len + tcp::CHECKSUM_AT;
    put(bytes, at, &sum.fold().to_be_bytes()).ok_or(ParseError::Truncated)
}

/// A running one's complement sum of 16-bit words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that start at an even offset; an odd last byte is padded with zero.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = u64::from(self.fold());
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut tail = [0; 4];
        for (to, from) in tail.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(sum + u64::from(u32::from_be_bytes(tail)))
    }

    /// Adds one word.
    #[must_use]
    pub const fn add_word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Returns the sum in 16 bits; its complement is the checksum.
    #[must_use]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > u64::from(u16::MAX) {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

/// Returns the sum of the TCP, UDP or ICMPv6 pseudo-header.
pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: Protocol, len: usize) -> Sum {
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Sum::default().with(&src.octets()).with(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Sum::default().with(&src.octets()).with(&dst.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Sum::default(),
    };
    // The length field is 16 bits in IPv4 and 32 in IPv6; the sum is the same.
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    sum.with(&len.to_be_bytes()).add_word(u16::from(protocol.0))
}

/// The difference that an edit makes to a checksum (RFC 1624, equation 3).
///
/// A checksum that was wrong before the edit is exactly as wrong after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(Sum);

impl Delta {
    /// Replaces bytes at an even offset of the summed area by others of any even length.
    pub fn replace(&mut self, old: &[u8], new: &[u8]) {
        self.remove(old, Parity::Even);
        self.insert(new, Parity::Even);
    }

    /// Counts bytes that are in the summed area after the edit.
    pub fn insert(&mut self, bytes: &[u8], at: Parity) {
        self.0 = self.0.add_word(at.align(Sum::default().with(bytes).fold()));
    }

    /// Counts bytes that were in the summed area before the edit.
    pub fn remove(&mut self, bytes: &[u8], at: Parity) {
        self.0 = self.0.add_word(!at.align(Sum::default().with(bytes).fold()));
    }

    /// Returns the checksum field after the edit, given the one before it.
    #[must_use]
    pub fn apply(self, field: u16) -> u16 {
        !self.0.add_word(!field).fold()
    }

    pub(crate) fn replace_sum(&mut self, old: Sum, new: Sum) {
        self.0 = self.0.add_word(!old.fold()).add_word(new.fold());
    }
}

/// Whether bytes start on a 16-bit boundary of the summed area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// At an even offset.
    Even,
    /// At an odd offset: every byte counts in the other half of its word.
    Odd,
}

impl Parity {
    /// Returns the parity of an offset from the beginning of the summed area.
    #[must_use]
    pub const fn of(offset: usize) -> Self {
        if offset.is_multiple_of(2) { Self::Even } else { Self::Odd }
    }

    const fn align(self, sum: u16) -> u16 {
        match self {
            Self::Even => sum,
            Self::Odd => sum.swap_bytes(),
        }
    }
}
