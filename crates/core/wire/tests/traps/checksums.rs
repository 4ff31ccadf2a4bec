use trireme_wire::checksum::{self, Checksum};
use trireme_wire::edit;
use trireme_wire::tcp::{Flags, Segment};

use super::{segment, syn_v4, syn_v6};

fn class(packet: &[u8]) -> Checksum {
    checksum::verify(packet, &Segment::parse(packet).unwrap())
}

/// An IPv4 SYN whose checksums were computed by hand.
#[test]
fn known_packet_has_the_known_checksums() {
    let packet = syn_v4(&[], &[]);
    let expected = [
        0x45, 0x00, 0x00, 0x28, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0x26, 0xce, 10, 0, 0, 1, 10, 0, 0, 2,
        0x9c, 0x40, 0x00, 0x50, 0x00, 0x00, 0x03, 0xe8, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0x00, 0x77, 0, 0,
    ];
    assert_eq!(packet, expected);
}

#[test]
fn partial_checksum_follows_the_length() {
    for mut packet in [syn_v4(&[], b"abc"), syn_v6(&[], b"abc")] {
        checksum::make_partial(&mut packet).unwrap();
        assert_eq!(class(&packet), Checksum::Partial);
        let at = Segment::parse(&packet).unwrap().ip.header_len + 16;
        let before = u16::from_be_bytes([packet[at], packet[at + 1]]);
        edit::append_payload(&mut packet, &[7; 80]).unwrap();
        let after = u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(after, before + 80, "the pseudo-header sum grew by the length");
        assert_eq!(class(&packet), Checksum::Partial);
        checksum::complete(&mut packet).unwrap();
        assert_eq!(class(&packet), Checksum::Valid);
    }
}

#[test]
fn pseudo_header_sum_of_another_length_is_invalid() {
    let mut packet = syn_v4(&[], b"abc");
    checksum::make_partial(&mut packet).unwrap();
    packet[37] = packet[37].wrapping_add(1);
    assert_eq!(class(&packet), Checksum::Invalid);
}

#[test]
fn damaged_ipv4_header_is_invalid_and_stays_so() {
    let mut packet = syn_v4(&[], b"abc");
    packet[8] ^= 1;
    assert_eq!(class(&packet), Checksum::Invalid);
    edit::append_payload(&mut packet, b"more").unwrap();
    edit::strip_payload(&mut packet, 0).unwrap();
    assert_eq!(class(&packet), Checksum::Invalid);
}

#[test]
fn damaged_payload_stays_damaged_through_edits() {
    let mut packet = segment("fd00::1", "fd00::2", Flags::ACK, &[], b"payload");
    packet[62] ^= 0x80;
    edit::append_payload(&mut packet, &[1, 2, 3]).unwrap();
    edit::set_ack(&mut packet, 1).unwrap();
    edit::set_flags(&mut packet, Flags::ACK.union(Flags::PSH)).unwrap();
    assert_eq!(class(&packet), Checksum::Invalid);
}

#[test]
fn segment_of_other_bytes_is_invalid() {
    let long = syn_v4(&[], &[0; 100]);
    let short = syn_v4(&[], &[]);
    let layout = Segment::parse(&long).unwrap();
    assert_eq!(checksum::verify(&short, &layout), Checksum::Invalid);
    assert_eq!(layout.payload(&short), b"");
}
