use std::net::IpAddr;

use proptest::prelude::*;
use trireme_identity::Protocol;
use trireme_wire::ip::Family;
use trireme_wire::tap::{Attested, Body, Flags, HEADER_LEN, Header, TapError};

proptest! {
    #[test]
    fn a_header_survives_the_round_trip((header, token, credential) in message()) {
        let payload = header.encode(&token, &credential).unwrap();
        prop_assert_eq!(Header::parse(&payload), Ok(header));
        prop_assert_eq!(header.token(&payload), &token[..]);
        prop_assert_eq!(header.credential(&payload), &credential[..]);
        prop_assert_eq!(payload.len(), HEADER_LEN + token.len() + credential.len());
        prop_assert_eq!(&header.to_bytes()[..], &payload[..HEADER_LEN]);
        let (before, behind) = header.mac_input();
        prop_assert_eq!(&before[..], &payload[..40]);
        prop_assert_eq!(&behind[..], &payload[56..80]);
    }

    #[test]
    fn a_payload_cut_anywhere_is_refused((header, token, credential) in message()) {
        let payload = header.encode(&token, &credential).unwrap();
        for end in 0..payload.len() {
            let expected = match end {
                0..3 => TapError::NotTap,
                3..HEADER_LEN => TapError::Truncated,
                _ => TapError::Length,
            };
            prop_assert_eq!(Header::parse(&payload[..end]), Err(expected));
        }
        let longer = [payload, vec![0]].concat();
        prop_assert_eq!(Header::parse(&longer), Err(TapError::Length));
    }

    #[test]
    fn a_changed_byte_is_refused_or_changes_the_header(
        (header, token, credential) in message(),
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
    ) {
        let mut payload = header.encode(&token, &credential).unwrap();
        payload[at.index(HEADER_LEN)] ^= change;
        if let Ok(other) = Header::parse(&payload) {
            prop_assert_ne!(other, header);
            prop_assert_eq!(other.encode(other.token(&payload), other.credential(&payload)), Ok(payload.clone()));
        }
    }
}

fn message() -> impl Strategy<Value = (Header, Vec<u8>, Vec<u8>)> {
    let attachments = prop_oneof![Just((Vec::new(), Vec::new())), (bytes(1..900), bytes(0..400)),];
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP]);
    let addr =
        any::<IpAddr>().prop_filter("a host address", |addr| !addr.is_unspecified() && !addr.is_multicast());
    let values = (any::<[[u8; 16]; 4]>(), any::<[u16; 2]>(), any::<bool>());
    (0..5, attachments, protocol, addr, 1_u16.., values).prop_map(
        |(kind, (mut token, mut credential), protocol, addr, port, values)| {
            let ([token_id, nonce, mac, echo], [reason, rule], has_mac) = values;
            if kind > 1 {
                token.clear();
                credential.clear();
            }
            let token_len = u16::try_from(token.len()).unwrap();
            let credential_len = u16::try_from(credential.len()).unwrap();
            let (reason, rule) = if has_mac { (reason, rule) } else { (0, 0) };
            let body = match kind {
                0 => Body::Syn { family: Family::of(addr), protocol, token_len, credential_len },
                1 => Body::SynAck { endpoint: Attested { protocol, port, addr }, token_len, credential_len },
                2 => Body::Ack { echo, protocol },
                3 => Body::Refusal { echo, protocol, reason, rule },
                _ => Body::TokenRequest { echo, protocol },
            };
            let cookie_allowed = matches!(kind, 0 | 4);
            let mut flags = Flags::NONE;
            if !token.is_empty() {
                flags = flags.union(Flags::TOKEN);
            }
            if has_mac {
                flags = flags.union(Flags::MAC);
            }
            let mac = if has_mac || cookie_allowed { mac } else { [0; 16] };
            (Header { flags, token_id, nonce, mac, body }, token, credential)
        },
    )
}

fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}
