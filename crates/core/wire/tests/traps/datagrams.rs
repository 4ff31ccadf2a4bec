use trireme_identity::Protocol;
use trireme_wire::ParseError;
use trireme_wire::build::{self, BuildError, DEFAULT_HOP_LIMIT, Unreachable};
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::{Datagram, Exchange, Message, Sender, Transport};
use trireme_wire::icmp;

use super::{endpoint, syn_v4, with_extension};

fn udp(src: &str, dst: &str, data: &[u8]) -> Vec<u8> {
    build::udp(endpoint(src, 5353), endpoint(dst, 53), DEFAULT_HOP_LIMIT, data).unwrap()
}

fn udp_v4(data: &[u8]) -> Vec<u8> {
    udp("10.0.0.1", "10.0.0.2", data)
}

fn udp_v6(data: &[u8]) -> Vec<u8> {
    udp("fd00::1", "fd00::2", data)
}

/// A packet of this protocol with these bytes behind the IP header.
fn raw(protocol: Protocol, is_v6: bool, transport: &[u8]) -> Vec<u8> {
    let mut packet = if is_v6 { udp_v6(&[]) } else { udp_v4(&[]) };
    let (header_len, protocol_at) = if is_v6 { (40, 6) } else { (20, 9) };
    packet.truncate(header_len);
    packet[protocol_at] = protocol.0;
    packet.extend_from_slice(transport);
    let len = u16::try_from(if is_v6 { transport.len() } else { packet.len() }).unwrap();
    let at = if is_v6 { 4 } else { 2 };
    packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
    packet
}

fn patched(mut packet: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    packet[at..at + value.len()].copy_from_slice(value);
    packet
}

#[test]
fn a_datagram_has_ports_and_data() {
    for packet in [udp_v4(b"query"), udp_v6(b"query")] {
        let datagram = Datagram::parse(&packet).unwrap();
        assert_eq!((datagram.flow_ports(), datagram.sender()), ((5353, 53), Sender::Either));
        assert_eq!(datagram.udp_data(&packet), b"query");
        assert_eq!(checksum::verify_udp(&packet, &datagram), Checksum::Valid);
        for end in 0..packet.len() {
            assert!(Datagram::parse(&packet[..end]).is_err(), "{end}");
        }
    }
}

#[test]
fn every_defect_of_a_datagram_has_its_own_name() {
    let sctp = |bytes: &[u8]| raw(Protocol::SCTP, false, bytes);
    let table = [
        ("TCP", syn_v4(&[], &[]), ParseError::Tcp),
        ("fragment of TCP", patched(syn_v4(&[], &[]), 6, &[0x20, 0]), ParseError::Fragment),
        ("later fragment of TCP", patched(syn_v4(&[], &[]), 6, &[0, 9]), ParseError::Fragment),
        ("UDP header cut", raw(Protocol::UDP, false, &[0; 7]), ParseError::Truncated),
        ("no UDP port", patched(udp_v4(b"x"), 22, &[0, 0]), ParseError::PortZero),
        ("UDP length below header", patched(udp_v4(b"x"), 24, &[0, 7]), ParseError::UdpLength),
        ("UDP length too long", patched(udp_v4(b"x"), 24, &[0, 10]), ParseError::UdpLength),
        (
            "first fragment without ports",
            { patched(raw(Protocol::UDP, false, &[0; 7]), 6, &[0x20, 0]) },
            ParseError::Fragment,
        ),
        ("SCTP header cut", sctp(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]), ParseError::Truncated),
        ("SCTP source port zero", sctp(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), ParseError::PortZero),
        ("ICMP cut", raw(Protocol::ICMP, false, &[8, 0, 0]), ParseError::Truncated),
        ("echo without identifier", raw(Protocol::ICMP, false, &[8, 0, 0, 0, 1]), ParseError::Truncated),
        ("ICMPv6 over IPv4", raw(Protocol::ICMPV6, false, &[128; 8]), ParseError::NotIcmp),
        ("ICMP over IPv6", raw(Protocol::ICMP, true, &[8; 8]), ParseError::NotIcmp),
        (
            "options behind the fragment header",
            { with_extension(44, &[60, 0, 0, 1, 0, 0, 0, 1]) },
            ParseError::Fragment,
        ),
    ];
    for (name, packet, expected) in table {
        assert_eq!(Datagram::parse(&packet), Err(expected), "{name}");
    }
}

#[test]
fn bytes_behind_the_udp_length_are_no_data() {
    let packet = patched(udp_v4(b"query"), 24, &[0, 10]);
    assert_eq!(Datagram::parse(&packet).unwrap().udp_data(&packet), b"qu");
}

#[test]
fn query_and_reply_are_one_flow_and_another_query_is_not() {
    let ports = |protocol, is_v6, bytes: &[u8]| {
        let datagram = Datagram::parse(&raw(protocol, is_v6, bytes)).unwrap();
        (datagram.flow_ports(), datagram.sender())
    };
    let echo = |icmp_type| [icmp_type, 0, 0, 0, 0x12, 0x34, 0, 1];
    assert_eq!(ports(Protocol::ICMP, false, &echo(8)), ((0x1234, 0x0800), Sender::Initiator));
    assert_eq!(ports(Protocol::ICMP, false, &echo(0)), ((0x0800, 0x1234), Sender::Responder));
    assert_eq!(ports(Protocol::ICMPV6, true, &echo(128)), ((0x1234, 0x8000), Sender::Initiator));
    assert_eq!(ports(Protocol::ICMPV6, true, &echo(129)), ((0x8000, 0x1234), Sender::Responder));
    assert_eq!(ports(Protocol::ICMP, false, &echo(13)), ((0x1234, 0x0d00), Sender::Initiator));
    assert_eq!(ports(Protocol::ICMP, false, &echo(14)), ((0x0d00, 0x1234), Sender::Responder));
    assert_eq!(ports(Protocol::ICMP, false, &[5, 1, 0, 0]), ((0, 0x0501), Sender::Initiator));
    assert_eq!(ports(Protocol(47), false, &[]), ((0, 0), Sender::Either));
    let lite = [0, 7, 0, 9, 0, 8, 0, 0];
    assert_eq!(ports(Protocol::UDP_LITE, false, &lite), ((7, 9), Sender::Either));
}

#[test]
fn fragments_say_whether_the_ports_are_in_them() {
    let first = patched(udp_v4(&[7; 100]), 4, &[0xab, 0xcd, 0x20, 0]);
    let datagram = Datagram::parse(&first).unwrap();
    assert_eq!((datagram.flow_ports(), datagram.ip.fragment.unwrap().id), ((5353, 53), 0xabcd));
    assert_eq!(datagram.udp_data(&first), b"", "nothing to read in a part");
    assert_eq!(checksum::verify_udp(&first, &datagram), Checksum::Invalid);
    let longer = patched(first, 24, &[0xff, 0xff]);
    assert!(Datagram::parse(&longer).is_ok(), "the length is that of the whole");
    let later = patched(udp_v4(&[7; 100]), 4, &[0xab, 0xcd, 0, 9]);
    assert_eq!(Datagram::parse(&later).unwrap().transport, Transport::Later);
}

#[test]
fn an_absent_checksum_is_right_over_ipv4_only() {
    let verify = |packet: &[u8]| checksum::verify_udp(packet, &Datagram::parse(packet).unwrap());
    assert_eq!(verify(&patched(udp_v4(b"x"), 26, &[0, 0])), Checksum::Valid);
    assert_eq!(verify(&patched(udp_v6(b"x"), 46, &[0, 0])), Checksum::Invalid);
    assert_eq!(verify(&patched(udp_v4(b"x"), 28, b"y")), Checksum::Invalid);
    assert_eq!(verify(&patched(udp_v4(b"x"), 10, &[0, 0])), Checksum::Invalid);
    // 10.0.0.1 + 10.0.0.2 + 17 + 9
    assert_eq!(verify(&patched(udp_v4(b"x"), 26, &[0x14, 0x1d])), Checksum::Partial);
}

#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    let found = (0..=u16::MAX).find(|word| udp_v4(&word.to_be_bytes())[26..28] == [0xff, 0xff]).unwrap();
    let packet = udp_v4(&found.to_be_bytes());
    assert_eq!(checksum::verify_udp(&packet, &Datagram::parse(&packet).unwrap()), Checksum::Valid);
}

#[test]
fn impossible_datagrams_are_not_built() {
    let build = |dst, data: &[u8]| build::udp(endpoint("10.0.0.1", 0), dst, 64, data);
    assert_eq!(build(endpoint("10.0.0.2", 0), b""), Err(BuildError::PortZero));
    assert_eq!(build(endpoint("fd00::2", 1), b""), Err(BuildError::FamilyMismatch));
    assert_eq!(build(endpoint("10.0.0.2", 1), &[0; 65_507]).map(|packet| packet.len()), Ok(65_535));
    assert!(matches!(build(endpoint("10.0.0.2", 1), &[0; 65_508]), Err(BuildError::TooLong { .. })));
}

#[test]
fn errors_about_every_protocol_name_the_flow() {
    let echo = raw(Protocol::ICMP, false, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
    let sctp = raw(Protocol::SCTP, false, &[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    let table = [
        (udp_v4(b"query"), (5353, 53)),
        (udp_v6(b"query"), (5353, 53)),
        (echo, (0x1234, 0x0800)),
        (sctp, (1, 2)),
        (raw(Protocol(47), false, &[0; 8]), (0, 0)),
    ];
    for (packet, ports) in table {
        for why in [Unreachable::Prohibited, Unreachable::Port] {
            let error = build::icmp_unreachable(&packet, why).unwrap();
            let found = icmp::embedded(&error).unwrap();
            assert_eq!((found.tuple.src.port, found.tuple.dst.port, found.seq), (ports.0, ports.1, None));
            assert_eq!(found.tuple.src.addr, Datagram::parse(&packet).unwrap().ip.src);
            assert!(icmp::verify(&error));
            let mut cut = error.clone();
            assert_eq!(icmp::cut_embedded_payload(&mut cut), Ok(false));
            let answered = build::icmp_unreachable(&error, why);
            assert_eq!(answered, Err(BuildError::NotAnswerable), "no error is about an error");
        }
    }
    let later = patched(udp_v4(&[7; 100]), 4, &[0xab, 0xcd, 0, 9]);
    assert_eq!(build::icmp_unreachable(&later, Unreachable::Port), Err(BuildError::NotAnswerable));
}

#[test]
fn a_message_knows_its_place_in_an_exchange() {
    let packet = raw(Protocol::ICMP, false, &[0, 0, 0, 0, 0, 9]);
    let Transport::Icmp(message) = Datagram::parse(&packet).unwrap().transport else {
        unreachable!("it is ICMP")
    };
    let expected = Message { icmp_type: 0, icmp_code: 0, id: 9, exchange: Exchange::ReplyTo(8) };
    assert_eq!(message, expected);
}
