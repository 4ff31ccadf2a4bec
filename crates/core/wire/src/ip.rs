//! IPv4 and IPv6 headers, options and extension headers included.

use std::net::IpAddr;
use std::ops::Range;

use trireme_identity::Protocol;

use crate::ParseError;
use crate::bytes;

mod v4;
mod v6;

/// The most IPv6 extension headers that a packet may carry.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// The IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl Family {
    /// Returns the family of an address.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns 4 or 6.
    #[must_use]
    pub const fn version(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// Fragmentation fields of a packet that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset of this fragment in bytes.
    pub offset: u32,
    /// Whether more fragments follow.
    pub more: bool,
    /// What the fragments of one packet have in common, beside addresses and protocol; 16 bits of it in IPv4.
    pub id: u32,
}

impl Fragment {
    /// Whether the transport header is in an earlier fragment.
    #[must_use]
    pub const fn is_later(self) -> bool {
        self.offset != 0
    }
}

/// The layout of an IP packet: decoded values and offsets, no borrow of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IP version.
    pub family: Family,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Bytes before the transport header: IPv4 options or IPv6 extension headers included.
    pub header_len: usize,
    /// Length of the whole packet as its header states it.
    pub total_len: usize,
    /// Protocol behind the last header that was understood.
    pub protocol: Protocol,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Set for a true fragment; an IPv6 "atomic" fragment (RFC 6946) is none.
    pub fragment: Option<Fragment>,
    /// Whether IPv4 options or IPv6 extension headers are present.
    pub has_options: bool,
    /// Whether an IPsec authentication header covers the packet, so that edits would break it.
    pub authenticated: bool,
}

impl Packet {
    /// Parses a whole IP packet.
    ///
    /// # Errors
    /// [`ParseError::TrailingBytes`] if the buffer is longer than the packet (see [`trim`]), and
    /// one variant per defect of the headers.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::parse_extent(bytes, Extent::Whole)
    }

    /// Parses the beginning of a packet, as an ICMP error quotes it: the headers must be there,
    /// the payload may be cut or padded. `total_len` is what the header says.
    ///
    /// # Errors
    /// As [`Packet::parse`], without the comparison of the buffer's length.
    pub fn parse_quoted(bytes: &[u8]) -> Result<Self, ParseError> {
        Self::parse_extent(bytes, Extent::Quoted)
    }

    /// Returns where the transport header and payload lie.
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.header_len..self.total_len
    }

    /// Returns the length of transport header and payload.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.total_len.saturating_sub(self.header_len)
    }

    fn parse_extent(bytes: &[u8], extent: Extent) -> Result<Self, ParseError> {
        match bytes.first().ok_or(ParseError::Truncated)? >> 4 {
            4 => v4::parse(bytes, extent),
            6 => v6::parse(bytes, extent),
            _ => Err(ParseError::Version),
        }
    }
}

/// Cuts bytes behind the IP total length (Ethernet pads frames to 60 bytes) and returns how many.
///
/// # Errors
/// Those of [`Packet::parse`], except [`ParseError::TrailingBytes`].
pub fn trim(bytes: &mut Vec<u8>) -> Result<usize, ParseError> {
    let packet = Packet::parse_quoted(bytes)?;
    let excess = bytes.len().checked_sub(packet.total_len).ok_or(ParseError::Truncated)?;
    bytes.truncate(packet.total_len);
    Ok(excess)
}

/// Writes a new total length into the header; keeps an IPv4 header checksum as right or wrong
/// as it was. Returns `None`, with the bytes unchanged, if the length does not fit the field.
pub(crate) fn set_total_len(bytes: &mut [u8], family: Family, total_len: usize) -> Option<()> {
    match family {
        Family::V4 => v4::set_total_len(bytes, total_len),
        Family::V6 => v6::set_total_len(bytes, total_len),
    }
}

/// Returns the largest total length that the family's length field can express.
pub(crate) const fn max_total_len(family: Family) -> usize {
    match family {
        Family::V4 => 65_535,
        Family::V6 => v6::HEADER_LEN + 65_535,
    }
}

/// Where the addresses lie: (source, destination) offsets.
pub(crate) const fn address_offsets(family: Family) -> (usize, usize) {
    match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    }
}

pub(crate) use v4::refresh_checksum as refresh_ipv4_checksum;
pub(crate) use v4::update_checksum as update_ipv4_checksum;
/// What a built header says besides addresses and lengths.
#[derive(Clone, Copy)]
pub(crate) struct Hop {
    pub(crate) limit: u8,
    pub(crate) class: u8,
}

pub(crate) use v4::{build_header as build_ipv4, header_is_intact as ipv4_header_is_intact};
pub(crate) use v6::build_header as build_ipv6;
pub(crate) use v6::is_extension_header;

/// How much of the packet the buffer must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Quoted,
}

impl Extent {
    fn check(self, available: usize, total_len: usize) -> Result<(), ParseError> {
        match self {
            Self::Whole if available < total_len => Err(ParseError::Truncated),
            Self::Whole if available > total_len => Err(ParseError::TrailingBytes),
            Self::Whole | Self::Quoted => Ok(()),
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, ParseError> {
    bytes.get(at).copied().ok_or(ParseError::Truncated)
}

fn word(bytes: &[u8], at: usize) -> Result<u16, ParseError> {
    bytes::be16(bytes, at).ok_or(ParseError::Truncated)
}
