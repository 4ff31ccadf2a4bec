//! Packets made from nothing: TCP segments, UDP datagrams, resets and ICMP errors, with full checksums.

use std::net::IpAddr;

use thiserror::Error;
use trireme_identity::Protocol;

use crate::ParseError;
use crate::checksum;
use crate::datagram::UDP_HEADER_LEN;
use crate::ip::{self, Hop};
use crate::tcp::{self, Flags, options};
use crate::tuple::Endpoint;

mod reply;

pub use reply::{Unreachable, icmp_admin_prohibited, icmp_unreachable, rst_for};

/// Hop limit of packets that answer another.
pub const DEFAULT_HOP_LIMIT: u8 = 64;

/// Why a packet cannot be built.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BuildError {
    /// The packet to answer does not parse.
    #[error("original packet does not parse")]
    Original(#[source] ParseError),
    /// Source and destination are of different IP versions.
    #[error("source and destination are of different IP versions")]
    FamilyMismatch,
    /// A port is zero.
    #[error("port is zero")]
    PortZero,
    /// More than 40 bytes of options, or malformed ones.
    #[error("TCP options are malformed or longer than 40 bytes")]
    Options,
    /// The packet would be longer than its length field can say.
    #[error("payload of {len} bytes does not fit into a packet")]
    TooLong {
        /// Length of the payload.
        len: usize,
    },
    /// No answer is allowed: a reset is not reset, and nothing is said to or for a group.
    #[error("original packet must not be answered")]
    NotAnswerable,
}

/// A TCP segment to build.
#[derive(Clone, Copy, Debug)]
pub struct TcpSpec<'a> {
    /// Source address and port.
    pub src: Endpoint,
    /// Destination address and port.
    pub dst: Endpoint,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: Flags,
    /// Receive window.
    pub window: u16,
    /// Option bytes; padded to a multiple of four.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Time to live, or hop limit.
    pub hop_limit: u8,
}

impl TcpSpec<'_> {
    /// Creates a segment without options and payload, window 0, default hop limit.
    #[must_use]
    pub const fn new(src: Endpoint, dst: Endpoint, seq: u32, ack: u32, flags: Flags) -> Self {
        Self {
            src,
            dst,
            seq,
            ack,
            flags,
            window: 0,
            options: &[],
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        }
    }
}

/// Builds a TCP packet.
///
/// # Errors
/// One [`BuildError`] per impossible wish.
pub fn tcp(spec: &TcpSpec<'_>) -> Result<Vec<u8>, BuildError> {
    if spec.src.port == 0 || spec.dst.port == 0 {
        return Err(BuildError::PortZero);
    }
    if spec.options.len() > options::MAX_LEN || !options::are_well_formed(spec.options) {
        return Err(BuildError::Options);
    }
    let header_len = tcp::MIN_HEADER_LEN + spec.options.len().next_multiple_of(4);
    let words = u8::try_from(header_len / 4).map_err(|_| BuildError::Options)?;
    let len = spec.payload.len();
    let mut packet =
        header(spec.src.addr, spec.dst.addr, Protocol::TCP, Hop::from(spec.hop_limit), header_len + len)?;

    let end = packet.len() + header_len;
    packet.extend_from_slice(&spec.src.port.to_be_bytes());
    packet.extend_from_slice(&spec.dst.port.to_be_bytes());
    packet.extend_from_slice(&spec.seq.to_be_bytes());
    packet.extend_from_slice(&spec.ack.to_be_bytes());
    packet.extend_from_slice(&[words << 4, spec.flags.0]);
    packet.extend_from_slice(&spec.window.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(spec.options);
    packet.resize(end, options::END);
    packet.extend_from_slice(spec.payload);
    checksum::complete(&mut packet).map_err(|_| BuildError::TooLong { len })?;
    Ok(packet)
}

/// Builds a UDP datagram.
///
/// # Errors
/// [`BuildError::PortZero`] for the destination, [`BuildError::FamilyMismatch`], [`BuildError::TooLong`].
pub fn udp(src: Endpoint, dst: Endpoint, hop_limit: u8, data: &[u8]) -> Result<Vec<u8>, BuildError> {
    if dst.port == 0 {
        return Err(BuildError::PortZero);
    }
    let too_long = BuildError::TooLong { len: data.len() };
    let len = UDP_HEADER_LEN + data.len();
    let length = u16::try_from(len).map_err(|_| too_long)?;
    let mut packet = header(src.addr, dst.addr, Protocol::UDP, Hop::from(hop_limit), len)?;
    packet.extend_from_slice(&src.port.to_be_bytes());
    packet.extend_from_slice(&dst.port.to_be_bytes());
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(data);
    checksum::complete_udp(&mut packet).map_err(|_| too_long)?;
    Ok(packet)
}

/// Puts a TCP header, taken from a packet without payload, between these addresses again.
///
/// # Errors
/// [`BuildError::Options`] if it is no TCP header of 20 to 60 bytes, [`BuildError::FamilyMismatch`].
pub fn around_tcp_header(
    (src, dst): (IpAddr, IpAddr),
    hop_limit: u8,
    traffic_class: u8,
    tcp_header: &[u8],
) -> Result<Vec<u8>, BuildError> {
    let hop = Hop { limit: hop_limit, class: traffic_class };
    let len = tcp_header.len();
    let mut packet = header(src, dst, Protocol::TCP, hop, len)?;
    packet.extend_from_slice(tcp_header);
    let whole = tcp::Segment::parse(&packet).is_ok_and(|segment| segment.header_len == len);
    if !whole {
        return Err(BuildError::Options);
    }
    checksum::complete(&mut packet).map_err(|_| BuildError::TooLong { len })?;
    Ok(packet)
}

impl From<u8> for Hop {
    fn from(limit: u8) -> Self {
        Self { limit, class: 0 }
    }
}

fn header(src: IpAddr, dst: IpAddr, protocol: Protocol, hop: Hop, len: usize) -> Result<Vec<u8>, BuildError> {
    let header = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ip::build_ipv4(src, dst, protocol, hop, len),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ip::build_ipv6(src, dst, protocol, hop, len),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            return Err(BuildError::FamilyMismatch);
        }
    };
    header.ok_or(BuildError::TooLong { len })
}
