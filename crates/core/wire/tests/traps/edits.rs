use trireme_wire::ParseError;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::edit::{self, EditError};
use trireme_wire::tcp::{Flags, Segment};

use super::{endpoint, syn_v4, syn_v6, with_extension};

#[test]
fn length_field_limits_the_payload() {
    let mut v4 = syn_v4(&[], &[]);
    edit::append_payload(&mut v4, &vec![1; 65_495]).unwrap();
    assert_eq!(v4.len(), 65_535);
    let full = v4.clone();
    let error = EditError::TooLong { len: 65_536, limit: 65_535 };
    assert_eq!(edit::append_payload(&mut v4, &[1]), Err(error));
    assert_eq!(v4, full);

    let mut v6 = syn_v6(&[], &[]);
    edit::append_payload(&mut v6, &vec![1; 65_515]).unwrap();
    assert_eq!(v6.len(), 65_575);
    let error = EditError::TooLong { len: 65_576, limit: 65_575 };
    assert_eq!(edit::append_payload(&mut v6, &[1]), Err(error));
    let segment = Segment::parse(&v6).unwrap();
    assert_eq!(checksum::verify(&v6, &segment), Checksum::Valid);
}

#[test]
fn replacing_beyond_the_limit_keeps_the_old_payload() {
    let mut packet = syn_v4(&[], b"old");
    let before = packet.clone();
    let error = EditError::TooLong { len: 65_536, limit: 65_535 };
    assert_eq!(edit::replace_payload(&mut packet, &vec![0; 65_496]), Err(error));
    assert_eq!(packet, before);
}

#[test]
fn nothing_is_kept_that_is_not_there() {
    let mut packet = syn_v4(&[], b"abc");
    let error = EditError::BeyondPayload { keep: 4, len: 3 };
    assert_eq!(edit::strip_payload(&mut packet, 4), Err(error));
    assert_eq!(packet, syn_v4(&[], b"abc"));
}

#[test]
fn ipsec_authenticated_packet_is_not_edited() {
    let mut packet = with_extension(51, &[&[6, 2][..], &[0; 14]].concat());
    let before = packet.clone();
    assert_eq!(edit::append_payload(&mut packet, b"x"), Err(EditError::Authenticated));
    assert_eq!(edit::set_seq(&mut packet, 1), Err(EditError::Authenticated));
    assert_eq!(packet, before);
}

#[test]
fn reserved_bits_survive_an_edit_of_the_flags() {
    let mut packet = syn_v4(&[], &[]);
    packet[32] |= 0x0f;
    checksum::complete(&mut packet).unwrap();
    edit::set_flags(&mut packet, Flags::RST).unwrap();
    assert_eq!((packet[32], packet[33]), (0x5f, 0x04));
    let segment = Segment::parse(&packet).unwrap();
    assert_eq!(checksum::verify(&packet, &segment), Checksum::Valid);
}

#[test]
fn endpoint_of_the_other_family_or_without_port_is_refused() {
    let mut packet = syn_v4(&[], &[]);
    let before = packet.clone();
    let other = edit::set_source(&mut packet, endpoint("fd00::9", 1));
    assert_eq!(other, Err(EditError::FamilyMismatch));
    let zero = edit::set_destination(&mut packet, endpoint("10.0.0.9", 0));
    assert_eq!(zero, Err(EditError::Parse(ParseError::PortZero)));
    assert_eq!(packet, before);
}
