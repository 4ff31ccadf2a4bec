use trireme_identity::Protocol;
use trireme_wire::ip::Family;
use trireme_wire::tap::{self, Attested, Body, Flags, HEADER_LEN, Header, Kind, TapError};

const ECHO: [u8; 16] = [0xee; 16];

fn header(flags: Flags, body: Body) -> Header {
    Header {
        flags,
        token_id: [0x11; 16],
        nonce: [0x22; 16],
        mac: if flags.contains(Flags::MAC) { [0x33; 16] } else { [0; 16] },
        body,
    }
}

pub(crate) fn syn_header(family: u8) -> Header {
    header(
        Flags::TOKEN,
        Body::Syn {
            family: if family == 4 { Family::V4 } else { Family::V6 },
            protocol: Protocol::TCP,
            token_len: 3,
            credential_len: 0,
        },
    )
}

fn syn_ack(addr: &str) -> Header {
    header(
        Flags::TOKEN.union(Flags::MAC),
        Body::SynAck {
            endpoint: Attested { protocol: Protocol::TCP, port: 0x1f90, addr: addr.parse().unwrap() },
            token_len: 3,
            credential_len: 2,
        },
    )
}

fn ack() -> Header {
    header(Flags::MAC, Body::Ack { echo: ECHO, protocol: Protocol::TCP })
}

fn refusal(flags: Flags, reason: u16, rule: u16) -> Header {
    header(flags, Body::Refusal { echo: ECHO, protocol: Protocol::TCP, reason, rule })
}

#[test]
fn layout_is_that_of_the_specification() {
    let bytes = syn_ack("10.0.0.2").encode(b"tok", b"cr").unwrap();
    let mut expected = vec![0x54, 0x41, 0x50, 0x01, 2, 3, 0, 85];
    expected.extend([0x11; 16]);
    expected.extend([0x22; 16]);
    expected.extend([0x33; 16]);
    expected.extend([4, 6, 0x1f, 0x90, 10, 0, 0, 2]);
    expected.extend([0; 12]);
    expected.extend([0, 3, 0, 2]);
    expected.extend(b"tokcr");
    assert_eq!(bytes, expected);

    let bytes = refusal(Flags::MAC, 0x0102, 0x0304).encode(b"", b"").unwrap();
    assert_eq!(bytes[4..8], [4, 2, 0, 80]);
    assert_eq!(bytes[56..72], ECHO);
    assert_eq!(bytes[72..80], [0, 0, 0, 0, 1, 2, 3, 4]);

    let bytes = syn_header(6).encode(b"tok", b"").unwrap();
    assert_eq!(bytes[4..8], [1, 1, 0, 83]);
    assert_eq!(bytes[56..58], [6, 6]);
    assert_eq!(bytes[58..76], [0; 18]);
}

/// What is wrong, the payload, where it is overwritten with what, and the error.
type Row<'a> = (&'a str, Vec<u8>, usize, &'a [u8], TapError);

#[test]
fn every_wrong_field_is_refused() {
    let syn = || syn_header(4).encode(b"tok", b"").unwrap();
    let syn_ack_v4 = || syn_ack("10.0.0.2").encode(b"tok", b"cr").unwrap();
    let syn_ack_v6 = || syn_ack("fd00::2").encode(b"tok", b"cr").unwrap();
    let ack = || ack().encode(b"", b"").unwrap();
    let refusal = || refusal(Flags::NONE, 0, 0).encode(b"", b"").unwrap();
    let request = || {
        header(Flags::NONE, Body::TokenRequest { echo: ECHO, protocol: Protocol::TCP })
            .encode(b"", b"")
            .unwrap()
    };
    let table: [Row<'_>; 37] = [
        ("magic", syn(), 0, b"U", TapError::NotTap),
        ("magic", syn(), 2, b"Q", TapError::NotTap),
        ("version 0", syn(), 3, &[0], TapError::UnknownVersion(0)),
        ("version 2", syn(), 3, &[2], TapError::UnknownVersion(2)),
        ("kind 0", syn(), 4, &[0], TapError::UnknownKind(0)),
        ("kind 6", ack(), 4, &[6], TapError::UnknownKind(6)),
        ("unknown flag", syn(), 5, &[0x05], TapError::Flags(0x05)),
        ("unknown flag", ack(), 5, &[0x82], TapError::Flags(0x82)),
        ("token flag of a kind 3", ack(), 5, &[3], TapError::Flags(3)),
        ("token flag of a kind 4", refusal(), 5, &[1], TapError::Flags(1)),
        ("token flag of a kind 5", request(), 5, &[1], TapError::Flags(1)),
        ("length too short", syn(), 6, &[0, 82], TapError::Length),
        ("length too long", syn(), 6, &[0, 84], TapError::Length),
        ("length of 64 KiB more", syn(), 6, &[0xff, 0xff], TapError::Length),
        ("family 5", syn(), 56, &[5], TapError::Family(5)),
        ("family 0", syn_ack_v4(), 56, &[0], TapError::Family(0)),
        ("protocol", syn(), 57, &[1], TapError::Protocol(1)),
        ("protocol", syn_ack_v6(), 57, &[132], TapError::Protocol(132)),
        ("padding of kind 1", syn(), 58, &[1], TapError::Padding),
        ("padding of kind 1", syn(), 75, &[1], TapError::Padding),
        ("port zero", syn_ack_v4(), 58, &[0, 0], TapError::PortZero),
        ("padding of an IPv4 address", syn_ack_v4(), 64, &[1], TapError::Padding),
        ("padding of an IPv4 address", syn_ack_v4(), 75, &[1], TapError::Padding),
        ("unspecified address", syn_ack_v4(), 60, &[0, 0, 0, 0], TapError::Address),
        ("group address", syn_ack_v4(), 60, &[224], TapError::Address),
        ("group address", syn_ack_v6(), 60, &[0xff], TapError::Address),
        ("IPv6 address as IPv4", syn_ack_v6(), 56, &[4], TapError::Padding),
        ("padding of kind 3", ack(), 72, &[1], TapError::Padding),
        ("token length of kind 3", ack(), 76, &[0, 1], TapError::Padding),
        ("credential length of kind 3", ack(), 78, &[0, 1], TapError::Padding),
        ("padding of kind 4", refusal(), 75, &[1], TapError::Padding),
        ("reason without a MAC", refusal(), 76, &[0, 1], TapError::Padding),
        ("rule without a MAC", refusal(), 78, &[0, 1], TapError::Padding),
        ("reason of kind 5", request(), 76, &[0, 1], TapError::Padding),
        ("token length", syn(), 76, &[0, 4], TapError::Length),
        ("token flag absent", syn(), 5, &[0], TapError::Attachment),
        ("MAC without its flag", refusal(), 40, &[1], TapError::Mac),
    ];
    for (name, mut payload, at, value, expected) in table {
        payload[at..at + value.len()].copy_from_slice(value);
        assert_eq!(Header::parse(&payload), Err(expected), "{name}");
    }
}

#[test]
fn attachments_must_agree_with_flags_and_lengths() {
    let body = |token_len, credential_len| Body::Syn {
        family: Family::V4,
        protocol: Protocol::TCP,
        token_len,
        credential_len,
    };
    let encode = |flags, body, token: &[u8], credential: &[u8]| {
        header(flags, body).encode(token, credential).map(|bytes| bytes.len())
    };
    assert_eq!(encode(Flags::NONE, body(0, 0), b"", b""), Ok(80));
    assert_eq!(encode(Flags::TOKEN, body(2, 1), b"to", b"c"), Ok(83));
    assert_eq!(encode(Flags::TOKEN, body(0, 0), b"", b""), Err(TapError::Attachment));
    assert_eq!(encode(Flags::NONE, body(2, 0), b"to", b""), Err(TapError::Attachment));
    assert_eq!(encode(Flags::TOKEN, body(0, 1), b"", b"c"), Err(TapError::Attachment));
    assert_eq!(encode(Flags::TOKEN, body(2, 1), b"t", b"cc"), Err(TapError::Length));
    let huge = vec![0; 65_535];
    assert_eq!(encode(Flags::TOKEN, body(65_535, 0), &huge, b""), Err(TapError::Length));
}

#[test]
fn cookie_may_stand_in_kinds_one_and_five_only() {
    let with_cookie = |mut header: Header, token: &[u8]| {
        header.mac = [0xc0; 16];
        header.encode(token, b"").map(|_| header.kind())
    };
    assert_eq!(with_cookie(syn_header(4), b"tok"), Ok(Kind::Syn));
    let request = header(Flags::NONE, Body::TokenRequest { echo: ECHO, protocol: Protocol::TCP });
    assert_eq!(with_cookie(request, b""), Ok(Kind::TokenRequest));
    assert_eq!(with_cookie(refusal(Flags::NONE, 0, 0), b""), Err(TapError::Mac));
    let unproven = header(Flags::NONE, Body::Ack { echo: ECHO, protocol: Protocol::TCP });
    assert_eq!(with_cookie(unproven, b""), Err(TapError::Mac));
}

#[test]
fn stream_that_begins_with_the_magic_is_no_proof() {
    let mut payload = ack().encode(b"", b"").unwrap();
    payload.extend_from_slice(b"GET / HTTP/1.1");
    assert_eq!(Header::parse(&payload), Err(TapError::Length));
    assert_eq!(tap::peek_kind(&payload), Some(3));
    assert_eq!(Header::parse(b"TAP dancing"), Err(TapError::UnknownVersion(b' ')));
    assert_eq!(Header::parse(b""), Err(TapError::NotTap));
}

#[test]
fn nonce_of_an_unknown_version_can_be_echoed() {
    let mut payload = syn_header(4).encode(b"tok", b"").unwrap();
    payload[3] = 9;
    assert!(tap::is_tap(&payload));
    assert_eq!(tap::peek_nonce(&payload), Some([0x22; 16]));
    assert_eq!(tap::peek_nonce(&payload[..39]), None);
    assert_eq!(tap::peek_kind(&payload), None);
    assert_eq!(Header::parse(&payload[..HEADER_LEN]), Err(TapError::UnknownVersion(9)));
}

#[test]
fn mac_covers_all_but_itself_and_the_attachments() {
    let (before, behind) = syn_ack("fd00::2").mac_input();
    let bytes = syn_ack("fd00::2").to_bytes();
    assert_eq!(before, bytes[..40]);
    assert_eq!(behind, bytes[56..]);
}
