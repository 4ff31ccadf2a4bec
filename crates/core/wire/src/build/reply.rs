use std::net::IpAddr;

use trireme_identity::Protocol;

use super::{BuildError, DEFAULT_HOP_LIMIT, TcpSpec, header, tcp};
use crate::ParseError;
use crate::bytes::put;
use crate::checksum::{Sum, pseudo_header};
use crate::datagram::{Datagram, Transport};
use crate::icmp;
use crate::ip::{self, Family};
use crate::tap;
use crate::tcp::{Flags, Segment};

/// Builds the reset that answers a segment, as a closed port would send it.
///
/// With ACK, the reset takes the acknowledged number as its sequence; without, it acknowledges
/// the sequence space of the segment. A TAP payload of a SYN is not part of the stream and is
/// not acknowledged: the sender's stack knows nothing of it.
///
/// Source: RFC 9293 section 3.5.2, group 1.
///
/// # Errors
/// [`BuildError::NotAnswerable`] if the segment is itself a reset or its addresses are no hosts.
pub fn rst_for(original: &[u8]) -> Result<Vec<u8>, BuildError> {
    let segment = answerable(original)?;
    if segment.flags.contains(Flags::RST) {
        return Err(BuildError::NotAnswerable);
    }
    let (src, dst) = (segment.tuple().dst, segment.tuple().src);
    if segment.flags.contains(Flags::ACK) {
        return tcp(&TcpSpec::new(src, dst, segment.ack, 0, Flags::RST));
    }
    let len = if tap::Header::parse(segment.payload(original)).is_ok() {
        u32::from(segment.flags.contains(Flags::SYN)) + u32::from(segment.flags.contains(Flags::FIN))
    } else {
        segment.sequence_len()
    };
    let ack = segment.seq.wrapping_add(len);
    let flags = Flags::RST.union(Flags::ACK);
    tcp(&TcpSpec::new(src, dst, 0, ack, flags))
}

/// What an ICMP error says about a packet that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Communication is administratively prohibited.
    Prohibited,
    /// Nobody listens at the port.
    Port,
}

/// Builds the ICMP error "administratively prohibited" that answers a packet.
///
/// # Errors
/// As [`icmp_unreachable`].
pub fn icmp_admin_prohibited(original: &[u8]) -> Result<Vec<u8>, BuildError> {
    icmp_unreachable(original, Unreachable::Prohibited)
}

/// Builds the ICMP error that answers a packet.
///
/// It comes from the packet's destination and quotes as much of the packet as the RFCs ask:
/// 576 bytes in all for IPv4 (codes 13 and 3), 1280 for IPv6 (codes 1 and 4).
///
/// Source: RFC 1812 sections 4.3.2.3, 4.3.2.7 and 5.2.7.1; RFC 4443 sections 2.4 and 3.1.
///
/// # Errors
/// [`BuildError::NotAnswerable`] if the addresses are no hosts, for ICMP errors and for later fragments.
pub fn icmp_unreachable(original: &[u8], why: Unreachable) -> Result<Vec<u8>, BuildError> {
    let ip = quotable(original)?;
    let (start, protocol, limit) = match (ip.family, why) {
        (Family::V4, Unreachable::Prohibited) => ([icmp::v4::UNREACHABLE, 13], Protocol::ICMP, 576 - 20),
        (Family::V4, Unreachable::Port) => ([icmp::v4::UNREACHABLE, 3], Protocol::ICMP, 576 - 20),
        (Family::V6, Unreachable::Prohibited) => ([icmp::v6::UNREACHABLE, 1], Protocol::ICMPV6, 1280 - 40),
        (Family::V6, Unreachable::Port) => ([icmp::v6::UNREACHABLE, 4], Protocol::ICMPV6, 1280 - 40),
    };
    let quote = original.get(..original.len().min(limit - icmp::HEADER_LEN)).unwrap_or(original);
    let len = icmp::HEADER_LEN + quote.len();
    let mut packet = header(ip.dst, ip.src, protocol, DEFAULT_HOP_LIMIT.into(), len)?;
    let at = packet.len();
    packet.extend_from_slice(&start);
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(quote);

    let pseudo = match ip.family {
        Family::V4 => Sum::default(),
        Family::V6 => pseudo_header(ip.dst, ip.src, protocol, len),
    };
    let sum = pseudo.with(packet.get(at..).unwrap_or_default());
    put(&mut packet, at + 2, &(!sum.fold()).to_be_bytes()).ok_or(BuildError::TooLong { len })?;
    Ok(packet)
}

fn answerable(original: &[u8]) -> Result<Segment, BuildError> {
    let segment = Segment::parse(original).map_err(BuildError::Original)?;
    if !is_host(segment.ip.src) || !is_host(segment.ip.dst) {
        return Err(BuildError::NotAnswerable);
    }
    Ok(segment)
}

/// A packet that an ICMP error may be about (RFC 1122, section 3.2.2).
fn quotable(original: &[u8]) -> Result<ip::Packet, BuildError> {
    let ip = match Datagram::parse(original) {
        Err(ParseError::Tcp) => return answerable(original).map(|segment| segment.ip),
        Err(error) => return Err(BuildError::Original(error)),
        Ok(Datagram { transport: Transport::Later, .. }) => return Err(BuildError::NotAnswerable),
        Ok(Datagram { ip, transport: Transport::Icmp(message) })
            if icmp::is_error(ip.family, message.icmp_type) =>
        {
            return Err(BuildError::NotAnswerable);
        }
        Ok(Datagram { ip, .. }) => ip,
    };
    if is_host(ip.src) && is_host(ip.dst) { Ok(ip) } else { Err(BuildError::NotAnswerable) }
}

fn is_host(addr: IpAddr) -> bool {
    let broadcast = match addr {
        IpAddr::V4(addr) => addr.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    !broadcast && !addr.is_multicast() && !addr.is_unspecified()
}
