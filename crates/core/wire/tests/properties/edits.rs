use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::edit::{self, OptionEdit, OptionSelector};
use trireme_wire::tcp::{Flags, Segment, options};
use trireme_wire::tuple::Endpoint;

use crate::generate::{Sample, packet, packet_with_payload};

proptest! {
    #[test]
    fn attach_then_strip_is_the_identity(
        sample in packet(),
        extra in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        let mut bytes = sample.bytes.clone();
        edit::append_payload(&mut bytes, &extra).unwrap();
        let attached = Segment::parse(&bytes).unwrap();
        prop_assert_eq!(attached.payload(&bytes), [sample.payload(), &extra].concat());
        agrees_with_recompute(&sample, &bytes)?;

        edit::strip_payload(&mut bytes, sample.payload().len()).unwrap();
        prop_assert_eq!(bytes, sample.bytes);
    }

    #[test]
    fn replace_then_restore_is_the_identity(
        sample in packet(),
        other in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        let mut bytes = sample.bytes.clone();
        edit::replace_payload(&mut bytes, &other).unwrap();
        prop_assert_eq!(Segment::parse(&bytes).unwrap().payload(&bytes), &other[..]);
        agrees_with_recompute(&sample, &bytes)?;
        edit::replace_payload(&mut bytes, sample.payload()).unwrap();
        prop_assert_eq!(bytes, sample.bytes);
    }

    #[test]
    fn any_strip_agrees_with_a_full_recompute(
        sample in packet(),
        keep in any::<prop::sample::Index>(),
    ) {
        let keep = keep.index(sample.payload().len() + 1);
        let mut bytes = sample.bytes.clone();
        edit::strip_payload(&mut bytes, keep).unwrap();
        prop_assert_eq!(Segment::parse(&bytes).unwrap().payload(&bytes), &sample.payload()[..keep]);
        agrees_with_recompute(&sample, &bytes)?;
    }

    #[test]
    fn numbers_flags_and_window_are_set_and_nothing_else(
        sample in packet(),
        (seq, ack, flags, window) in any::<(u32, u32, u8, u16)>(),
    ) {
        let mut bytes = sample.bytes.clone();
        edit::set_seq(&mut bytes, seq).unwrap();
        edit::set_ack(&mut bytes, ack).unwrap();
        edit::set_flags(&mut bytes, Flags(flags)).unwrap();
        edit::set_window(&mut bytes, window).unwrap();
        let expected = Segment {
            seq,
            ack,
            flags: Flags(flags),
            window,
            ..Segment::parse(&sample.bytes).unwrap()
        };
        prop_assert_eq!(Segment::parse(&bytes).unwrap(), expected);
        let offset_at = sample.ip_header_len + 12;
        prop_assert_eq!(bytes[offset_at], sample.bytes[offset_at]);
        agrees_with_recompute(&sample, &bytes)?;
    }

    #[test]
    fn endpoints_are_rewritten_and_back(
        sample in packet(),
        (v4, v6, port) in (any::<[u8; 4]>(), any::<[u8; 16]>(), 1_u16..),
    ) {
        let addr = if sample.version == 4 {
            IpAddr::V4(Ipv4Addr::from(v4))
        } else {
            IpAddr::V6(Ipv6Addr::from(v6))
        };
        let original = Segment::parse(&sample.bytes).unwrap().tuple();
        let mut bytes = sample.bytes.clone();
        edit::set_source(&mut bytes, Endpoint::new(addr, port)).unwrap();
        edit::set_destination(&mut bytes, Endpoint::new(addr, port)).unwrap();
        let tuple = Segment::parse(&bytes).unwrap().tuple();
        prop_assert_eq!((tuple.src, tuple.dst), (Endpoint::new(addr, port), Endpoint::new(addr, port)));
        agrees_with_recompute(&sample, &bytes)?;
        edit::set_source(&mut bytes, original.src).unwrap();
        edit::set_destination(&mut bytes, original.dst).unwrap();
        prop_assert_eq!(bytes, sample.bytes);
    }

    #[test]
    fn a_stripped_option_is_gone_and_the_others_stay(
        sample in packet(),
        pick in any::<prop::sample::Index>(),
        remove in any::<bool>(),
    ) {
        let before = Segment::parse(&sample.bytes).unwrap();
        let all: Vec<_> = before.options(&sample.bytes).map(|option| (option.kind, option.data.to_vec())).collect();
        prop_assume!(!all.is_empty());
        let kind = all[pick.index(all.len())].0;
        let how = if remove { OptionEdit::Remove } else { OptionEdit::Blank };

        let mut bytes = sample.bytes.clone();
        prop_assert!(edit::strip_option(&mut bytes, OptionSelector::Kind(kind), how).unwrap());
        let after = Segment::parse(&bytes).unwrap();
        let rest: Vec<_> = after.options(&bytes).map(|option| (option.kind, option.data.to_vec())).collect();
        let expected: Vec<_> = all.into_iter().filter(|(other, _)| *other != kind).collect();
        prop_assert_eq!(rest, expected);
        prop_assert_eq!(after.payload(&bytes), sample.payload());
        match how {
            OptionEdit::Blank => prop_assert_eq!(after.header_len, before.header_len),
            OptionEdit::Remove => prop_assert!(after.header_len <= before.header_len),
        }
        agrees_with_recompute(&sample, &bytes)?;
        let untouched = bytes.clone();
        prop_assert!(!edit::strip_option(&mut bytes, OptionSelector::Kind(kind), how).unwrap());
        prop_assert_eq!(bytes, untouched);
    }

    #[test]
    fn no_fast_open_cookie_survives(sample in packet()) {
        let mut bytes = sample.bytes.clone();
        let had = Segment::parse(&bytes).unwrap().options(&bytes).has_fast_open();
        prop_assert_eq!(edit::strip_fast_open(&mut bytes).unwrap(), had);
        let after = Segment::parse(&bytes).unwrap();
        prop_assert!(!after.options(&bytes).has_fast_open());
        prop_assert!(!after.options(&bytes).has(options::FAST_OPEN));
        agrees_with_recompute(&sample, &bytes)?;
    }

    #[test]
    fn a_wrong_checksum_is_never_repaired(
        sample in packet(),
        error in 1_u16..=0xfffe,
        extra in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = sample.bytes.clone();
        let field = sample.tcp_checksum().wrapping_add(error);
        let at = sample.ip_header_len + 16;
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        let segment = Segment::parse(&bytes).unwrap();
        prop_assume!(checksum::verify(&bytes, &segment) == Checksum::Invalid);
        edit::append_payload(&mut bytes, &extra).unwrap();
        edit::set_seq(&mut bytes, 7).unwrap();
        let segment = Segment::parse(&bytes).unwrap();
        prop_assert_ne!(checksum::verify(&bytes, &segment), Checksum::Valid);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn packets_of_offload_size_are_edited(sample in packet_with_payload(60_000..65_000)) {
        let mut bytes = sample.bytes.clone();
        edit::append_payload(&mut bytes, &[0xa5; 300]).unwrap();
        agrees_with_recompute(&sample, &bytes)?;
        edit::strip_payload(&mut bytes, sample.payload().len()).unwrap();
        prop_assert_eq!(bytes, sample.bytes);
    }
}

/// The checksum after incremental updates is the one that a full computation gives.
fn agrees_with_recompute(sample: &Sample, bytes: &[u8]) -> Result<(), TestCaseError> {
    let original = Segment::parse(&sample.bytes).unwrap();
    let mut expected = bytes.to_vec();
    checksum::complete(&mut expected).unwrap();
    if checksum::verify(&sample.bytes, &original) == Checksum::Partial {
        checksum::make_partial(&mut expected).unwrap();
    }
    prop_assert_eq!(bytes, expected);
    Ok(())
}
