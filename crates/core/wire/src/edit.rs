//! Edits of a packet in its buffer: payload, options, numbers, addresses.
//!
//! Every edit parses first, fixes the IP length, the IPv4 header checksum and the TCP checksum,
//! and leaves the buffer alone if it returns an error. Checksums change incrementally: a right
//! one stays right, a wrong one stays wrong, and a partial one (checksum offload) stays partial,
//! updated to the new pseudo-header.

use thiserror::Error;

use crate::ParseError;
use crate::bytes::{array, be16, put};
use crate::checksum::{self, Checksum, Delta, Parity};
use crate::ip::{self, Family};
use crate::tcp::{self, Flags, Segment};
use crate::tuple::Endpoint;

mod options;

pub use options::{OptionEdit, OptionSelector, strip_fast_open, strip_option};

/// Why a packet could not be edited.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EditError {
    /// The bytes are not a TCP packet.
    #[error("packet does not parse")]
    Parse(#[from] ParseError),
    /// The packet would be longer than its length field can say.
    #[error("packet would have {len} bytes, the limit is {limit}")]
    TooLong {
        /// The length it would have.
        len: usize,
        /// The longest possible.
        limit: usize,
    },
    /// More payload should be kept than there is.
    #[error("cannot keep {keep} bytes of a payload of {len}")]
    BeyondPayload {
        /// How much was to be kept.
        keep: usize,
        /// How much there is.
        len: usize,
    },
    /// An IPsec authentication header covers the packet.
    #[error("packet is covered by an IPsec authentication header")]
    Authenticated,
    /// An address of the other IP version.
    #[error("address is of the other IP version")]
    FamilyMismatch,
}

/// Appends bytes behind the payload.
///
/// # Errors
/// [`EditError::TooLong`] if the IP length field cannot say the new length.
pub fn append_payload(bytes: &mut Vec<u8>, payload: &[u8]) -> Result<(), EditError> {
    let mut edit = Edit::begin(bytes)?;
    edit.check_len(bytes.len().saturating_add(payload.len()))?;
    edit.delta.insert(payload, edit.parity(bytes.len()));
    bytes.extend_from_slice(payload);
    edit.finish(bytes)
}

/// Cuts the payload down to its first `keep` bytes.
///
/// # Errors
/// [`EditError::BeyondPayload`] if the payload is shorter than that.
pub fn strip_payload(bytes: &mut Vec<u8>, keep: usize) -> Result<(), EditError> {
    let mut edit = Edit::begin(bytes)?;
    edit.truncate(bytes, keep)?;
    edit.finish(bytes)
}

/// Replaces the whole payload.
///
/// # Errors
/// [`EditError::TooLong`] if the IP length field cannot say the new length.
pub fn replace_payload(bytes: &mut Vec<u8>, payload: &[u8]) -> Result<(), EditError> {
    let mut edit = Edit::begin(bytes)?;
    let start = edit.segment.payload.start;
    edit.check_len(start.saturating_add(payload.len()))?;
    edit.truncate(bytes, 0)?;
    edit.delta.insert(payload, edit.parity(start));
    bytes.extend_from_slice(payload);
    edit.finish(bytes)
}

/// Sets the sequence number.
///
/// # Errors
/// The packet must parse and not be authenticated.
pub fn set_seq(bytes: &mut [u8], seq: u32) -> Result<(), EditError> {
    overwrite(bytes, tcp::SEQ_AT, seq.to_be_bytes())
}

/// Sets the acknowledgement number.
///
/// # Errors
/// The packet must parse and not be authenticated.
pub fn set_ack(bytes: &mut [u8], ack: u32) -> Result<(), EditError> {
    overwrite(bytes, tcp::ACK_AT, ack.to_be_bytes())
}

/// Sets the receive window.
///
/// # Errors
/// The packet must parse and not be authenticated.
pub fn set_window(bytes: &mut [u8], window: u16) -> Result<(), EditError> {
    overwrite(bytes, tcp::WINDOW_AT, window.to_be_bytes())
}

/// Sets the flag byte; the reserved bits next to the data offset stay.
///
/// # Errors
/// The packet must parse and not be authenticated.
pub fn set_flags(bytes: &mut [u8], flags: Flags) -> Result<(), EditError> {
    let mut edit = Edit::begin(bytes)?;
    let at = edit.segment.ip.header_len + tcp::OFFSET_AT;
    let [offset, _] = array(bytes, at).ok_or(ParseError::Truncated)?;
    edit.overwrite(bytes, at, [offset, flags.0])?;
    edit.finish(bytes)
}

/// Rewrites the source address and port, as a translator does.
///
/// # Errors
/// [`EditError::FamilyMismatch`] for an address of the other version, [`ParseError::PortZero`].
pub fn set_source(bytes: &mut [u8], endpoint: Endpoint) -> Result<(), EditError> {
    set_endpoint(bytes, endpoint, End::Source)
}

/// Rewrites the destination address and port, as a translator does.
///
/// # Errors
/// [`EditError::FamilyMismatch`] for an address of the other version, [`ParseError::PortZero`].
pub fn set_destination(bytes: &mut [u8], endpoint: Endpoint) -> Result<(), EditError> {
    set_endpoint(bytes, endpoint, End::Destination)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

fn set_endpoint(bytes: &mut [u8], endpoint: Endpoint, end: End) -> Result<(), EditError> {
    let mut edit = Edit::begin(bytes)?;
    let ip = edit.segment.ip;
    if Family::of(endpoint.addr) != ip.family {
        return Err(EditError::FamilyMismatch);
    }
    if endpoint.port == 0 {
        return Err(ParseError::PortZero.into());
    }
    let (src_at, dst_at) = ip::address_offsets(ip.family);
    let (address_at, port_at) = match end {
        End::Source => (src_at, ip.header_len),
        End::Destination => (dst_at, ip.header_len + 2),
    };
    match endpoint.addr {
        std::net::IpAddr::V4(addr) => {
            let old: [u8; 4] = array(bytes, address_at).ok_or(ParseError::Truncated)?;
            let mut delta = Delta::default();
            delta.replace(&old, &addr.octets());
            ip::update_ipv4_checksum(bytes, delta).ok_or(ParseError::Truncated)?;
            put(bytes, address_at, &addr.octets()).ok_or(ParseError::Truncated)?;
        }
        std::net::IpAddr::V6(addr) => {
            put(bytes, address_at, &addr.octets()).ok_or(ParseError::Truncated)?;
        }
    }
    match end {
        End::Source => edit.src = endpoint.addr,
        End::Destination => edit.dst = endpoint.addr,
    }
    edit.overwrite(bytes, port_at, endpoint.port.to_be_bytes())?;
    edit.finish(bytes)
}

fn overwrite<const N: usize>(bytes: &mut [u8], at: usize, new: [u8; N]) -> Result<(), EditError> {
    let mut edit = Edit::begin(bytes)?;
    let at = edit.segment.ip.header_len + at;
    edit.overwrite(bytes, at, new)?;
    edit.finish(bytes)
}

/// An edit under way: what the packet was, and the change of its checksum so far.
struct Edit {
    segment: Segment,
    checksum: Checksum,
    delta: Delta,
    src: std::net::IpAddr,
    dst: std::net::IpAddr,
}

impl Edit {
    fn begin(bytes: &[u8]) -> Result<Self, EditError> {
        let segment = Segment::parse(bytes)?;
        if segment.ip.authenticated {
            return Err(EditError::Authenticated);
        }
        Ok(Self {
            checksum: checksum::verify(bytes, &segment),
            delta: Delta::default(),
            src: segment.ip.src,
            dst: segment.ip.dst,
            segment,
        })
    }

    fn check_len(&self, len: usize) -> Result<(), EditError> {
        let limit = ip::max_total_len(self.segment.ip.family);
        if len > limit {
            return Err(EditError::TooLong { len, limit });
        }
        Ok(())
    }

    /// Parity of an offset of the packet within the TCP segment.
    const fn parity(&self, at: usize) -> Parity {
        Parity::of(at.saturating_sub(self.segment.ip.header_len))
    }

    fn truncate(&mut self, bytes: &mut Vec<u8>, keep: usize) -> Result<(), EditError> {
        let len = self.segment.payload_len();
        if keep > len {
            return Err(EditError::BeyondPayload { keep, len });
        }
        let end = self.segment.payload.start + keep;
        let cut = bytes.get(end..).unwrap_or_default();
        self.delta.remove(cut, self.parity(end));
        bytes.truncate(end);
        Ok(())
    }

    /// Overwrites bytes at an even offset of the TCP segment.
    fn overwrite<const N: usize>(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        new: [u8; N],
    ) -> Result<(), EditError> {
        let old: [u8; N] = array(bytes, at).ok_or(ParseError::Truncated)?;
        self.delta.replace(&old, &new);
        put(bytes, at, &new).ok_or(ParseError::Truncated)?;
        Ok(())
    }

    /// Writes lengths and checksums for the buffer as it is.
    fn finish(mut self, bytes: &mut [u8]) -> Result<(), EditError> {
        let Segment { ip, .. } = self.segment;
        if bytes.len() != ip.total_len {
            ip::set_total_len(bytes, ip.family, bytes.len()).ok_or(ParseError::TotalLength)?;
        }
        let len = bytes.len().saturating_sub(ip.header_len);
        let old = checksum::pseudo_header(ip.src, ip.dst, ip.protocol, ip.payload_len());
        let new = checksum::pseudo_header(self.src, self.dst, ip.protocol, len);
        let at = ip.header_len + tcp::CHECKSUM_AT;
        let field = be16(bytes, at).ok_or(ParseError::Truncated)?;
        let field = match self.checksum {
            Checksum::Partial => new.fold(),
            Checksum::Valid | Checksum::Invalid => {
                self.delta.replace_sum(old, new);
                self.delta.apply(field)
            }
        };
        put(bytes, at, &field.to_be_bytes()).ok_or(ParseError::Truncated)?;
        Ok(())
    }
}
