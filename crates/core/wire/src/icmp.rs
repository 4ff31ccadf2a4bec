//! ICMP errors and the packet that they quote.

use std::ops::Range;

use trireme_identity::Protocol;

use crate::ParseError;
use crate::bytes::be32;
use crate::checksum::{Sum, pseudo_header};
use crate::datagram::{self, Message};
use crate::ip::{self, Family};
use crate::tuple::{Endpoint, Tuple};

mod cut;

pub use cut::{CutError, cut_embedded_payload};

/// Length of the header in front of a quoted packet.
pub(crate) const HEADER_LEN: usize = 8;

pub(crate) mod v4 {
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const TIME_EXCEEDED: u8 = 11;
    pub(crate) const PARAMETER_PROBLEM: u8 = 12;
}

pub(crate) mod v6 {
    pub(crate) const UNREACHABLE: u8 = 1;
    pub(crate) const PACKET_TOO_BIG: u8 = 2;
    pub(crate) const TIME_EXCEEDED: u8 = 3;
    pub(crate) const PARAMETER_PROBLEM: u8 = 4;
}

/// An ICMP error about a packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// The packet that carries the error.
    pub ip: ip::Packet,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// The quoted packet's headers; its `total_len` is what the header said, not what is quoted.
    pub quoted_ip: ip::Packet,
    /// Addresses and ports of the quoted packet: its source is who receives the error. For ICMP and for protocols without
    /// ports as [`Datagram::flow_ports`](crate::datagram::Datagram::flow_ports) has it; for a later fragment zero.
    pub tuple: Tuple,
    /// Sequence number of a quoted TCP segment.
    pub seq: Option<u32>,
    /// Where the quoted packet lies, without an RFC 4884 extension behind it.
    pub quoted: Range<usize>,
}

impl Embedded {
    /// Returns whether the error says that nobody takes the packet: neither its size nor its way is the matter.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        match self.ip.family {
            Family::V4 => self.icmp_type == v4::UNREACHABLE && self.icmp_code != 4,
            Family::V6 => self.icmp_type == v6::UNREACHABLE,
        }
    }

    /// Returns whether the error says that the packet was too big for a link.
    #[must_use]
    pub const fn is_too_big(&self) -> bool {
        match self.ip.family {
            Family::V4 => self.icmp_type == v4::UNREACHABLE && self.icmp_code == 4,
            Family::V6 => self.icmp_type == v6::PACKET_TOO_BIG,
        }
    }
}

/// Parses an ICMP or ICMPv6 error and the packet that it quotes; `None` for any other packet, and for a quote that names no
/// flow.
///
/// Only the first eight bytes of the quoted transport header need to be there (RFC 792). Checksums are
/// not looked at, see [`verify`].
#[must_use]
pub fn embedded(bytes: &[u8]) -> Option<Embedded> {
    let ip = parse(bytes).ok()?;
    let message = bytes.get(ip.payload())?;
    let (&icmp_type, &icmp_code) = (message.first()?, message.get(1)?);
    if !is_error(ip.family, icmp_type) {
        return None;
    }
    let start = ip.header_len + HEADER_LEN;
    let quoted = start..quote_end(&ip, message, icmp_type)?;
    let quote = bytes.get(quoted.clone())?;
    let quoted_ip = ip::Packet::parse_quoted(quote).ok()?;
    if quoted_ip.family != ip.family {
        return None;
    }
    let ((src, dst), seq) = quoted_ports(&quoted_ip, quote.get(quoted_ip.header_len..)?)?;
    let tuple = Tuple { src: Endpoint::new(quoted_ip.src, src), dst: Endpoint::new(quoted_ip.dst, dst) };
    Some(Embedded { ip, icmp_type, icmp_code, quoted_ip, tuple, seq, quoted })
}

/// Ports and sequence number of the beginning of a transport header. No error is about an error (RFC 1122, section 3.2.2).
fn quoted_ports(ip: &ip::Packet, transport: &[u8]) -> Option<((u16, u16), Option<u32>)> {
    if ip.fragment.is_some_and(ip::Fragment::is_later) {
        return (ip.protocol != Protocol::TCP).then_some(((0, 0), None));
    }
    if ip.protocol == Protocol::TCP {
        return Some((datagram::ports(transport)?, Some(be32(transport, 4)?)));
    }
    if ip.protocol.has_ports() {
        // As for TCP, eight bytes are always there.
        be32(transport, 4)?;
        return Some((datagram::ports(transport)?, None));
    }
    if ip.protocol.is_icmp() {
        let message = Message::parse(ip.protocol, transport)?;
        return (!is_error(ip.family, message.icmp_type)).then(|| (message.flow_ports(), None));
    }
    Some(((0, 0), None))
}

/// Returns whether the ICMP checksum (and the IPv4 header checksum around it) is right.
#[must_use]
pub fn verify(bytes: &[u8]) -> bool {
    let Ok(ip) = parse(bytes) else {
        return false;
    };
    let Some(message) = bytes.get(ip.payload()) else {
        return false;
    };
    let header_ok = match ip.family {
        Family::V4 => ip::ipv4_header_is_intact(bytes, ip.header_len),
        Family::V6 => true,
    };
    header_ok && pseudo(&ip, message.len()).with(message).fold() == u16::MAX
}

/// Parses the packet around an ICMP message of its own family.
fn parse(bytes: &[u8]) -> Result<ip::Packet, ParseError> {
    let ip = ip::Packet::parse(bytes)?;
    let expected = match ip.family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMPV6,
    };
    if ip.protocol != expected {
        return Err(ParseError::NotIcmp);
    }
    if ip.fragment.is_some() {
        return Err(ParseError::Fragment);
    }
    Ok(ip)
}

fn pseudo(ip: &ip::Packet, len: usize) -> Sum {
    match ip.family {
        Family::V4 => Sum::default(),
        Family::V6 => pseudo_header(ip.src, ip.dst, ip.protocol, len),
    }
}

/// Whether a message of this type quotes the packet that it is about.
#[must_use]
pub const fn is_error(family: Family, icmp_type: u8) -> bool {
    match family {
        Family::V4 => matches!(icmp_type, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM),
        Family::V6 => matches!(
            icmp_type,
            v6::UNREACHABLE | v6::PACKET_TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER_PROBLEM
        ),
    }
}

/// Where the message states the length of the quoted packet, and its unit in bytes (RFC 4884).
const fn length_field(family: Family, icmp_type: u8) -> Option<(usize, usize)> {
    match (family, icmp_type) {
        (Family::V4, _) => Some((5, 4)),
        (Family::V6, v6::UNREACHABLE | v6::TIME_EXCEEDED) => Some((4, 8)),
        (Family::V6, _) => None,
    }
}

/// Returns where the quoted packet ends: at the end of the message, or before an extension.
fn quote_end(ip: &ip::Packet, message: &[u8], icmp_type: u8) -> Option<usize> {
    let Some((at, unit)) = length_field(ip.family, icmp_type) else {
        return Some(ip.total_len);
    };
    match usize::from(*message.get(at)?) * unit {
        0 => Some(ip.total_len),
        len => Some((ip.header_len + HEADER_LEN + len).min(ip.total_len)),
    }
}
