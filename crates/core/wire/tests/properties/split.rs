use proptest::prelude::*;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::edit;
use trireme_wire::segment::{SplitError, split};
use trireme_wire::tcp::{Flags, Segment};

use crate::generate::{packet, packet_with_payload};

proptest! {
    #[test]
    fn split_then_reassemble_is_the_identity(sample in packet(), mss in 1_usize..500) {
        let mut bytes = sample.bytes;
        let flags = Segment::parse(&bytes).unwrap().flags;
        edit::set_flags(&mut bytes, flags.without(Flags::SYN.union(Flags::RST))).unwrap();
        check(&bytes, mss)?;
    }

    #[test]
    fn a_long_syn_or_reset_is_not_split(sample in packet_with_payload(10..50)) {
        let flags = Segment::parse(&sample.bytes).unwrap().flags;
        prop_assume!(flags.intersects(Flags::SYN.union(Flags::RST)));
        prop_assert_eq!(split(&sample.bytes, 9), Err(SplitError::NotData));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn packets_of_offload_size_are_split(sample in packet_with_payload(30_000..65_000)) {
        let mut bytes = sample.bytes;
        edit::set_flags(&mut bytes, Flags::ACK.union(Flags::PSH)).unwrap();
        check(&bytes, 1448)?;
    }
}

fn check(bytes: &[u8], mss: usize) -> Result<(), TestCaseError> {
    let whole = Segment::parse(bytes).unwrap();
    let pieces = split(bytes, mss).unwrap();
    prop_assert_eq!(pieces.len(), whole.payload_len().div_ceil(mss).max(1));

    let mut stream = Vec::new();
    let mut all_flags = Flags::default();
    for (index, piece) in pieces.iter().enumerate() {
        let part = Segment::parse(piece).unwrap();
        prop_assert_eq!(checksum::verify(piece, &part), Checksum::Valid);
        prop_assert!(part.payload_len() <= mss);
        prop_assert_eq!(part.seq, whole.seq.wrapping_add(u32::try_from(stream.len()).unwrap()));
        prop_assert_eq!(part.options(piece).as_bytes(), whole.options(bytes).as_bytes());
        prop_assert_eq!((part.ack, part.window, part.tuple()), (whole.ack, whole.window, whole.tuple()));
        if index + 1 != pieces.len() {
            prop_assert!(!part.flags.intersects(Flags::FIN.union(Flags::PSH)));
        }
        if index != 0 {
            prop_assert!(!part.flags.contains(Flags::CWR));
        }
        all_flags = all_flags.union(part.flags);
        stream.extend_from_slice(part.payload(piece));
    }
    prop_assert_eq!(all_flags, whole.flags);

    let mut joined = pieces[0].clone();
    edit::replace_payload(&mut joined, &stream).unwrap();
    edit::set_flags(&mut joined, whole.flags).unwrap();
    let mut expected = bytes.to_vec();
    checksum::complete(&mut expected).unwrap();
    prop_assert_eq!(joined, expected);
    Ok(())
}
