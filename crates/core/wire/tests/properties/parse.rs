use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use trireme_wire::ParseError;
use trireme_wire::build::Unreachable;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::Datagram;
use trireme_wire::ip;
use trireme_wire::tcp::Segment;
use trireme_wire::tuple::Endpoint;
use trireme_wire::{build, icmp, segment, tap};

use crate::generate::{naive_pseudo_header, naive_sum, packet};

proptest! {
    #[test]
    fn an_independent_parser_agrees(sample in packet()) {
        let segment = Segment::parse(&sample.bytes).unwrap();
        prop_assert_eq!(segment.ip.header_len, sample.ip_header_len);
        prop_assert_eq!(segment.header_len, sample.tcp_header_len);
        prop_assert_eq!(segment.payload(&sample.bytes), sample.payload());
        prop_assert_eq!(segment.ip.family.version(), sample.version);

        let other = SlicedPacket::from_ip(&sample.bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = other.transport else {
            return Err(TestCaseError::fail("etherparse found no TCP"));
        };
        prop_assert_eq!(segment.src_port, tcp.source_port());
        prop_assert_eq!(segment.dst_port, tcp.destination_port());
        prop_assert_eq!(segment.seq, tcp.sequence_number());
        prop_assert_eq!(segment.ack, tcp.acknowledgment_number());
        prop_assert_eq!(segment.window, tcp.window_size());
        prop_assert_eq!(segment.header_len, tcp.header_len());
        prop_assert_eq!(segment.flags.0, tcp.slice()[13]);
        prop_assert_eq!(segment.payload(&sample.bytes), tcp.payload());
        prop_assert_eq!(segment.options(&sample.bytes).as_bytes(), tcp.options());
        let right = match other.net.unwrap() {
            NetSlice::Ipv4(v4) => {
                let header = v4.header();
                prop_assert_eq!(segment.ip.src, header.source_addr());
                prop_assert_eq!(segment.ip.dst, header.destination_addr());
                prop_assert_eq!(segment.ip.hop_limit, header.ttl());
                tcp.calc_checksum_ipv4(header.source(), header.destination()).unwrap()
            }
            NetSlice::Ipv6(v6) => {
                let header = v6.header();
                prop_assert_eq!(segment.ip.src, header.source_addr());
                prop_assert_eq!(segment.ip.dst, header.destination_addr());
                prop_assert_eq!(segment.ip.hop_limit, header.hop_limit());
                tcp.calc_checksum_ipv6(header.source(), header.destination()).unwrap()
            }
            NetSlice::Arp(_) => return Err(TestCaseError::fail("etherparse found ARP")),
        };
        if right == tcp.checksum() {
            prop_assert_eq!(checksum::verify(&sample.bytes, &segment), Checksum::Valid);
        } else {
            prop_assert!(sample.partial);
            prop_assert_eq!(checksum::verify(&sample.bytes, &segment), Checksum::Partial);
        }
        let mut completed = sample.bytes.clone();
        checksum::complete(&mut completed).unwrap();
        let at = sample.ip_header_len + 16;
        prop_assert_eq!(&completed[at..at + 2], &right.to_be_bytes());
    }

    #[test]
    fn a_packet_cut_anywhere_is_no_packet(sample in packet()) {
        for end in 0..sample.bytes.len() {
            let cut = &sample.bytes[..end];
            prop_assert_eq!(Segment::parse(cut), Err(ParseError::Truncated));
            prop_assert_eq!(ip::Packet::parse(cut), Err(ParseError::Truncated));
        }
    }

    #[test]
    fn padding_behind_a_packet_is_found_and_trimmed(sample in packet(), padding in 1_usize..50) {
        let mut padded = sample.bytes.clone();
        padded.resize(sample.bytes.len() + padding, 0);
        prop_assert_eq!(Segment::parse(&padded), Err(ParseError::TrailingBytes));
        prop_assert_eq!(ip::trim(&mut padded), Ok(padding));
        prop_assert_eq!(padded, sample.bytes);
    }

    #[test]
    fn a_partial_checksum_is_the_pseudo_header_sum(sample in packet()) {
        let mut bytes = sample.bytes.clone();
        checksum::make_partial(&mut bytes).unwrap();
        let at = sample.ip_header_len + 16;
        let pseudo = naive_sum(&naive_pseudo_header(&bytes, sample.ip_header_len));
        prop_assert_eq!(&bytes[at..at + 2], &pseudo.to_be_bytes());
    }

    #[test]
    fn a_flipped_bit_is_noticed(sample in packet(), at in any::<prop::sample::Index>(), bit in 0..8) {
        prop_assume!(!sample.partial);
        let mut bytes = sample.bytes.clone();
        bytes[at.index(sample.bytes.len())] ^= 1_u8 << bit;
        if let Ok(segment) = Segment::parse(&bytes)
            && segment.ip.header_len == sample.ip_header_len
            && bytes[sample.ip_header_len..] != sample.bytes[sample.ip_header_len..]
        {
            prop_assert_ne!(checksum::verify(&bytes, &segment), Checksum::Valid);
        }
    }

    #[test]
    fn a_datagram_is_what_it_was_built_from(
        ports in (any::<u16>(), 1_u16..),
        data in prop::collection::vec(any::<u8>(), 0..1400),
        is_v6 in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let ends = if is_v6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let [from, to] = ends.map(|addr| addr.parse().unwrap());
        let (from, to) = (Endpoint::new(from, ports.0), Endpoint::new(to, ports.1));
        let bytes = build::udp(from, to, 9, &data).unwrap();
        let datagram = Datagram::parse(&bytes).unwrap();
        prop_assert_eq!((datagram.tuple().src, datagram.tuple().dst), (from, to));
        prop_assert_eq!(datagram.udp_data(&bytes), &data[..]);
        prop_assert_eq!(checksum::verify_udp(&bytes, &datagram), Checksum::Valid);
        prop_assert!(Datagram::parse(&bytes[..cut.index(bytes.len())]).is_err());
        // Behind the UDP length a changed bit is a changed checksum; an absent one over IPv4 covers nothing.
        let header_len = datagram.ip.header_len;
        let at = header_len + 8 + cut.index(data.len() + 1);
        if at < bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1_u8 << bit;
            prop_assert_ne!(checksum::verify_udp(&bent, &Datagram::parse(&bent).unwrap()), Checksum::Valid);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
        if let Some(first) = bytes.first_mut() {
            *first = if version { 0x45 } else { 0x60 };
        }
        let results = (
            Segment::parse(&bytes).is_ok(),
            Datagram::parse(&bytes).is_ok(),
            build::icmp_unreachable(&bytes, Unreachable::Port).is_ok(),
            ip::Packet::parse_quoted(&bytes).is_ok(),
            icmp::embedded(&bytes).is_some(),
            icmp::cut_embedded_payload(&mut bytes).is_ok(),
            build::rst_for(&bytes).is_ok(),
            build::icmp_admin_prohibited(&bytes).is_ok(),
            segment::split(&bytes, 7).is_ok(),
            tap::Header::parse(&bytes).is_ok(),
        );
        std::hint::black_box(results);
    }
}
