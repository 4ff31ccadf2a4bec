//! TCP segments inside IP packets.

use std::ops::Range;

use trireme_identity::Protocol;

use crate::ParseError;
use crate::bytes::{be16, be32};
use crate::ip;
use crate::tuple::{Endpoint, Tuple};

mod flags;
pub mod options;

pub use flags::{FlagAnomaly, Flags};
pub use options::{Options, TcpOption};

/// Length of a TCP header without options.
pub const MIN_HEADER_LEN: usize = 20;

pub(crate) const SEQ_AT: usize = 4;
pub(crate) const ACK_AT: usize = 8;
pub(crate) const OFFSET_AT: usize = 12;
pub(crate) const FLAGS_AT: usize = 13;
pub(crate) const WINDOW_AT: usize = 14;
pub(crate) const CHECKSUM_AT: usize = 16;

/// The layout of a TCP segment and of the packet around it: values and offsets, no borrow.
///
/// Offsets count from the first byte of the IP header. After an edit of the buffer, parse again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The IP packet.
    pub ip: ip::Packet,
    /// Source port, never zero.
    pub src_port: u16,
    /// Destination port, never zero.
    pub dst_port: u16,
    /// Sequence number of the first byte (of the SYN, if the flag is set).
    pub seq: u32,
    /// Acknowledgement number, meaningful with [`Flags::ACK`].
    pub ack: u32,
    /// The eight flag bits.
    pub flags: Flags,
    /// Receive window, unscaled.
    pub window: u16,
    /// TCP header length, options included: 20 to 60.
    pub header_len: usize,
    /// Where the payload lies in the packet.
    pub payload: Range<usize>,
}

impl Segment {
    /// Parses a whole IP packet that holds a whole TCP segment.
    ///
    /// Odd flag combinations parse; [`Flags::anomaly`] tells them apart. Checksums are not
    /// looked at; [`crate::checksum::verify`] does that.
    ///
    /// # Errors
    /// One [`ParseError`] per defect.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let ip = ip::Packet::parse(bytes)?;
        if ip.fragment.is_some() {
            return Err(ParseError::Fragment);
        }
        if ip.protocol != Protocol::TCP {
            return Err(ParseError::NotTcp);
        }
        let tcp = bytes.get(ip.payload()).ok_or(ParseError::Truncated)?;
        if tcp.len() < MIN_HEADER_LEN {
            return Err(ParseError::Truncated);
        }
        let header_len = header_len(tcp).ok_or(ParseError::TcpOffset)?;
        let options = tcp.get(MIN_HEADER_LEN..header_len).ok_or(ParseError::TcpOffset)?;
        if !options::are_well_formed(options) {
            return Err(ParseError::TcpOptions);
        }
        let segment = Self {
            ip,
            src_port: be16(tcp, 0).ok_or(ParseError::Truncated)?,
            dst_port: be16(tcp, 2).ok_or(ParseError::Truncated)?,
            seq: be32(tcp, SEQ_AT).ok_or(ParseError::Truncated)?,
            ack: be32(tcp, ACK_AT).ok_or(ParseError::Truncated)?,
            flags: Flags(*tcp.get(FLAGS_AT).ok_or(ParseError::Truncated)?),
            window: be16(tcp, WINDOW_AT).ok_or(ParseError::Truncated)?,
            header_len,
            payload: ip.header_len + header_len..ip.total_len,
        };
        if segment.src_port == 0 || segment.dst_port == 0 {
            return Err(ParseError::PortZero);
        }
        Ok(segment)
    }

    /// Returns addresses and ports.
    #[must_use]
    pub const fn tuple(&self) -> Tuple {
        Tuple {
            src: Endpoint::new(self.ip.src, self.src_port),
            dst: Endpoint::new(self.ip.dst, self.dst_port),
        }
    }

    /// Returns the payload; empty if the bytes are not those the segment was parsed from.
    #[must_use]
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.payload.clone()).unwrap_or_default()
    }

    /// Returns the number of payload bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Returns the options of the header.
    #[must_use]
    pub fn options<'a>(&self, bytes: &'a [u8]) -> Options<'a> {
        Options::new(bytes.get(self.options_range()).unwrap_or_default())
    }

    /// Returns the sequence space that the segment takes: payload, SYN and FIN (RFC 9293 SEG.LEN).
    #[must_use]
    pub fn sequence_len(&self) -> u32 {
        let flags = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        u32::try_from(self.payload.len()).map_or(u32::MAX, |len| len.wrapping_add(flags))
    }

    /// Returns whether the segment is a bare acknowledgement: ACK, no payload, no SYN, FIN, RST.
    #[must_use]
    pub fn is_empty_ack(&self) -> bool {
        self.payload.is_empty()
            && self.flags.contains(Flags::ACK)
            && !self.flags.intersects(Flags::SYN.union(Flags::FIN).union(Flags::RST))
    }

    pub(crate) const fn options_range(&self) -> Range<usize> {
        self.ip.header_len + MIN_HEADER_LEN..self.ip.header_len + self.header_len
    }
}

/// Returns the header length that the data offset states, if it is at least 20.
pub(crate) fn header_len(tcp: &[u8]) -> Option<usize> {
    let len = usize::from(tcp.get(OFFSET_AT)? >> 4) * 4;
    (len >= MIN_HEADER_LEN).then_some(len)
}
