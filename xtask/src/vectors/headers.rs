//! TAP headers of every kind, and payloads that are none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::bail;
use serde::Serialize;
use trireme_identity::Protocol;
use trireme_wire::ip::Family;
use trireme_wire::tap::{Attested, Body, Flags, Header};

use super::{counting, hex};

/// The file's content.
#[derive(Serialize)]
pub(super) struct Headers {
    about: &'static str,
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Accepted {
    name: &'static str,
    kind: u8,
    flags: u8,
    token_id: String,
    nonce: String,
    mac: String,
    #[serde(flatten)]
    body: Fields,
    token: String,
    credential: String,
    payload: String,
}

/// The fields that depend on the kind.
#[derive(Serialize)]
#[serde(untagged)]
enum Fields {
    Syn { family: u8, protocol: u8 },
    SynAck { family: u8, protocol: u8, port: u16, address: IpAddr },
    Ack { echo: String, protocol: u8 },
    Refusal { echo: String, protocol: u8, reason: u16, rule: u16 },
    TokenRequest { echo: String, protocol: u8 },
}

#[derive(Serialize)]
struct Refused {
    name: &'static str,
    payload: String,
    error: &'static str,
}

const TOKEN: &[u8] = b"token bytes";
const CREDENTIAL: &[u8] = b"credential";

/// Computes the file's content.
pub(super) fn generate() -> anyhow::Result<Headers> {
    Ok(Headers {
        about: "TAP payloads, network byte order; token and credential are placeholders here; the MAC bytes are \
                arbitrary (see macs.json and handshake.json for computed ones)",
        accepted: accepted()?,
        refused: refused()?,
    })
}

const fn syn(family: Family, token_len: u16, credential_len: u16) -> Body {
    Body::Syn { family, protocol: Protocol::TCP, token_len, credential_len }
}

const fn syn_ack(addr: IpAddr, token_len: u16, credential_len: u16) -> Body {
    Body::SynAck {
        endpoint: Attested { protocol: Protocol::TCP, port: 8080, addr },
        token_len,
        credential_len,
    }
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 7));
const BOTH: Flags = Flags::TOKEN.union(Flags::MAC);

fn accepted() -> anyhow::Result<Vec<Accepted>> {
    let echo = counting(0xe0);
    let mac = counting(0xa0);
    let zero = [0; 16];
    let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
    [
        ("SYN with token and credential, no MAC", Flags::TOKEN, zero, syn(Family::V4, 11, 10)),
        ("SYN with token, pre-populated key, IPv6", Flags::TOKEN, zero, syn(Family::V6, 11, 0)),
        ("SYN with token and MAC", BOTH, mac, syn(Family::V4, 11, 10)),
        ("SYN with the id only and MAC", Flags::MAC, mac, syn(Family::V4, 0, 0)),
        ("SYN that returns a cookie", Flags::TOKEN, mac, syn(Family::V4, 11, 10)),
        ("SYN-ACK, IPv4", BOTH, mac, syn_ack(V4, 11, 10)),
        ("SYN-ACK, IPv6, id only", Flags::MAC, mac, syn_ack(V6, 0, 0)),
        ("ACK", Flags::MAC, mac, Body::Ack { echo, protocol: tcp }),
        ("refusal without MAC", Flags::NONE, zero, refusal(tcp, 0, 0)),
        ("refusal with MAC", Flags::MAC, mac, refusal(tcp, 7, 3)),
        ("token request", Flags::NONE, zero, Body::TokenRequest { echo, protocol: tcp }),
        ("token request with a cookie", Flags::NONE, mac, Body::TokenRequest { echo, protocol: tcp }),
        ("token request with MAC", Flags::MAC, mac, Body::TokenRequest { echo, protocol: tcp }),
        ("UDP: kind 1", Flags::TOKEN, zero, over_udp(syn(Family::V4, 11, 10))),
        ("UDP: kind 2", BOTH, mac, over_udp(syn_ack(V6, 11, 10))),
        ("UDP: kind 3", Flags::MAC, mac, Body::Ack { echo, protocol: udp }),
        ("UDP: kind 4", Flags::MAC, mac, refusal(udp, 7, 3)),
        ("UDP: kind 5", Flags::NONE, zero, Body::TokenRequest { echo, protocol: udp }),
        ("UDP: kind 5 that asks to begin", Flags::MAC, mac, Body::TokenRequest { echo: zero, protocol: udp }),
    ]
    .into_iter()
    .map(|(name, flags, mac, body)| encode(name, flags, mac, body))
    .collect()
}

fn refusal(protocol: Protocol, reason: u16, rule: u16) -> Body {
    Body::Refusal { echo: counting(0xe0), protocol, reason, rule }
}

const fn over_udp(body: Body) -> Body {
    let protocol = Protocol::UDP;
    match body {
        Body::Syn { family, token_len, credential_len, .. } => {
            Body::Syn { family, protocol, token_len, credential_len }
        }
        Body::SynAck { endpoint: Attested { port, addr, .. }, token_len, credential_len } => {
            Body::SynAck { endpoint: Attested { protocol, port, addr }, token_len, credential_len }
        }
        Body::Ack { .. } | Body::Refusal { .. } | Body::TokenRequest { .. } => body,
    }
}

fn header(flags: Flags, mac: [u8; 16], body: Body) -> Header {
    Header { flags, token_id: counting(0x10), nonce: counting(0x60), mac, body }
}

fn encode(name: &'static str, flags: Flags, mac: [u8; 16], body: Body) -> anyhow::Result<Accepted> {
    let header = header(flags, mac, body);
    let (token_len, credential_len) = match body {
        Body::Syn { token_len, credential_len, .. } | Body::SynAck { token_len, credential_len, .. } => {
            (token_len, credential_len)
        }
        Body::Ack { .. } | Body::Refusal { .. } | Body::TokenRequest { .. } => (0, 0),
    };
    let token = TOKEN.get(..usize::from(token_len)).unwrap_or_default();
    let credential = CREDENTIAL.get(..usize::from(credential_len)).unwrap_or_default();
    let payload = header.encode(token, credential)?;
    if Header::parse(&payload)? != header {
        bail!("{name}: does not parse back");
    }
    Ok(Accepted {
        name,
        kind: header.kind().code(),
        flags: flags.bits(),
        token_id: hex(&header.token_id),
        nonce: hex(&header.nonce),
        mac: hex(&mac),
        body: fields(&body),
        token: hex(token),
        credential: hex(credential),
        payload: hex(&payload),
    })
}

fn fields(body: &Body) -> Fields {
    let family = |family: Family| match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    match *body {
        Body::Syn { family: of, protocol, .. } => Fields::Syn { family: family(of), protocol: protocol.0 },
        Body::SynAck { endpoint: Attested { protocol, port, addr }, .. } => Fields::SynAck {
            family: if addr.is_ipv4() { 4 } else { 6 },
            protocol: protocol.0,
            port,
            address: addr,
        },
        Body::Ack { echo, protocol } => Fields::Ack { echo: hex(&echo), protocol: protocol.0 },
        Body::Refusal { echo, protocol, reason, rule } => {
            Fields::Refusal { echo: hex(&echo), protocol: protocol.0, reason, rule }
        }
        Body::TokenRequest { echo, protocol } => {
            Fields::TokenRequest { echo: hex(&echo), protocol: protocol.0 }
        }
    }
}

fn refused() -> anyhow::Result<Vec<Refused>> {
    let mac = counting(0xa0);
    let syn = header(BOTH, mac, syn(Family::V4, 11, 10)).encode(TOKEN, CREDENTIAL)?;
    let syn_ack = header(Flags::MAC, mac, syn_ack(V4, 0, 0)).encode(&[], &[])?;
    let ack = header(Flags::MAC, mac, Body::Ack { echo: counting(0xe0), protocol: Protocol::TCP })
        .encode(&[], &[])?;
    let refusal = header(Flags::NONE, [0; 16], refusal(Protocol::TCP, 0, 0)).encode(&[], &[])?;
    let cut = ack.get(..79).unwrap_or_default().to_vec();
    let longer = [ack.as_slice(), &[0]].concat();
    [
        ("another magic", with(&syn, &[(0, 0x55)])),
        ("version 2", with(&syn, &[(3, 2)])),
        ("kind 0", with(&ack, &[(4, 0)])),
        ("kind 6", with(&ack, &[(4, 6)])),
        ("a flag without meaning", with(&ack, &[(5, 0x06)])),
        ("an ACK with a token flag", with(&ack, &[(5, 0x03)])),
        ("cut before the end of the header", cut),
        ("a byte too many", longer),
        ("length field too small", with(&syn, &[(7, 100)])),
        ("token length too large", with(&syn, &[(77, 12)])),
        ("token attached without its flag", with(&syn, &[(5, 0x02)])),
        ("SYN: family 5", with(&syn, &[(56, 5)])),
        ("SYN: protocol 1", with(&syn, &[(57, 1)])),
        ("SYN: padding not zero", with(&syn, &[(60, 1)])),
        ("SYN-ACK: port 0", with(&syn_ack, &[(58, 0), (59, 0)])),
        ("SYN-ACK: address 0.0.0.0", with(&syn_ack, &[(60, 0), (61, 0), (62, 0), (63, 0)])),
        ("SYN-ACK: IPv4 padding not zero", with(&syn_ack, &[(75, 1)])),
        ("ACK: padding not zero", with(&ack, &[(75, 1)])),
        ("ACK: protocol 6 is written as zero", with(&ack, &[(72, 6)])),
        ("ACK: lengths not zero", with(&ack, &[(77, 1)])),
        ("ACK: a MAC field without its flag", with(&ack, &[(5, 0)])),
        ("refusal: a reason without MAC", with(&refusal, &[(77, 7)])),
    ]
    .into_iter()
    .map(|(name, payload)| match Header::parse(&payload) {
        Ok(_) => bail!("{name}: is accepted"),
        Err(error) => Ok(Refused { name, payload: hex(&payload), error: error.name() }),
    })
    .collect()
}

fn with(payload: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut changed = payload.to_vec();
    for (at, value) in changes {
        if let Some(byte) = changed.get_mut(*at) {
            *byte = *value;
        }
    }
    changed
}
