use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trireme_identity::Protocol;

use super::{Attested, Body, Flags, HEADER_LEN, Header, MAGIC, TapError, is_tap, length_field};
use crate::bytes::{array, be16, put};
use crate::ip::Family;

pub(super) const KIND_AT: usize = 4;
const FLAGS_AT: usize = 5;
pub(super) const LENGTH_AT: usize = 6;
const TOKEN_ID_AT: usize = 8;
pub(super) const NONCE_AT: usize = 24;
const MAC_AT: usize = 40;
const BODY_AT: usize = 56;
const FIRST_AT: usize = 76;
const SECOND_AT: usize = 78;

pub(super) fn parse(payload: &[u8]) -> Result<Header, TapError> {
    if !is_tap(payload) {
        return Err(TapError::NotTap);
    }
    let version = *payload.get(3).ok_or(TapError::Truncated)?;
    if !payload.starts_with(&MAGIC) {
        return Err(TapError::UnknownVersion(version));
    }
    if payload.len() < HEADER_LEN {
        return Err(TapError::Truncated);
    }
    let kind = *payload.get(KIND_AT).ok_or(TapError::Truncated)?;
    let bits = *payload.get(FLAGS_AT).ok_or(TapError::Truncated)?;
    let flags = Flags::from_bits(bits).ok_or(TapError::Flags(bits))?;
    if length_field(payload) != Some(payload.len()) {
        return Err(TapError::Length);
    }
    let header = Header {
        flags,
        token_id: array(payload, TOKEN_ID_AT).ok_or(TapError::Truncated)?,
        nonce: array(payload, NONCE_AT).ok_or(TapError::Truncated)?,
        mac: array(payload, MAC_AT).ok_or(TapError::Truncated)?,
        body: parse_body(kind, payload)?,
    };
    check(&header, payload.len())?;
    Ok(header)
}

pub(super) fn encode(header: &Header, token: &[u8], credential: &[u8]) -> Result<Vec<u8>, TapError> {
    if header.attachments() != (token.len(), credential.len()) {
        return Err(TapError::Length);
    }
    let mut payload = header_bytes(header).to_vec();
    payload.extend_from_slice(token);
    payload.extend_from_slice(credential);
    parse(&payload).map(|_| payload)
}

/// Checks what spans several fields.
fn check(header: &Header, payload_len: usize) -> Result<(), TapError> {
    let (token_len, credential_len) = header.attachments();
    if payload_len != HEADER_LEN + token_len + credential_len {
        return Err(TapError::Length);
    }
    let has_token = header.flags.contains(Flags::TOKEN);
    let cookie_allowed = match header.body {
        Body::Syn { .. } => true,
        Body::SynAck { .. } => false,
        Body::Ack { .. } | Body::Refusal { .. } | Body::TokenRequest { .. } if has_token => {
            return Err(TapError::Flags(header.flags.bits()));
        }
        Body::TokenRequest { .. } => true,
        Body::Ack { .. } | Body::Refusal { .. } => false,
    };
    if has_token != (token_len > 0) || (credential_len > 0 && !has_token) {
        return Err(TapError::Attachment);
    }
    if let Body::Refusal { reason, rule, .. } = header.body
        && !header.has_mac()
    {
        zeros(&[reason, rule])?;
    }
    if !header.has_mac() && !cookie_allowed && header.mac != [0; 16] {
        return Err(TapError::Mac);
    }
    Ok(())
}

fn parse_body(kind: u8, payload: &[u8]) -> Result<Body, TapError> {
    let body: [u8; 20] = array(payload, BODY_AT).ok_or(TapError::Truncated)?;
    let first = be16(payload, FIRST_AT).ok_or(TapError::Truncated)?;
    let second = be16(payload, SECOND_AT).ok_or(TapError::Truncated)?;
    match kind {
        1 => {
            let [family, protocol, zero @ ..] = body;
            zeros(&zero)?;
            Ok(Body::Syn {
                family: parse_family(family)?,
                protocol: parse_protocol(protocol)?,
                token_len: first,
                credential_len: second,
            })
        }
        2 => Ok(Body::SynAck { endpoint: parse_endpoint(body)?, token_len: first, credential_len: second }),
        3 => {
            zeros(&[first, second])?;
            let (echo, protocol) = parse_echo(&body)?;
            Ok(Body::Ack { echo, protocol })
        }
        4 => {
            let (echo, protocol) = parse_echo(&body)?;
            Ok(Body::Refusal { echo, protocol, reason: first, rule: second })
        }
        5 => {
            zeros(&[first, second])?;
            let (echo, protocol) = parse_echo(&body)?;
            Ok(Body::TokenRequest { echo, protocol })
        }
        _ => Err(TapError::UnknownKind(kind)),
    }
}

/// Behind the echo stands the protocol; for TCP zero.
fn parse_echo(body: &[u8; 20]) -> Result<([u8; 16], Protocol), TapError> {
    let [echo @ .., protocol, b, c, d] = *body;
    zeros(&[b, c, d])?;
    match Protocol(protocol) {
        Protocol(0) => Ok((echo, Protocol::TCP)),
        Protocol::UDP => Ok((echo, Protocol::UDP)),
        _ => Err(TapError::Padding),
    }
}

const fn protocol_behind_echo(protocol: Protocol) -> u8 {
    if protocol.0 == Protocol::TCP.0 { 0 } else { protocol.0 }
}

fn parse_endpoint(body: [u8; 20]) -> Result<Attested, TapError> {
    let [family, protocol, high, low, address @ ..] = body;
    let addr = match parse_family(family)? {
        Family::V6 => IpAddr::V6(Ipv6Addr::from(address)),
        Family::V4 => {
            let [a, b, c, d, zero @ ..] = address;
            zeros(&zero)?;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
    };
    let port = u16::from_be_bytes([high, low]);
    let protocol = parse_protocol(protocol)?;
    if port == 0 {
        return Err(TapError::PortZero);
    }
    if addr.is_unspecified() || addr.is_multicast() {
        return Err(TapError::Address);
    }
    Ok(Attested { protocol, port, addr })
}

fn parse_family(family: u8) -> Result<Family, TapError> {
    match family {
        4 => Ok(Family::V4),
        6 => Ok(Family::V6),
        _ => Err(TapError::Family(family)),
    }
}

fn parse_protocol(protocol: u8) -> Result<Protocol, TapError> {
    match Protocol(protocol) {
        known @ (Protocol::TCP | Protocol::UDP) => Ok(known),
        _ => Err(TapError::Protocol(protocol)),
    }
}

fn zeros<T: PartialEq + Default>(values: &[T]) -> Result<(), TapError> {
    if values.iter().all(|value| *value == T::default()) { Ok(()) } else { Err(TapError::Padding) }
}

pub(super) fn header_bytes(header: &Header) -> [u8; HEADER_LEN] {
    let (token_len, credential_len) = header.attachments();
    // Attachments beyond the length field's range do not survive the parse in `encode`.
    let len = u16::try_from(HEADER_LEN + token_len + credential_len).unwrap_or(0);
    let (body, first, second) = body_bytes(&header.body);
    let kind_and_flags = [header.kind().code(), header.flags.bits()];
    let fields: [(usize, &[u8]); 9] = [
        (0, &MAGIC),
        (KIND_AT, &kind_and_flags),
        (LENGTH_AT, &len.to_be_bytes()),
        (TOKEN_ID_AT, &header.token_id),
        (NONCE_AT, &header.nonce),
        (MAC_AT, &header.mac),
        (BODY_AT, &body),
        (FIRST_AT, &first.to_be_bytes()),
        (SECOND_AT, &second.to_be_bytes()),
    ];
    let mut bytes = [0; HEADER_LEN];
    for (at, field) in fields {
        debug_assert!(at + field.len() <= HEADER_LEN, "the layout fits");
        put(&mut bytes, at, field).unwrap_or_default();
    }
    bytes
}

fn body_bytes(body: &Body) -> ([u8; 20], u16, u16) {
    let mut bytes = [0; 20];
    let mut write = |at, field: &[u8]| put(&mut bytes, at, field).unwrap_or_default();
    let (first, second) = match body {
        Body::Syn { family, protocol, token_len, credential_len } => {
            write(0, &[family.version(), protocol.0]);
            (*token_len, *credential_len)
        }
        Body::SynAck { endpoint, token_len, credential_len } => {
            let Attested { protocol, port, addr } = endpoint;
            write(0, &[Family::of(*addr).version(), protocol.0]);
            write(2, &port.to_be_bytes());
            match addr {
                IpAddr::V4(addr) => write(4, &addr.octets()),
                IpAddr::V6(addr) => write(4, &addr.octets()),
            }
            (*token_len, *credential_len)
        }
        Body::Refusal { echo, protocol, reason, rule } => {
            write(0, echo);
            write(16, &[protocol_behind_echo(*protocol)]);
            (*reason, *rule)
        }
        Body::Ack { echo, protocol } | Body::TokenRequest { echo, protocol } => {
            write(0, echo);
            write(16, &[protocol_behind_echo(*protocol)]);
            (0, 0)
        }
    };
    (bytes, first, second)
}

pub(super) fn mac_input(bytes: &[u8; HEADER_LEN]) -> ([u8; 40], [u8; 24]) {
    let before = array(bytes, 0).unwrap_or([0; 40]);
    let behind = array(bytes, BODY_AT).unwrap_or([0; 24]);
    (before, behind)
}
