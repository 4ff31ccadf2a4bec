use trireme_wire::tcp::{FlagAnomaly, Flags, Segment};

use super::segment;

#[test]
fn odd_flag_combinations_are_told_apart() {
    let table = [
        (0x00, Some("null-flags")),
        (0xc0, Some("null-flags")),
        (0x03, Some("syn-fin")),
        (0x13, Some("syn-fin")),
        (0x06, Some("syn-rst")),
        (0x22, Some("syn-urg")),
        (0x05, Some("rst-fin")),
        (0x20, Some("urg-only")),
        (0x29, Some("xmas-flags")),
        (0x01, Some("missing-ack")),
        (0x08, Some("missing-ack")),
        (0x02, None),
        (0xc2, None),
        (0x12, None),
        (0x52, None),
        (0x10, None),
        (0x18, None),
        (0x11, None),
        (0x30, None),
        (0x04, None),
        (0x14, None),
    ];
    for (bits, expected) in table {
        let anomaly = Flags(bits).anomaly().map(FlagAnomaly::name);
        assert_eq!(anomaly, expected, "{}", Flags(bits));
    }
}

#[test]
fn every_flag_byte_parses() {
    for bits in 0..=u8::MAX {
        let packet = segment("10.0.0.1", "10.0.0.2", Flags(bits), &[], &[]);
        assert_eq!(Segment::parse(&packet).unwrap().flags, Flags(bits));
    }
}

#[test]
fn sequence_space_counts_syn_and_fin() {
    let len = |flags, payload: &[u8]| {
        let packet = segment("10.0.0.1", "10.0.0.2", flags, &[], payload);
        Segment::parse(&packet).unwrap().sequence_len()
    };
    assert_eq!(len(Flags::SYN, b""), 1);
    assert_eq!(len(Flags::ACK, b""), 0);
    assert_eq!(len(Flags::ACK.union(Flags::FIN), b"abc"), 4);
}

#[test]
fn flags_are_spelled_for_a_log() {
    assert_eq!(Flags::SYN_ACK.to_string(), "SYN|ACK");
    assert_eq!(Flags(0).to_string(), "none");
}
