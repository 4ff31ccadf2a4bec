//! Packets of every protocol but TCP: the ports, or what stands for them, that name their flow.

use std::net::IpAddr;
use std::ops::Range;

use trireme_identity::Protocol;

use crate::ParseError;
use crate::bytes::be16;
use crate::ip;
use crate::tuple::{Endpoint, Tuple};

/// Length of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

pub(crate) const UDP_LENGTH_AT: usize = 4;
pub(crate) const UDP_CHECKSUM_AT: usize = 6;

/// The layout of a packet that is no TCP segment: values and offsets, no borrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The IP packet.
    pub ip: ip::Packet,
    /// What follows the IP header.
    pub transport: Transport,
}

/// What is known about the transport header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, UDP-Lite, SCTP or DCCP.
    Ports(Ports),
    /// ICMP of the packet's family.
    Icmp(Message),
    /// A protocol that has no ports.
    Opaque,
    /// A fragment behind the first: the transport header is not in it.
    Later,
}

/// A transport header with ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source port; zero is allowed for UDP and UDP-Lite (nobody wants an answer).
    pub src: u16,
    /// Destination port, never zero.
    pub dst: u16,
    /// For UDP, where the data lies in the packet; in a first fragment, what is there of it. Empty for others.
    pub data: Range<usize>,
}

/// The first bytes of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub icmp_code: u8,
    /// What a query and its reply have in common; zero for other messages.
    pub id: u16,
    /// Its place in an exchange.
    pub exchange: Exchange,
}

/// What an ICMP message is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A reply with the same identifier may answer it.
    Query,
    /// It answers the query of this type.
    ReplyTo(u8),
    /// Nothing answers it.
    Alone,
}

/// Who can have sent a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The end that began the flow.
    Initiator,
    /// The end that was called.
    Responder,
    /// Either end: the packet does not say.
    Either,
}

impl Datagram {
    /// Parses a whole IP packet of any protocol but TCP, or a fragment of one.
    ///
    /// Checksums are not looked at; [`crate::checksum::verify_udp`] does that.
    ///
    /// # Errors
    /// [`ParseError::Tcp`]; [`ParseError::Fragment`] for a first fragment without a whole transport header; one variant per
    /// other defect.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let ip = ip::Packet::parse(bytes)?;
        let transport = bytes.get(ip.payload()).ok_or(ParseError::Truncated)?;
        Ok(Self { transport: parse_transport(&ip, transport)?, ip })
    }

    /// Returns addresses and what names the flow between them, see [`Datagram::flow_ports`].
    #[must_use]
    pub const fn tuple(&self) -> Tuple {
        let (src, dst) = self.flow_ports();
        Tuple { src: Endpoint::new(self.ip.src, src), dst: Endpoint::new(self.ip.dst, dst) }
    }

    /// Returns what stands for source and destination port in the name of the flow.
    ///
    /// For ICMP the end that asks has the identifier for a port, the end that is asked `type × 256` of the query; a message
    /// that nothing answers goes from port zero to `type × 256 + code`. Other protocols have none: zero.
    #[must_use]
    pub const fn flow_ports(&self) -> (u16, u16) {
        match &self.transport {
            Transport::Ports(Ports { src, dst, .. }) => (*src, *dst),
            Transport::Icmp(message) => message.flow_ports(),
            Transport::Opaque | Transport::Later => (0, 0),
        }
    }

    /// Returns who can have sent the packet.
    #[must_use]
    pub const fn sender(&self) -> Sender {
        match &self.transport {
            Transport::Icmp(Message { exchange: Exchange::ReplyTo(_), .. }) => Sender::Responder,
            Transport::Icmp(_) => Sender::Initiator,
            Transport::Ports(_) | Transport::Opaque | Transport::Later => Sender::Either,
        }
    }

    /// Returns what a UDP datagram carries; empty for other protocols and for fragments.
    #[must_use]
    pub fn udp_data<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match &self.transport {
            Transport::Ports(ports) if self.is_whole_udp() => {
                bytes.get(ports.data.clone()).unwrap_or_default()
            }
            Transport::Ports(_) | Transport::Icmp(_) | Transport::Opaque | Transport::Later => &[],
        }
    }

    /// Returns whether this is UDP and no fragment.
    #[must_use]
    pub const fn is_whole_udp(&self) -> bool {
        matches!(self.ip.protocol, Protocol::UDP) && self.ip.fragment.is_none()
    }

    /// Returns whether it is a fragment behind the first: it does not say which flow it is of.
    #[must_use]
    pub const fn is_later(&self) -> bool {
        matches!(self.transport, Transport::Later)
    }

    /// Returns whether it goes to a group or to every host of a network (as far as the address tells).
    #[must_use]
    pub fn is_to_group(&self) -> bool {
        match self.ip.dst {
            IpAddr::V4(addr) => addr.is_multicast() || addr.is_broadcast(),
            IpAddr::V6(addr) => addr.is_multicast(),
        }
    }
}

impl Message {
    /// Parses the first bytes of a message of this protocol.
    pub(crate) fn parse(protocol: Protocol, bytes: &[u8]) -> Option<Self> {
        let (&icmp_type, &icmp_code) = (bytes.first()?, bytes.get(1)?);
        let exchange = exchange(protocol, icmp_type);
        let id = match exchange {
            Exchange::Query | Exchange::ReplyTo(_) => be16(bytes, 4)?,
            Exchange::Alone => 0,
        };
        Some(Self { icmp_type, icmp_code, id, exchange })
    }

    pub(crate) const fn flow_ports(self) -> (u16, u16) {
        let asked = u16::from_be_bytes([self.icmp_type, self.icmp_code]);
        match self.exchange {
            Exchange::Query => (self.id, u16::from_be_bytes([self.icmp_type, 0])),
            Exchange::ReplyTo(query) => (u16::from_be_bytes([query, 0]), self.id),
            Exchange::Alone => (0, asked),
        }
    }
}

/// Echo, timestamp, information, address mask and extended echo (RFC 792, RFC 950, RFC 4443, RFC 8335).
const fn exchange(protocol: Protocol, icmp_type: u8) -> Exchange {
    match (protocol, icmp_type) {
        (Protocol::ICMP, 8 | 13 | 15 | 17 | 42) | (Protocol::ICMPV6, 128 | 160) => Exchange::Query,
        (Protocol::ICMP, 0) => Exchange::ReplyTo(8),
        (Protocol::ICMP, 14 | 16 | 18 | 43) | (Protocol::ICMPV6, 129 | 161) => {
            Exchange::ReplyTo(icmp_type.wrapping_sub(1))
        }
        _ => Exchange::Alone,
    }
}

fn parse_transport(ip: &ip::Packet, bytes: &[u8]) -> Result<Transport, ParseError> {
    if ip.protocol == Protocol::TCP {
        return Err(if ip.fragment.is_some() { ParseError::Fragment } else { ParseError::Tcp });
    }
    // Ports behind an extension header that the fragment header precedes could be in any fragment.
    if ip.fragment.is_some() && ip::is_extension_header(ip.protocol) {
        return Err(ParseError::Fragment);
    }
    if ip.fragment.is_some_and(ip::Fragment::is_later) {
        return Ok(Transport::Later);
    }
    let short = if ip.fragment.is_some() { ParseError::Fragment } else { ParseError::Truncated };
    if ip.protocol.has_ports() {
        return parse_ports(ip, bytes, short).map(Transport::Ports);
    }
    if ip.protocol.is_icmp() {
        let foreign = (ip.protocol == Protocol::ICMP) != (ip.family == ip::Family::V4);
        if foreign {
            return Err(ParseError::NotIcmp);
        }
        if bytes.len() < 4 {
            return Err(short);
        }
        return Message::parse(ip.protocol, bytes).map(Transport::Icmp).ok_or(short);
    }
    Ok(Transport::Opaque)
}

fn parse_ports(ip: &ip::Packet, bytes: &[u8], short: ParseError) -> Result<Ports, ParseError> {
    let is_udp = matches!(ip.protocol, Protocol::UDP | Protocol::UDP_LITE);
    let header_len = if is_udp { UDP_HEADER_LEN } else { 12 };
    if bytes.len() < header_len {
        return Err(short);
    }
    let (src, dst) = ports(bytes).ok_or(short)?;
    if dst == 0 || (src == 0 && !is_udp) {
        return Err(ParseError::PortZero);
    }
    let mut data = 0..0;
    if ip.protocol == Protocol::UDP {
        let len = usize::from(be16(bytes, UDP_LENGTH_AT).ok_or(short)?);
        if len < UDP_HEADER_LEN || (ip.fragment.is_none() && len > bytes.len()) {
            return Err(ParseError::UdpLength);
        }
        data = ip.header_len + UDP_HEADER_LEN..ip.header_len + len.min(bytes.len());
    }
    Ok(Ports { src, dst, data })
}

/// Source and destination port of a transport header that begins with them.
pub(crate) fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    Some((be16(bytes, 0)?, be16(bytes, 2)?))
}
