use proptest::prelude::*;
use trireme_wire::checksum;
use trireme_wire::edit;
use trireme_wire::icmp::{self, cut_embedded_payload};
use trireme_wire::ip::Packet;
use trireme_wire::tap;
use trireme_wire::tcp::{Flags, Segment};

use crate::generate::{naive_sum, packet_with_payload};

proptest! {
    #[test]
    fn cutting_tap_restores_what_the_stack_sent(
        sample in packet_with_payload(0..1),
        rest in prop::collection::vec(any::<u8>(), 0..1400),
        quote_len in 0_usize..1500,
        flags in prop::sample::select(vec![Flags::SYN, Flags::SYN_ACK, Flags::ACK]),
    ) {
        let mut sent = sample.bytes.clone();
        edit::set_flags(&mut sent, flags).unwrap();
        checksum::complete(&mut sent).unwrap();
        let mut attached = sent.clone();
        edit::append_payload(&mut attached, &[&tap::MAGIC[..], &rest].concat()).unwrap();

        let quote_len = quote_len.clamp(sample.ip_header_len + 8, attached.len());
        let mut error = error_about(&attached[..quote_len]);
        prop_assert!(icmp::verify(&error));
        let before = icmp::embedded(&error).unwrap();
        let segment = Segment::parse(&sent).unwrap();
        prop_assert_eq!(before.tuple, segment.tuple());
        prop_assert_eq!(before.seq, Some(segment.seq));
        prop_assert_eq!(before.quoted_ip.total_len, attached.len());

        let expect_cut = quote_len > sent.len();
        prop_assert_eq!(cut_embedded_payload(&mut error), Ok(expect_cut));
        prop_assert!(icmp::verify(&error));
        if expect_cut {
            let after = icmp::embedded(&error).unwrap();
            prop_assert_eq!(&error[after.quoted.clone()], &sent[..]);
            prop_assert_eq!(after.quoted_ip, Packet::parse(&sent).unwrap());
            prop_assert_eq!(after.tuple, before.tuple);
            prop_assert_eq!(error.len(), after.ip.total_len);
        }
    }

    #[test]
    fn a_quoted_stream_stays(sample in packet_with_payload(1..200)) {
        prop_assume!(sample.payload()[0] != tap::MAGIC[0]);
        let error = error_about(&sample.bytes);
        let mut cut = error.clone();
        prop_assert_eq!(cut_embedded_payload(&mut cut), Ok(false));
        prop_assert_eq!(cut, error);
    }
}

/// A router's error about a packet, assembled by hand: time exceeded in the packet's family.
pub(crate) fn error_about(quote: &[u8]) -> Vec<u8> {
    let is_v4 = quote[0] >> 4 == 4;
    let icmp_type = if is_v4 { 11 } else { 3 };
    let mut message = [vec![icmp_type, 0, 0, 0, 0, 0, 0, 0], quote.to_vec()].concat();
    let len = u16::try_from(message.len()).unwrap();
    if is_v4 {
        let sum = !naive_sum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut header = vec![0x45, 0, 0, 0, 0, 9, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1];
        header.extend_from_slice(&quote[12..16]);
        header[2..4].copy_from_slice(&(len + 20).to_be_bytes());
        let sum = !naive_sum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        return [header, message].concat();
    }
    let router = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut pseudo = [router.to_vec(), quote[8..24].to_vec()].concat();
    pseudo.extend_from_slice(&u32::from(len).to_be_bytes());
    pseudo.extend_from_slice(&[0, 0, 0, 58]);
    let sum = !naive_sum(&[pseudo, message.clone()].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut header = vec![0x60, 0, 0, 0];
    header.extend_from_slice(&len.to_be_bytes());
    header.extend_from_slice(&[58, 64]);
    header.extend_from_slice(&router);
    header.extend_from_slice(&quote[8..24]);
    [header, message].concat()
}
