use trireme_identity::Protocol;
use trireme_wire::build::{self, BuildError, TcpSpec};
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::{edit, icmp, ip};

use super::tap::syn_header;
use super::{endpoint, segment, syn_v4, syn_v6};

fn rst_to(packet: &[u8]) -> (u32, u32, Flags) {
    let bytes = build::rst_for(packet).unwrap();
    let reset = Segment::parse(&bytes).unwrap();
    let original = Segment::parse(packet).unwrap();
    assert_eq!(reset.tuple(), original.tuple().reversed());
    assert_eq!(checksum::verify(&bytes, &reset), Checksum::Valid);
    assert_eq!(reset.payload_len(), 0);
    (reset.seq, reset.ack, reset.flags)
}

#[test]
fn reset_takes_its_numbers_from_the_segment() {
    let rst_ack = Flags::RST.union(Flags::ACK);
    let fin = Flags::FIN.union(Flags::ACK);
    let v4 = |flags, payload: &[u8]| segment("10.0.0.1", "10.0.0.2", flags, &[], payload);
    assert_eq!(rst_to(&v4(Flags::SYN, b"")), (0, 1001, rst_ack));
    assert_eq!(rst_to(&syn_v6(&[], b"")), (0, 1001, rst_ack));
    assert_eq!(rst_to(&v4(Flags::SYN, b"data")), (0, 1005, rst_ack));
    assert_eq!(rst_to(&v4(Flags::FIN, b"data")), (0, 1005, rst_ack));
    assert_eq!(rst_to(&v4(Flags::ACK, b"data")), (7000, 0, Flags::RST));
    assert_eq!(rst_to(&v4(Flags::SYN_ACK, b"")), (7000, 0, Flags::RST));
    assert_eq!(rst_to(&v4(fin, b"")), (7000, 0, Flags::RST));
}

#[test]
fn reset_does_not_acknowledge_tap() {
    let payload = syn_header(4).encode(b"tok", b"").unwrap();
    let rst_ack = Flags::RST.union(Flags::ACK);
    assert_eq!(rst_to(&syn_v4(&[], &payload)), (0, 1001, rst_ack));
}

#[test]
fn resets_and_groups_get_no_answer() {
    let refused = Err(BuildError::NotAnswerable);
    let reset = segment("10.0.0.1", "10.0.0.2", Flags::RST, &[], &[]);
    assert_eq!(build::rst_for(&reset), refused);
    for (src, dst) in [
        ("10.0.0.1", "224.0.0.1"),
        ("10.0.0.1", "255.255.255.255"),
        ("0.0.0.0", "10.0.0.2"),
        ("fd00::1", "ff02::1"),
        ("::", "fd00::2"),
    ] {
        let packet = segment(src, dst, Flags::SYN, &[], &[]);
        assert_eq!(build::rst_for(&packet), refused, "{src} {dst}");
        assert_eq!(build::icmp_admin_prohibited(&packet), refused, "{src} {dst}");
    }
}

#[test]
fn prohibition_quotes_a_short_segment_whole() {
    let table = [
        (syn_v4(&[], b"data"), 20, [3, 13], Protocol::ICMP),
        (syn_v6(&[], b"data"), 40, [1, 1], Protocol::ICMPV6),
    ];
    for (original, header_len, start, protocol) in table {
        let bytes = build::icmp_admin_prohibited(&original).unwrap();
        let ip = ip::Packet::parse(&bytes).unwrap();
        assert_eq!((ip.header_len, ip.protocol), (header_len, protocol));
        assert_eq!(bytes[header_len..header_len + 2], start);
        assert_eq!(bytes[header_len + 4..header_len + 8], [0; 4]);
        assert_eq!(bytes[header_len + 8..], original);
        assert!(icmp::verify(&bytes));
        let error = icmp::embedded(&bytes).unwrap();
        let quoted = Segment::parse(&original).unwrap();
        assert_eq!((ip.src, ip.dst), (quoted.ip.dst, quoted.ip.src));
        assert_eq!((error.tuple, error.seq), (quoted.tuple(), Some(1000)));
    }
}

#[test]
fn prohibition_quotes_no_more_than_a_host_must_accept() {
    let v4 = build::icmp_admin_prohibited(&syn_v4(&[], &[1; 1400])).unwrap();
    assert_eq!(v4.len(), 576);
    assert!(icmp::verify(&v4));
    let v6 = build::icmp_admin_prohibited(&syn_v6(&[], &[1; 1400])).unwrap();
    assert_eq!(v6.len(), 1280);
    assert!(icmp::verify(&v6));
}

#[test]
fn impossible_segments_are_not_built() {
    let (src, dst) = (endpoint("10.0.0.1", 1), endpoint("10.0.0.2", 2));
    let good = TcpSpec::new(src, dst, 0, 0, Flags::SYN);
    let table = [
        (TcpSpec { dst: endpoint("fd00::2", 2), ..good }, BuildError::FamilyMismatch),
        (TcpSpec { src: endpoint("10.0.0.1", 0), ..good }, BuildError::PortZero),
        (TcpSpec { dst: endpoint("10.0.0.2", 0), ..good }, BuildError::PortZero),
        (TcpSpec { options: &[1; 41], ..good }, BuildError::Options),
        (TcpSpec { options: &[34, 0], ..good }, BuildError::Options),
        (TcpSpec { payload: &[0; 65_496], ..good }, BuildError::TooLong { len: 65_516 }),
    ];
    for (spec, expected) in table {
        assert_eq!(build::tcp(&spec), Err(expected));
    }
}

#[test]
fn short_options_are_padded_with_the_end_mark() {
    let spec = TcpSpec {
        options: &[34, 2],
        payload: b"p",
        ..TcpSpec::new(endpoint("10.0.0.1", 1), endpoint("10.0.0.2", 2), 0, 0, Flags::SYN)
    };
    let packet = build::tcp(&spec).unwrap();
    let segment = Segment::parse(&packet).unwrap();
    assert_eq!(segment.options(&packet).as_bytes(), [34, 2, 0, 0]);
    assert_eq!(segment.payload(&packet), b"p");
}

#[test]
fn corrupt_packet_is_not_segmented_into_valid_ones() {
    let mut packet = segment("10.0.0.1", "10.0.0.2", Flags::ACK, &[], &[5; 100]);
    packet[60] ^= 1;
    let split = trireme_wire::segment::split;
    assert_eq!(split(&packet, 10), Err(trireme_wire::segment::SplitError::Corrupt));
    packet[60] ^= 1;
    assert_eq!(split(&packet, 0), Err(trireme_wire::segment::SplitError::ZeroSize));
    checksum::make_partial(&mut packet).unwrap();
    assert_eq!(split(&packet, 30).unwrap().len(), 4);
    edit::strip_payload(&mut packet, 0).unwrap();
    assert_eq!(split(&packet, 30).unwrap().len(), 1);
}

#[test]
fn ipv4_identification_advances_over_the_pieces() {
    let mut packet = segment("10.0.0.1", "10.0.0.2", Flags::ACK, &[], &[5; 30]);
    packet[4..6].copy_from_slice(&[0xff, 0xff]);
    checksum::complete(&mut packet).unwrap();
    let pieces = trireme_wire::segment::split(&packet, 10).unwrap();
    let ids: Vec<_> = pieces.iter().map(|piece| [piece[4], piece[5]]).collect();
    assert_eq!(ids, [[0xff, 0xff], [0, 0], [0, 1]]);
}

#[test]
fn a_tcp_header_gets_its_packet_back() {
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let packet = segment(src, dst, Flags::SYN, &[2, 4, 5, 180], b"");
        let parsed = Segment::parse(&packet).unwrap();
        let header = &packet[packet.len() - parsed.header_len..];
        let ends = (parsed.ip.src, parsed.ip.dst);
        let again = build::around_tcp_header(ends, build::DEFAULT_HOP_LIMIT, 0, header).unwrap();
        assert_eq!(again, packet);
        let marked = build::around_tcp_header(ends, 3, 0xb8, header).unwrap();
        let marked = trireme_wire::ip::Packet::parse(&marked).unwrap();
        assert_eq!(marked.hop_limit, 3);
        for wrong in [&header[..19], &[header, &[0]].concat()] {
            assert_eq!(build::around_tcp_header(ends, 3, 0, wrong), Err(BuildError::Options));
        }
    }
}
