//! Reads and builds IP/TCP packets for tests, independently of the wire crate.
//!
//! The code under test must not be its own judge, so the sums, offsets and the
//! four magic bytes are written down here a second time.
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    reason = "offsets are checked when a packet is parsed; a test that builds nonsense fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First four payload bytes of every TAP control segment.
pub const TAP_MAGIC: [u8; 4] = [0x54, 0x41, 0x50, 0x01];
/// Length of the fixed TAP header.
pub const TAP_HEADER_LEN: usize = 80;
/// TCP flag bit FIN.
pub const FIN: u8 = 0x01;
/// TCP flag bit SYN.
pub const SYN: u8 = 0x02;
/// TCP flag bit RST.
pub const RST: u8 = 0x04;
/// TCP flag bit PSH.
pub const PSH: u8 = 0x08;
/// TCP flag bit ACK.
pub const ACK: u8 = 0x10;

const TCP: u8 = 6;

/// What the TCP checksum field of a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sum {
    /// The full checksum, correct.
    Valid,
    /// The pseudo-header sum only, left to a device to complete.
    Partial,
    /// Neither.
    Invalid,
}

/// A TCP segment found in a packet; offsets are decoded once.
#[derive(Clone, Copy, Debug)]
pub struct TcpView<'a> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningful with [`ACK`].
    pub ack: u32,
    /// Flag bits of byte 13.
    pub flags: u8,
    /// Window as written, not scaled.
    pub window: u16,
    /// Offset of the TCP header.
    pub tcp_at: usize,
    /// Bytes behind the TCP header.
    pub payload: &'a [u8],
}

impl<'a> TcpView<'a> {
    /// Finds the TCP segment of an unfragmented packet without IPv6 extension headers.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (src, dst, tcp_at, end) = match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let fragment = be16(packet, 6)? & 0x3fff;
                if header < 20 || fragment != 0 || *packet.get(9)? != TCP {
                    return None;
                }
                let src = Ipv4Addr::from(array::<4>(packet, 12)?);
                let dst = Ipv4Addr::from(array::<4>(packet, 16)?);
                (IpAddr::V4(src), IpAddr::V4(dst), header, usize::from(be16(packet, 2)?))
            }
            6 => {
                if *packet.get(6)? != TCP {
                    return None;
                }
                let src = Ipv6Addr::from(array::<16>(packet, 8)?);
                let dst = Ipv6Addr::from(array::<16>(packet, 24)?);
                (IpAddr::V6(src), IpAddr::V6(dst), 40, 40 + usize::from(be16(packet, 4)?))
            }
            _ => return None,
        };
        if end != packet.len() {
            return None;
        }
        let data = tcp_at + usize::from(packet.get(tcp_at + 12)? >> 4) * 4;
        if data < tcp_at + 20 {
            return None;
        }
        Some(Self {
            src: SocketAddr::new(src, be16(packet, tcp_at)?),
            dst: SocketAddr::new(dst, be16(packet, tcp_at + 2)?),
            seq: u32::from_be_bytes(array(packet, tcp_at + 4)?),
            ack: u32::from_be_bytes(array(packet, tcp_at + 8)?),
            flags: *packet.get(tcp_at + 13)?,
            window: be16(packet, tcp_at + 14)?,
            tcp_at,
            payload: packet.get(data..end)?,
        })
    }

    /// Whether every bit of `mask` is set.
    #[must_use]
    pub const fn has(&self, mask: u8) -> bool {
        self.flags & mask == mask
    }

    /// The TAP kind when the payload starts with the magic.
    #[must_use]
    pub fn tap_kind(&self) -> Option<u8> {
        let payload = self.payload;
        (payload.len() >= TAP_HEADER_LEN && payload.starts_with(&TAP_MAGIC)).then(|| payload[4])
    }
}

/// Source and destination address of a packet of either family.
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => Some((
            Ipv4Addr::from(array::<4>(packet, 12)?).into(),
            Ipv4Addr::from(array::<4>(packet, 16)?).into(),
        )),
        6 => Some((
            Ipv6Addr::from(array::<16>(packet, 8)?).into(),
            Ipv6Addr::from(array::<16>(packet, 24)?).into(),
        )),
        _ => None,
    }
}

/// Whether the IPv4 header sum is right; IPv6 has none.
#[must_use]
pub fn ip_header_valid(packet: &[u8]) -> bool {
    match packet.first().map(|first| (first >> 4, usize::from(first & 0x0f) * 4)) {
        Some((4, len)) => packet.get(..len).is_some_and(|header| len >= 20 && fold(sum(header)) == 0xffff),
        Some((6, _)) => packet.len() >= 40,
        _ => false,
    }
}

/// State of the TCP checksum; `None` when the packet is not TCP.
#[must_use]
pub fn tcp_sum(packet: &[u8]) -> Option<Sum> {
    let view = TcpView::parse(packet)?;
    let segment = packet.get(view.tcp_at..)?;
    let pseudo = pseudo_sum(&view, segment.len());
    if fold(pseudo + sum(segment)) == 0xffff {
        return Some(Sum::Valid);
    }
    let field = be16(packet, view.tcp_at + 16)?;
    Some(if field == fold(pseudo) { Sum::Partial } else { Sum::Invalid })
}

/// Writes full IPv4 and TCP checksums.
pub fn complete_sums(packet: &mut [u8]) {
    write_tcp_sum(packet, Sum::Valid);
    write_ip_sum(packet);
}

/// Leaves only the pseudo-header sum, as a sender with checksum offload does.
pub fn make_partial(packet: &mut [u8]) {
    write_tcp_sum(packet, Sum::Partial);
}

/// Writes the IPv4 header checksum; does nothing for IPv6.
pub fn write_ip_sum(packet: &mut [u8]) {
    let Some(first) = packet.first().filter(|first| *first >> 4 == 4) else { return };
    let len = usize::from(first & 0x0f) * 4;
    if packet.len() < len || len < 20 {
        return;
    }
    packet[10..12].fill(0);
    let value = !fold(sum(&packet[..len]));
    packet[10..12].copy_from_slice(&value.to_be_bytes());
}

fn write_tcp_sum(packet: &mut [u8], kind: Sum) {
    let Some(view) = TcpView::parse(packet) else { return };
    let at = view.tcp_at;
    let pseudo = pseudo_sum(&view, packet.len() - at);
    packet[at + 16..at + 18].fill(0);
    let value = match kind {
        Sum::Partial => fold(pseudo),
        Sum::Valid | Sum::Invalid => !fold(pseudo + sum(&packet[at..])),
    };
    packet[at + 16..at + 18].copy_from_slice(&value.to_be_bytes());
}

/// Replaces source and destination, as a translating router does, and fixes both sums.
pub fn rewrite(packet: &mut [u8], src: SocketAddr, dst: SocketAddr) {
    let Some(at) = TcpView::parse(packet).map(|view| view.tcp_at) else { return };
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet[12..16].copy_from_slice(&src.octets());
            packet[16..20].copy_from_slice(&dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            packet[8..24].copy_from_slice(&src.octets());
            packet[24..40].copy_from_slice(&dst.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return,
    }
    packet[at..at + 2].copy_from_slice(&src.port().to_be_bytes());
    packet[at + 2..at + 4].copy_from_slice(&dst.port().to_be_bytes());
    complete_sums(packet);
}

/// A TCP segment to build; every field has a plain default.
#[derive(Clone, Debug)]
pub struct TcpPacket {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port, of the same family.
    pub dst: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flag bits.
    pub flags: u8,
    /// Window field.
    pub window: u16,
    /// TCP options, padded to four bytes when built.
    pub options: Vec<u8>,
    /// Bytes behind the TCP header.
    pub payload: Vec<u8>,
}

impl TcpPacket {
    /// A bare SYN from `src` to `dst` with sequence number `seq`.
    #[must_use]
    pub const fn syn(src: SocketAddr, dst: SocketAddr, seq: u32) -> Self {
        Self { src, dst, seq, ack: 0, flags: SYN, window: 64240, options: Vec::new(), payload: Vec::new() }
    }

    /// The packet from its IP header on, with full checksums.
    ///
    /// # Panics
    /// If the two addresses are not of one family, or options or payload exceed their length fields.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let tcp_len = 20 + options.len() + self.payload.len();
        let tcp_field = u16::try_from(tcp_len).expect("a segment fits a packet");
        let mut packet = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = vec![0x45, 0];
                header.extend_from_slice(&(tcp_field + 20).to_be_bytes());
                header.extend_from_slice(&[0, 0, 0x40, 0, 64, TCP, 0, 0]);
                header.extend_from_slice(&src.octets());
                header.extend_from_slice(&dst.octets());
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend_from_slice(&tcp_field.to_be_bytes());
                header.extend_from_slice(&[TCP, 64]);
                header.extend_from_slice(&src.octets());
                header.extend_from_slice(&dst.octets());
                header
            }
            (src, dst) => panic!("{src} and {dst} are of different families"),
        };
        packet.extend_from_slice(&self.src.port().to_be_bytes());
        packet.extend_from_slice(&self.dst.port().to_be_bytes());
        packet.extend_from_slice(&self.seq.to_be_bytes());
        packet.extend_from_slice(&self.ack.to_be_bytes());
        let words = u8::try_from((20 + options.len()) / 4).expect("options fit a header");
        packet.extend_from_slice(&[words << 4, self.flags]);
        packet.extend_from_slice(&self.window.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&options);
        packet.extend_from_slice(&self.payload);
        complete_sums(&mut packet);
        packet
    }
}

fn pseudo_sum(view: &TcpView<'_>, tcp_len: usize) -> u64 {
    let addresses = match (view.src.ip(), view.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    addresses + u64::from(TCP) + tcp_len as u64
}

fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 = 0;
    for word in &mut words {
        total += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut tail = [0; 4];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    total + u64::from(u32::from_be_bytes(tail))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or(u16::MAX)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(src: &str, dst: &str) -> Vec<u8> {
        TcpPacket {
            flags: PSH | ACK,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: b"odd".to_vec(),
            ..TcpPacket::syn(src.parse().unwrap(), dst.parse().unwrap(), 7)
        }
        .build()
    }

    #[test]
    fn a_built_segment_reads_back() {
        for (src, dst) in [("10.0.0.1:1000", "10.0.0.2:80"), ("[fd00::1]:1000", "[fd00::2]:80")] {
            let packet = example(src, dst);
            let view = TcpView::parse(&packet).unwrap();
            assert_eq!((view.src, view.dst), (src.parse().unwrap(), dst.parse().unwrap()));
            assert_eq!((view.seq, view.flags, view.payload), (7, PSH | ACK, &b"odd"[..]));
            assert!(ip_header_valid(&packet));
            assert_eq!(tcp_sum(&packet), Some(Sum::Valid));
        }
    }

    #[test]
    fn every_flipped_tcp_bit_makes_the_sum_invalid_or_the_packet_unreadable() {
        let packet = example("10.0.0.1:1000", "10.0.0.2:80");
        for bit in 20 * 8..packet.len() * 8 {
            let mut broken = packet.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(tcp_sum(&broken), None | Some(Sum::Invalid)), "bit {bit}");
        }
    }

    #[test]
    fn partial_sums_are_told_from_full_ones_and_can_be_completed() {
        let mut packet = example("[fd00::1]:1000", "[fd00::2]:80");
        make_partial(&mut packet);
        assert_eq!(tcp_sum(&packet), Some(Sum::Partial));
        complete_sums(&mut packet);
        assert_eq!(packet, example("[fd00::1]:1000", "[fd00::2]:80"));
    }

    #[test]
    fn rewriting_addresses_keeps_the_sums_valid() {
        let mut packet = example("10.0.0.1:1000", "10.0.0.2:80");
        rewrite(&mut packet, "10.9.0.1:2000".parse().unwrap(), "10.0.0.3:8080".parse().unwrap());
        assert_eq!(packet, example_with_ports());
    }

    fn example_with_ports() -> Vec<u8> {
        example("10.9.0.1:2000", "10.0.0.3:8080")
    }
}
