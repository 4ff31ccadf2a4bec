//! Packets without options, made by hand.

use std::net::{IpAddr, SocketAddr};

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK_PUSH: u8 = 0x18;

const TCP: u8 = 6;
const UDP: u8 = 17;

pub(crate) fn udp(from: SocketAddr, to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend(u16::try_from(8 + text.len()).unwrap().to_be_bytes());
    segment.extend([0; 2]);
    segment.extend(text);
    packet(from.ip(), to.ip(), UDP, &segment)
}

pub(crate) fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    (seq, ack): (u32, u32),
    flags: u8,
    text: &[u8],
) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(text);
    packet(from.ip(), to.ip(), TCP, &segment)
}

/// The packet with the checksum of what it carries computed anew (RFC 768, RFC 9293, RFC 8200 section 8.1).
pub(crate) fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let four = packet.first().unwrap() >> 4 == 4;
    let (addresses, protocol, start) = if four { (12..20, 9, 20) } else { (8..40, 6, 40) };
    let protocol = *packet.get(protocol).unwrap();
    let place = start + if protocol == TCP { 16 } else { 6 };
    packet.get_mut(place..place + 2).unwrap().fill(0);
    let segment = packet.get(start..).unwrap();
    let pseudo = segment.len() + usize::from(protocol) + sum(packet.get(addresses).unwrap());
    let checksum = !folded(pseudo + sum(segment));
    packet.get_mut(place..place + 2).unwrap().copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Sum of 16-bit words, all ones over a header whose checksum is right (RFC 1071).
pub(crate) fn folded_sum(bytes: &[u8]) -> u16 {
    folded(sum(bytes))
}

fn ports(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

/// Fragments are forbidden; what the kernel fills in is 0.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
            let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (from, to) => panic!("{from} and {to} are of two families"),
    };
    packet.extend(segment);
    with_checksum(packet)
}

fn sum(bytes: &[u8]) -> usize {
    bytes
        .chunks(2)
        .map(|word| {
            usize::from(u16::from_be_bytes([*word.first().unwrap(), word.get(1).copied().unwrap_or(0)]))
        })
        .sum()
}

fn folded(sum: usize) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    u16::try_from((once & 0xffff) + (once >> 16)).unwrap()
}
