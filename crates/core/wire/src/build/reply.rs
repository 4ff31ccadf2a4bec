use std::net::IpAddr;

use trireme_identity::Protocol;

use super::{BuildError, DEFAULT_HOP_LIMIT, TcpSpec, header, tcp};
use crate::bytes::put;
use crate::checksum::{Sum, pseudo_header};
use crate::icmp;
use crate::ip::Family;
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

/// Builds the ICMP error "administratively prohibited" that answers a segment.
///
/// It comes from the segment's destination and quotes as much of the segment as the RFCs ask:
/// 576 bytes in all for IPv4 (code 13), 1280 for IPv6 (code 1).
///
/// Source: RFC 1812 sections 4.3.2.3 and 5.2.7.1; RFC 4443 sections 2.4 and 3.1.
///
/// # Errors
/// [`BuildError::NotAnswerable`] if the addresses are no hosts.
pub fn icmp_admin_prohibited(original: &[u8]) -> Result<Vec<u8>, BuildError> {
    let ip = answerable(original)?.ip;
    let (start, protocol, limit) = match ip.family {
        Family::V4 => ([icmp::v4::UNREACHABLE, 13], Protocol::ICMP, 576 - 20),
        Family::V6 => ([icmp::v6::UNREACHABLE, 1], Protocol::ICMPV6, 1280 - 40),
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

fn is_host(addr: IpAddr) -> bool {
    let broadcast = match addr {
        IpAddr::V4(addr) => addr.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    !broadcast && !addr.is_multicast() && !addr.is_unspecified()
}
