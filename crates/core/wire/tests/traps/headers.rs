use trireme_identity::Protocol;
use trireme_wire::ParseError;
use trireme_wire::ip::{self, Fragment, Packet};
use trireme_wire::tcp::Segment;

use super::{syn_v4, syn_v6, with_extension, with_ip_extra};

fn patched(mut packet: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    packet[at..at + value.len()].copy_from_slice(value);
    packet
}

#[test]
fn every_defect_of_a_header_has_its_own_name() {
    let v4 = || syn_v4(&[], b"data");
    let v6 = || syn_v6(&[], b"data");
    let table: [(&str, Vec<u8>, ParseError); 27] = [
        ("empty", vec![], ParseError::Truncated),
        ("IP version 5", patched(v4(), 0, &[0x55]), ParseError::Version),
        ("IP version 0", patched(v4(), 0, &[0x05]), ParseError::Version),
        ("IPv4 header of 16 bytes", patched(v4(), 0, &[0x44]), ParseError::HeaderLength),
        ("total length below header", patched(v4(), 2, &[0, 19]), ParseError::TotalLength),
        ("total length zero", patched(v4(), 2, &[0, 0]), ParseError::TotalLength),
        ("total length too long", patched(v4(), 2, &[0, 60]), ParseError::Truncated),
        ("total length too short", patched(v4(), 2, &[0, 43]), ParseError::TrailingBytes),
        ("IPv6 payload too long", patched(v6(), 4, &[0, 60]), ParseError::Truncated),
        ("IPv6 payload too short", patched(v6(), 4, &[0, 23]), ParseError::TrailingBytes),
        ("IPv4 more fragments", patched(v4(), 6, &[0x20, 0]), ParseError::Fragment),
        ("IPv4 later fragment", patched(v4(), 6, &[0, 1]), ParseError::Fragment),
        ("UDP", patched(v4(), 9, &[17]), ParseError::NotTcp),
        ("UDP over IPv6", patched(v6(), 6, &[17]), ParseError::NotTcp),
        ("ESP over IPv6", patched(v6(), 6, &[50]), ParseError::NotTcp),
        ("nothing follows", patched(v6(), 6, &[59]), ParseError::NotTcp),
        ("source port zero", patched(v4(), 20, &[0, 0]), ParseError::PortZero),
        ("destination port zero", patched(v6(), 42, &[0, 0]), ParseError::PortZero),
        ("TCP header of 16 bytes", patched(v4(), 32, &[0x40]), ParseError::TcpOffset),
        ("TCP header of no bytes", patched(v4(), 32, &[0x00]), ParseError::TcpOffset),
        ("TCP header behind the end", patched(v4(), 32, &[0x70]), ParseError::TcpOffset),
        ("loose source route", with_ip_extra(v4(), &[131, 3, 4, 0]), ParseError::SourceRoute),
        ("strict source route", with_ip_extra(v4(), &[137, 3, 4, 0]), ParseError::SourceRoute),
        ("IPv4 option of length 0", with_ip_extra(v4(), &[7, 0, 0, 0]), ParseError::IpOptions),
        ("IPv4 option of length 1", with_ip_extra(v4(), &[7, 1, 0, 0]), ParseError::IpOptions),
        ("IPv4 option too long", with_ip_extra(v4(), &[7, 5, 0, 0]), ParseError::IpOptions),
        ("IPv4 option cut", with_ip_extra(v4(), &[1, 1, 1, 7]), ParseError::IpOptions),
    ];
    for (name, packet, expected) in table {
        assert_eq!(Segment::parse(&packet), Err(expected), "{name}");
    }
}

#[test]
fn every_defect_of_an_extension_header_has_its_own_name() {
    let eight = |start: [u8; 4]| [&start[..], &[0, 0, 0, 0]].concat();
    let nested = |count: usize| {
        let mut extra = vec![];
        for left in (0..count).rev() {
            extra.extend(eight([if left == 0 { 6 } else { 60 }, 0, 1, 4]));
        }
        with_extension(60, &extra)
    };
    let table: [(&str, Vec<u8>, Result<usize, ParseError>); 17] = [
        ("hop-by-hop", with_extension(0, &eight([6, 0, 1, 4])), Ok(48)),
        ("destination options", with_extension(60, &eight([6, 0, 1, 4])), Ok(48)),
        ("routing at its end", with_extension(43, &eight([6, 0, 4, 0])), Ok(48)),
        ("atomic fragment", with_extension(44, &eight([6, 0, 0, 0])), Ok(48)),
        ("authentication", with_extension(51, &[&[6, 2][..], &[0; 14]].concat()), Ok(56)),
        ("eight headers", nested(8), Ok(40 + 64)),
        ("nine headers", nested(9), Err(ParseError::ExtensionHeaderCount)),
        (
            "routing with segments left",
            with_extension(43, &eight([6, 0, 0, 1])),
            Err(ParseError::SourceRoute),
        ),
        ("first fragment", with_extension(44, &eight([6, 0, 0, 1])), Err(ParseError::Fragment)),
        ("later fragment", with_extension(44, &eight([6, 0, 0, 8])), Err(ParseError::Fragment)),
        ("option too long", with_extension(0, &eight([6, 0, 1, 5])), Err(ParseError::ExtensionHeader)),
        (
            "option without length",
            with_extension(60, &[6, 0, 1, 3, 0, 0, 0, 9]),
            Err(ParseError::ExtensionHeader),
        ),
        ("jumbo option", with_extension(0, &eight([6, 0, 0xc2, 4])), Err(ParseError::Jumbogram)),
        (
            "hop-by-hop not first",
            with_extension(60, &[eight([0, 0, 1, 4]), eight([6, 0, 1, 4])].concat()),
            Err(ParseError::ExtensionHeader),
        ),
        ("header behind the end", with_extension(60, &eight([6, 9, 1, 4])), Err(ParseError::TotalLength)),
        (
            "authentication too short",
            with_extension(51, &eight([6, 0, 0, 0])),
            Err(ParseError::ExtensionHeader),
        ),
        (
            "authentication not aligned",
            with_extension(51, &[&[6, 1][..], &[0; 10]].concat()),
            Err(ParseError::ExtensionHeader),
        ),
    ];
    for (name, packet, expected) in table {
        let got = Segment::parse(&packet).map(|segment| segment.ip.header_len);
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn jumbogram_without_length_is_named() {
    let mut packet = with_extension(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]);
    packet[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(Segment::parse(&packet), Err(ParseError::Jumbogram));
}

#[test]
fn fragment_fields_are_decoded() {
    let v4 = patched(syn_v4(&[], &[]), 6, &[0x20, 2]);
    assert_eq!(Packet::parse(&v4).unwrap().fragment, Some(Fragment { offset: 16, more: true, id: 0 }));
    let v6 = with_extension(44, &[17, 0, 0x05, 0xa8, 0, 0, 0, 1]);
    let packet = Packet::parse(&v6).unwrap();
    assert_eq!(packet.fragment, Some(Fragment { offset: 1448, more: false, id: 1 }));
    assert_eq!(packet.protocol, Protocol::UDP);
}

#[test]
fn dont_fragment_is_no_fragment() {
    let packet = Packet::parse(&patched(syn_v4(&[], &[]), 6, &[0x40, 0])).unwrap();
    assert_eq!(packet.fragment, None);
}

#[test]
fn ethernet_padding_is_trimmed() {
    let packet = syn_v4(&[], &[]);
    let mut frame = packet.clone();
    frame.resize(46, 0);
    assert_eq!(ip::trim(&mut frame), Ok(6));
    assert_eq!(frame, packet);
    assert_eq!(ip::trim(&mut frame), Ok(0));
    frame.pop();
    assert_eq!(ip::trim(&mut frame), Err(ParseError::Truncated));
}

#[test]
fn names_are_distinct_and_kebab_case() {
    let mut names = ParseError::ALL.map(ParseError::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ParseError::ALL.len());
    for name in names {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(name.chars().all(kebab), "{name}");
    }
}
