use trireme_wire::checksum::Sum;
use trireme_wire::icmp::{self, CutError, cut_embedded_payload};
use trireme_wire::tcp::Flags;
use trireme_wire::{build, edit, tap};

use super::{segment, syn_v4, syn_v6, with_ip_extra};

fn tap_payload(len: usize) -> Vec<u8> {
    let mut payload = tap::MAGIC.to_vec();
    payload.resize(len, 7);
    payload
}

/// An error about a packet; `bytes` 4 to 8 of the message and what follows are patched in.
fn error_about(packet: &[u8]) -> Vec<u8> {
    build::icmp_admin_prohibited(packet).unwrap()
}

#[test]
fn quoted_headers_become_those_of_the_stack() {
    for (plain, attached) in [
        (syn_v4(&[2, 4, 5, 0xb4], &[]), syn_v4(&[2, 4, 5, 0xb4], &tap_payload(900))),
        (syn_v6(&[2, 4, 5, 0xb4], &[]), syn_v6(&[2, 4, 5, 0xb4], &tap_payload(900))),
    ] {
        let mut error = error_about(&attached);
        assert_eq!(cut_embedded_payload(&mut error), Ok(true));
        assert_eq!(error, error_about(&plain));
    }
}

#[test]
fn only_handshake_segments_are_cut() {
    let table = [
        (Flags::SYN, true),
        (Flags::SYN_ACK, true),
        (Flags::ACK, true),
        (Flags::ACK.union(Flags::PSH), true),
        (Flags::RST, false),
        (Flags::RST.union(Flags::ACK), false),
        (Flags::FIN, false),
    ];
    for (flags, expected) in table {
        let packet = segment("10.0.0.1", "10.0.0.2", flags, &[], &tap_payload(80));
        let mut error = error_about(&packet);
        assert_eq!(cut_embedded_payload(&mut error), Ok(expected), "{flags}");
    }
}

#[test]
fn eight_quoted_bytes_are_enough_for_the_tuple() {
    let packet = syn_v4(&[], &tap_payload(80));
    let full = error_about(&packet);
    for quoted in 0..20 {
        let mut error = full[..48 + quoted].to_vec();
        let len = u16::try_from(error.len()).unwrap();
        error[2..4].copy_from_slice(&len.to_be_bytes());
        let found = icmp::embedded(&error).and_then(|found| found.seq);
        assert_eq!(found, (quoted >= 8).then_some(1000), "{quoted} bytes");
        if quoted >= 8 {
            let before = error.clone();
            assert_eq!(cut_embedded_payload(&mut error), Ok(false));
            assert_eq!(error, before);
        }
    }
}

#[test]
fn damaged_error_is_not_cut_into_a_valid_one() {
    let mut error = error_about(&syn_v4(&[], &tap_payload(80)));
    error[90] ^= 1;
    let before = error.clone();
    assert_eq!(cut_embedded_payload(&mut error), Err(CutError::Corrupt));
    assert_eq!(error, before);
}

#[test]
fn extension_behind_the_quote_is_no_part_of_it() {
    let packet = syn_v4(&[], &[]);
    let mut message = error_about(&packet);
    message.resize(28 + 128, 0);
    message.extend_from_slice(&[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 1]);
    let len = u16::try_from(message.len()).unwrap();
    message[2..4].copy_from_slice(&len.to_be_bytes());
    message[25] = 32;
    let found = icmp::embedded(&message).unwrap();
    assert_eq!(found.quoted, 28..28 + 128);
    assert_eq!(found.quoted_ip.total_len, 40);
    assert_eq!(cut_embedded_payload(&mut message), Ok(false));
}

#[test]
fn extension_goes_with_the_payload_it_follows() {
    let attached = syn_v4(&[], &tap_payload(400));
    let mut error = error_about(&attached);
    error.truncate(28 + 128);
    error.extend_from_slice(&[0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 1]);
    let len = u16::try_from(error.len()).unwrap();
    error[2..4].copy_from_slice(&len.to_be_bytes());
    error[25] = 32;
    refresh(&mut error, 10);
    refresh(&mut error, 22);
    assert_eq!(cut_embedded_payload(&mut error), Ok(true));
    assert_eq!(error, error_about(&syn_v4(&[], &[])));
}

#[test]
fn informational_and_foreign_messages_are_no_errors() {
    let good = error_about(&syn_v4(&[], &[]));
    let patched = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        icmp::embedded(&packet)
    };
    assert!(patched(20, 3).is_some());
    assert_eq!(patched(20, 8), None, "echo request");
    assert_eq!(patched(20, 5), None, "redirect");
    assert_eq!(patched(9, 58), None, "ICMPv6 inside IPv4");
    assert_eq!(patched(6, 0x20), None, "a fragment");
    assert_eq!(
        patched(28 + 6, 0x20),
        icmp::embedded(&good).map(|mut found| {
            found.quoted_ip.fragment = Some(trireme_wire::ip::Fragment { offset: 0, more: true, id: 0 });
            found
        })
    );
    assert_eq!(patched(28 + 7, 1), None, "about a later fragment");
    assert_eq!(icmp::embedded(&syn_v4(&[], &[])), None, "TCP");
}

#[test]
fn packet_too_big_carries_its_mtu_through_the_cut() {
    let mut v6 = error_about(&syn_v6(&[], &tap_payload(1200)));
    assert!(icmp::embedded(&v6).unwrap().is_unreachable());
    v6[40..42].copy_from_slice(&[2, 0]);
    v6[44..48].copy_from_slice(&1280_u32.to_be_bytes());
    refresh(&mut v6, 42);
    assert!(icmp::embedded(&v6).unwrap().is_too_big());
    assert_eq!(cut_embedded_payload(&mut v6), Ok(true));
    assert_eq!(v6[44..48], 1280_u32.to_be_bytes());

    let mut v4 = error_about(&syn_v4(&[], &tap_payload(1200)));
    v4[21] = 4;
    v4[26..28].copy_from_slice(&1280_u16.to_be_bytes());
    refresh(&mut v4, 22);
    assert!(icmp::embedded(&v4).unwrap().is_too_big() && !icmp::embedded(&v4).unwrap().is_unreachable());
    assert_eq!(cut_embedded_payload(&mut v4), Ok(true));
    assert_eq!(v4[26..28], 1280_u16.to_be_bytes());
    assert!(icmp::verify(&v4));
}

#[test]
fn quoted_options_are_kept() {
    let attached = |payload: &[u8]| with_ip_extra(syn_v4(&[], payload), &[7, 3, 4, 0]);
    let mut error = error_about(&attached(&tap_payload(100)));
    assert_eq!(cut_embedded_payload(&mut error), Ok(true));
    let mut plain = attached(&[]);
    trireme_wire::checksum::complete(&mut plain).unwrap();
    assert_eq!(error[28..], plain);
    assert_eq!(edit::strip_payload(&mut plain, 0), Ok(()));
}

/// Computes the checksum at an offset: of the IPv4 header at 10, of an ICMP message elsewhere.
fn refresh(packet: &mut [u8], at: usize) {
    packet[at..at + 2].copy_from_slice(&[0, 0]);
    let sum = match at {
        10 => Sum::default().with(&packet[..20]),
        22 => Sum::default().with(&packet[20..]),
        _ => {
            let len = u32::try_from(packet.len() - 40).unwrap();
            let pseudo = Sum::default().with(&packet[8..40]).with(&len.to_be_bytes()).add_word(58);
            pseudo.with(&packet[40..])
        }
    };
    packet[at..at + 2].copy_from_slice(&(!sum.fold()).to_be_bytes());
}
