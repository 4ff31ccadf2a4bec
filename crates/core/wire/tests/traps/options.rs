use trireme_wire::ParseError;
use trireme_wire::edit::{self, OptionEdit, OptionSelector};
use trireme_wire::tcp::Segment;
use trireme_wire::tcp::options::{self, Options, Timestamps};

use super::{syn_v4, syn_v6};

/// A SYN whose option bytes are overwritten, well formed or not.
fn raw(options: &[u8]) -> Vec<u8> {
    let mut packet = syn_v4(&[1; 40][..options.len().next_multiple_of(4)], b"xy");
    packet[40..40 + options.len()].copy_from_slice(options);
    packet
}

#[test]
fn all_kinds_with_bad_lengths_are_refused_and_with_good_ones_pass() {
    for kind in 2..=u8::MAX {
        for len in [0, 1, 5, 41, 255] {
            let got = Segment::parse(&raw(&[kind, len, 0, 0]));
            assert_eq!(got, Err(ParseError::TcpOptions), "kind {kind}, length {len}");
        }
        for len in [2, 3, 4] {
            let packet = raw(&[kind, len, 1, 1]);
            let segment = Segment::parse(&packet).unwrap();
            let option = segment.options(&packet).next().unwrap();
            assert_eq!((option.kind, option.data.len()), (kind, usize::from(len) - 2));
        }
        let cut = Segment::parse(&raw(&[1, 1, 1, kind]));
        assert_eq!(cut, Err(ParseError::TcpOptions), "kind {kind} without length");
    }
}

#[test]
fn end_and_padding_have_no_length() {
    let packet = raw(&[1, 1, 0, 0]);
    assert_eq!(Segment::parse(&packet).unwrap().options(&packet).count(), 0);
    let packet = raw(&[0, 34, 0, 255]);
    let segment = Segment::parse(&packet).unwrap();
    assert!(!segment.options(&packet).has_fast_open(), "nothing counts behind the end mark");
}

#[test]
fn walk_ends_on_any_bytes() {
    for byte in 0..=u8::MAX {
        assert!(Options::new(&[byte; 40]).count() <= 20, "byte {byte}");
    }
}

#[test]
fn kinds_of_interest_are_detected() {
    let md5 = [&[19, 18][..], &[0; 16], &[1, 1]].concat();
    let table: [(&str, Vec<u8>, [bool; 3]); 7] = [
        ("TCP-MD5", md5, [true, false, false]),
        ("TCP-AO", vec![29, 4, 1, 1], [true, false, false]),
        ("Fast Open request", vec![34, 2, 1, 1], [false, true, false]),
        ("experimental Fast Open", vec![254, 4, 0xf9, 0x89], [false, true, false]),
        ("experimental Fast Open, kind 253", vec![253, 4, 0xf9, 0x89], [false, true, false]),
        ("another experiment", vec![254, 4, 0xe2, 0xd4], [false, false, false]),
        ("MPTCP", vec![30, 4, 0, 1], [false, false, true]),
    ];
    for (name, bytes, expected) in table {
        let packet = syn_v4(&bytes, &[]);
        let found = Segment::parse(&packet).unwrap().options(&packet);
        let got = [found.are_signed(), found.has_fast_open(), found.has_multipath()];
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn timestamps_and_mss_are_decoded() {
    let stamp = Timestamps { value: 0x0102_0304, echo: 9 };
    let bytes = [&[2, 4, 5, 0xb4][..], &stamp.encode()].concat();
    let packet = syn_v6(&bytes, &[]);
    let found = Segment::parse(&packet).unwrap().options(&packet);
    assert_eq!(found.timestamps(), Some(stamp));
    assert_eq!(found.maximum_segment_size(), Some(1460));
    let odd = Options::new(&[8, 9, 0, 0, 0, 0, 0, 0, 0, 2, 3, 0]);
    assert_eq!((odd.timestamps(), odd.maximum_segment_size()), (None, None));
}

#[test]
fn fast_open_cookie_becomes_padding() {
    let mut packet = syn_v4(&[2, 4, 5, 0xb4, 34, 6, 1, 2, 3, 4, 1, 1], b"early");
    assert_eq!(edit::strip_fast_open(&mut packet), Ok(true));
    assert_eq!(packet, syn_v4(&[2, 4, 5, 0xb4, 1, 1, 1, 1, 1, 1, 1, 1], b"early"));
    assert_eq!(edit::strip_fast_open(&mut packet), Ok(false));
}

#[test]
fn removed_option_shortens_the_header() {
    let mut packet = syn_v6(&[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 5, 0xb4, 1, 1], b"early");
    let selector = OptionSelector::Kind(options::FAST_OPEN);
    assert_eq!(edit::strip_option(&mut packet, selector, OptionEdit::Remove), Ok(true));
    assert_eq!(packet, syn_v6(&[2, 4, 5, 0xb4, 1, 1], b"early"));
}

#[test]
fn only_the_named_experiment_is_stripped() {
    let mut packet = syn_v4(&[254, 4, 0xe2, 0xd4, 254, 4, 0xf9, 0x89], &[]);
    let selector = OptionSelector::Experiment(options::FAST_OPEN_EXPERIMENT);
    assert_eq!(edit::strip_option(&mut packet, selector, OptionEdit::Blank), Ok(true));
    assert_eq!(packet, syn_v4(&[254, 4, 0xe2, 0xd4, 1, 1, 1, 1], &[]));
}
