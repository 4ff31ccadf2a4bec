//! Fuzz bodies for packets: whatever the bytes, nothing panics and these sentences hold.

use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::{Datagram, Transport};
use trireme_wire::edit::{self, EditError, OptionEdit, OptionSelector};
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::{build, icmp, ip, segment, tap};

/// A packet that parses lies within its buffer, and every answer to it parses and is valid.
pub fn ip_tcp(data: &[u8]) {
    let mut trimmed = data.to_vec();
    if ip::trim(&mut trimmed).is_ok() {
        let packet = ip::Packet::parse(&trimmed).expect("a trimmed packet parses");
        assert!(packet.header_len <= packet.total_len);
        assert_eq!(packet.total_len, trimmed.len());
    }
    let Ok(parsed) = Segment::parse(&trimmed) else {
        return;
    };
    assert_eq!(parsed.payload.end, trimmed.len());
    assert!(parsed.options(&trimmed).count() <= 20);
    let mut short = trimmed.clone();
    short.pop();
    assert!(Segment::parse(&short).is_err());

    for answer in [build::rst_for(&trimmed), build::icmp_admin_prohibited(&trimmed)] {
        let Ok(answer) = answer else { continue };
        match Segment::parse(&answer) {
            Ok(reset) => {
                assert_eq!(checksum::verify(&answer, &reset), Checksum::Valid);
                assert_eq!(reset.tuple(), parsed.tuple().reversed());
            }
            Err(_) => {
                let error = icmp::embedded(&answer).expect("an own ICMP error parses");
                assert!(icmp::verify(&answer));
                assert_eq!(error.tuple, parsed.tuple());
            }
        }
    }
    split(&trimmed, &parsed);
}

fn split(bytes: &[u8], parsed: &Segment) {
    let mss = 1 + usize::from(parsed.window % 1500);
    let Ok(pieces) = segment::split(bytes, mss) else {
        return;
    };
    let mut stream = Vec::new();
    for piece in &pieces {
        let part = Segment::parse(piece).expect("a piece parses");
        assert_eq!(checksum::verify(piece, &part), Checksum::Valid);
        let offset = u32::try_from(stream.len()).expect("a packet is short");
        assert_eq!(part.seq, parsed.seq.wrapping_add(offset));
        stream.extend_from_slice(part.payload(piece));
    }
    assert_eq!(stream, parsed.payload(bytes));
}

/// A header that parses encodes to the same bytes.
pub fn tap_header(data: &[u8]) {
    let Ok(header) = tap::Header::parse(data) else {
        return;
    };
    let (token, credential) = (header.token(data), header.credential(data));
    assert_eq!(header.encode(token, credential).as_deref(), Ok(data));
    let (before, behind) = header.mac_input();
    assert_eq!(Some(&before[..]), data.get(..40));
    assert_eq!(Some(&behind[..]), data.get(56..80));
    assert!(tap::is_tap(data));
    assert_eq!(tap::peek_nonce(data), Some(header.nonce));
}

/// Cutting a quoted TAP payload leaves a valid error about the same segment, once and for all.
pub fn icmp_error(data: &[u8]) {
    let mut bytes = data.to_vec();
    let before = icmp::embedded(data);
    match icmp::cut_embedded_payload(&mut bytes) {
        Err(_) | Ok(false) => assert_eq!(bytes, data),
        Ok(true) => {
            let before = before.expect("what was cut was an error");
            let after = icmp::embedded(&bytes).expect("it still is");
            assert_eq!((after.tuple, after.seq), (before.tuple, before.seq));
            assert!(icmp::verify(&bytes));
            assert!(bytes.len() < data.len());
            assert_eq!(icmp::cut_embedded_payload(&mut bytes), Ok(false));
        }
    }
}

/// An edit leaves a packet whose checksum is what it was: right, partial, or not right.
///
/// Input layout: operation 1 B | two parameters 2 B | packet.
pub fn edits(data: &[u8]) {
    let [operation, a, b, packet @ ..] = data else {
        return;
    };
    let mut bytes = packet.to_vec();
    let before = Segment::parse(packet);
    let word = u16::from_be_bytes([*a, *b]);
    let filler = vec![*b; usize::from(word)];
    let result = match operation % 9 {
        0 => edit::append_payload(&mut bytes, &filler),
        1 => edit::strip_payload(&mut bytes, usize::from(word)),
        2 => edit::replace_payload(&mut bytes, &filler),
        3 => option(&mut bytes, OptionSelector::Kind(*a), OptionEdit::Blank),
        4 => option(&mut bytes, OptionSelector::Kind(*a), OptionEdit::Remove),
        5 => edit::strip_fast_open(&mut bytes).map(drop),
        6 => edit::set_seq(&mut bytes, u32::from(word) << 8),
        7 => edit::set_flags(&mut bytes, Flags(*a)),
        _ => edit::set_window(&mut bytes, word),
    };
    let (Ok(()), Ok(before)) = (result, before) else {
        assert_eq!(bytes, packet, "an edit that failed changed the packet");
        return;
    };
    let after = Segment::parse(&bytes).expect("an edited packet parses");
    let allowed: &[Checksum] = match checksum::verify(packet, &before) {
        Checksum::Valid => &[Checksum::Valid],
        // By chance a pseudo-header sum is a right checksum as well.
        Checksum::Partial => &[Checksum::Partial, Checksum::Valid],
        Checksum::Invalid => &[Checksum::Invalid, Checksum::Partial],
    };
    assert!(allowed.contains(&checksum::verify(&bytes, &after)));
    assert_eq!(after.tuple(), before.tuple());
}

fn option(bytes: &mut Vec<u8>, selector: OptionSelector, how: OptionEdit) -> Result<(), EditError> {
    edit::strip_option(bytes, selector, how).map(drop)
}

/// A packet of another protocol than TCP lies within its buffer, and an error about it names its flow.
pub fn ip_datagram(data: &[u8]) {
    let mut trimmed = data.to_vec();
    if ip::trim(&mut trimmed).is_err() {
        return;
    }
    let Ok(parsed) = Datagram::parse(&trimmed) else { return };
    assert!(Segment::parse(&trimmed).is_err());
    if let Transport::Ports(ports) = &parsed.transport {
        assert!(ports.data.start <= ports.data.end && ports.data.end <= trimmed.len());
        assert!(parsed.udp_data(&trimmed).len() <= ports.data.len());
    }
    let mut short = trimmed.clone();
    short.pop();
    assert!(Datagram::parse(&short).is_err());
    if let Ok(answer) = build::icmp_unreachable(&trimmed, build::Unreachable::Port) {
        let error = icmp::embedded(&answer).expect("an own ICMP error parses");
        assert!(icmp::verify(&answer));
        assert_eq!((error.tuple, error.quoted_ip.protocol), (parsed.tuple(), parsed.ip.protocol));
    }
    let before = checksum::verify_udp(&trimmed, &parsed);
    if parsed.is_whole_udp() && checksum::complete_udp(&mut trimmed).is_ok() {
        assert_eq!(checksum::verify_udp(&trimmed, &parsed), Checksum::Valid);
    } else {
        assert_eq!(before, Checksum::Invalid);
    }
}
