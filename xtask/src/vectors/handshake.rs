//! Whole handshakes: the payload of every segment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use trireme_identity::Protocol;
use trireme_token::{Encoding, MacKey, Nonce, PairKeys, PairMode, Role, TokenId, mac, pair_keys};
use trireme_wire::ip::Family;
use trireme_wire::tap::{Attested, Body, Flags, Header};

use super::tokens::{TIME, initiator_request, key_token, psk_token, responder_request};
use super::{INITIATOR, PSK, RESPONDER, agreement, counting, fixed, hex, psk, unhex};

/// The file's content.
#[derive(Serialize)]
pub(super) struct Handshakes {
    about: &'static str,
    time: u64,
    handshakes: Vec<Handshake>,
}

#[derive(Serialize)]
struct Handshake {
    name: &'static str,
    mode: &'static str,
    psk: Option<&'static str>,
    initiator: End,
    responder: End,
    segments: Vec<Segment>,
}

#[derive(Serialize)]
struct End {
    agreement_private: String,
    token: String,
    credential: String,
    token_id: String,
    nonce: String,
    mac_key: String,
}

#[derive(Serialize)]
struct Segment {
    from: &'static str,
    meaning: &'static str,
    payload: String,
}

/// One end with everything it sends.
#[derive(Clone)]
struct Party {
    private: u8,
    token: Vec<u8>,
    credential: Vec<u8>,
    id: TokenId,
    nonce: Nonce,
}

/// Whether the token travels or only its id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attach {
    Token,
    IdOnly,
}

/// What fills the MAC field.
#[derive(Clone, Copy)]
enum Seal<'a> {
    Open,
    Cookie([u8; 16]),
    Mac { key: &'a MacKey, peer_token: TokenId, peer_nonce: Nonce },
}

const V4: Attested =
    Attested { protocol: Protocol::TCP, port: 8080, addr: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)) };
const V6: Attested = Attested {
    protocol: Protocol::TCP,
    port: 443,
    addr: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5)),
};

/// Computes the file's content.
pub(super) fn generate() -> anyhow::Result<Handshakes> {
    Ok(Handshakes {
        about: "payloads of the segments of TCP handshakes, and data of the datagrams of exchanges over UDP; MACs as in macs.json with the keys given here; a SYN \
                towards a known node has the MAC over that node's token id and a zero nonce",
        time: TIME.0,
        handshakes: vec![
            first_contact("psk: first contact", &psk_pair()?, V4, Family::V4)?,
            first_contact("pki: first contact, JWT node to CWT node, IPv6", &pki_pair()?, V6, Family::V6)?,
            known_peers()?,
            unknown_id()?,
            refused()?,
            over_udp()?,
            over_udp_again()?,
        ],
    })
}

/// Both ends and the keys between them.
struct Pair {
    psk: Option<&'static str>,
    initiator: Party,
    responder: Party,
    keys: PairKeys,
}

fn psk_pair() -> anyhow::Result<Pair> {
    let initiator = psk_token("node-a", &initiator_request()?, Encoding::Cwt)?;
    let responder = psk_token("node-b", &responder_request()?, Encoding::Cwt)?;
    Ok(Pair {
        psk: Some(PSK),
        initiator: Party {
            private: INITIATOR,
            token: initiator.bytes.to_vec(),
            credential: Vec::new(),
            id: initiator.id,
            nonce: Nonce(counting(0x30)),
        },
        responder: Party {
            private: RESPONDER,
            token: responder.bytes.to_vec(),
            credential: Vec::new(),
            id: responder.id,
            nonce: Nonce(counting(0x50)),
        },
        keys: keys(PairMode::Psk(&psk()?))?,
    })
}

/// Two processing units of one node.
fn pki_pair() -> anyhow::Result<Pair> {
    let jwt = unhex(fixed::INITIATOR_JWT)?;
    let cwt = unhex(fixed::RESPONDER_CWT)?;
    let verifier = super::tokens::known_key()?;
    let party = |private: u8, token: Vec<u8>, credential: Vec<u8>, nonce: u8| {
        let id = verifier.cheap_check(&token, &[])?;
        Ok::<_, anyhow::Error>(Party { private, token, credential, id, nonce: Nonce(counting(nonce)) })
    };
    Ok(Pair {
        psk: None,
        initiator: party(INITIATOR, jwt, unhex(fixed::NODE_CERTIFICATE)?, 0x70)?,
        responder: party(RESPONDER, cwt, key_token()?.bytes().to_vec(), 0x90)?,
        keys: keys(PairMode::Pki)?,
    })
}

fn keys(mode: PairMode<'_>) -> anyhow::Result<PairKeys> {
    Ok(pair_keys(&agreement(INITIATOR)?, &agreement(RESPONDER)?.public(), Role::Initiator, mode)?)
}

impl Pair {
    fn handshake(&self, name: &'static str, segments: Vec<Segment>) -> Handshake {
        Handshake {
            name,
            mode: if self.psk.is_some() { "psk" } else { "pki" },
            psk: self.psk,
            initiator: end(&self.initiator, &self.keys.initiator),
            responder: end(&self.responder, &self.keys.responder),
            segments,
        }
    }

    /// The MAC of what the initiator sends in answer to the responder.
    const fn by_initiator(&self) -> Seal<'_> {
        let Party { id, nonce, .. } = self.responder;
        Seal::Mac { key: &self.keys.initiator, peer_token: id, peer_nonce: nonce }
    }

    /// The MAC of what the responder sends in answer to the initiator.
    const fn by_responder(&self) -> Seal<'_> {
        let Party { id, nonce, .. } = self.initiator;
        Seal::Mac { key: &self.keys.responder, peer_token: id, peer_nonce: nonce }
    }
}

fn first_contact(
    name: &'static str,
    pair: &Pair,
    endpoint: Attested,
    family: Family,
) -> anyhow::Result<Handshake> {
    let segments = vec![
        syn("SYN with token, the peer is not known", &pair.initiator, family, Attach::Token, Seal::Open)?,
        syn_ack("SYN-ACK with token and MAC", &pair.responder, endpoint, Attach::Token, pair.by_responder())?,
        ack("first ACK: the proof", pair)?,
    ];
    Ok(pair.handshake(name, segments))
}

fn known_peers() -> anyhow::Result<Handshake> {
    let mut pair = psk_pair()?;
    pair.initiator.nonce = Nonce(counting(0x31));
    pair.responder.nonce = Nonce(counting(0x51));
    let towards =
        Seal::Mac { key: &pair.keys.initiator, peer_token: pair.responder.id, peer_nonce: Nonce::ZERO };
    let segments = vec![
        syn("SYN with the id only and MAC", &pair.initiator, Family::V4, Attach::IdOnly, towards)?,
        syn_ack("SYN-ACK with the id only", &pair.responder, V4, Attach::IdOnly, pair.by_responder())?,
        ack("first ACK: the proof", &pair)?,
    ];
    Ok(pair.handshake("psk: both hold the other's token", segments))
}

fn unknown_id() -> anyhow::Result<Handshake> {
    let pair = psk_pair()?;
    let cookie = counting(0xc0);
    let first = &pair.initiator;
    let request = Body::TokenRequest { echo: first.nonce.0, protocol: Protocol::TCP };
    let responder = Party { nonce: Nonce::ZERO, ..pair.responder.clone() };
    let segments = vec![
        syn(
            "SYN with an id that the responder does not know",
            first,
            Family::V4,
            Attach::IdOnly,
            Seal::Open,
        )?,
        segment("responder", "token request with a cookie", &responder, request, None, Seal::Cookie(cookie))?,
        syn(
            "SYN with token that returns the cookie",
            first,
            Family::V4,
            Attach::Token,
            Seal::Cookie(cookie),
        )?,
        syn_ack("SYN-ACK with token and MAC", &pair.responder, V4, Attach::Token, pair.by_responder())?,
        ack("first ACK: the proof", &pair)?,
    ];
    Ok(pair.handshake("psk: unknown token id, under pressure", segments))
}

fn refused() -> anyhow::Result<Handshake> {
    let pair = psk_pair()?;
    let echo = pair.initiator.nonce.0;
    let responder = Party { nonce: Nonce::ZERO, ..pair.responder.clone() };
    let protocol = Protocol::TCP;
    let told = Body::Refusal { echo, protocol, reason: 7, rule: 3 };
    let untold = Body::Refusal { echo, protocol, reason: 0, rule: 0 };
    let segments = vec![
        syn("SYN that policy refuses", &pair.initiator, Family::V4, Attach::Token, Seal::Open)?,
        segment("responder", "refusal with MAC", &responder, told, None, pair.by_responder())?,
        segment("responder", "refusal without MAC says nothing more", &responder, untold, None, Seal::Open)?,
    ];
    Ok(pair.handshake("psk: refused", segments))
}

const V4_UDP: Attested = Attested { protocol: Protocol::UDP, ..V4 };

fn over_udp() -> anyhow::Result<Handshake> {
    let mut pair = psk_pair()?;
    pair.initiator.nonce = Nonce(counting(0x32));
    pair.responder.nonce = Nonce(counting(0x52));
    let segments = vec![
        syn("UDP: kind 1, the peer is not known", &pair.initiator, Family::V4, Attach::Token, Seal::Open)?,
        syn_ack("UDP: kind 2", &pair.responder, V4_UDP, Attach::Token, pair.by_responder())?,
        ack("UDP: kind 3: the proof", &pair)?,
        confirmation(&pair)?,
    ];
    Ok(pair.handshake("psk: over UDP", segments))
}

/// The responder has forgotten the flow and knows the node behind it.
fn over_udp_again() -> anyhow::Result<Handshake> {
    let mut pair = psk_pair()?;
    pair.initiator.nonce = Nonce(counting(0x33));
    pair.responder.nonce = Nonce(counting(0x53));
    let begin = Body::TokenRequest { echo: [0; 16], protocol: Protocol::UDP };
    let asking =
        Seal::Mac { key: &pair.keys.responder, peer_token: pair.initiator.id, peer_nonce: Nonce::ZERO };
    let towards =
        Seal::Mac { key: &pair.keys.initiator, peer_token: pair.responder.id, peer_nonce: Nonce::ZERO };
    let responder = Party { nonce: Nonce::ZERO, ..pair.responder.clone() };
    let segments = vec![
        segment("responder", "UDP: kind 5 that asks to begin", &responder, begin, None, asking)?,
        syn("UDP: kind 1 with the id only and MAC", &pair.initiator, Family::V4, Attach::IdOnly, towards)?,
        syn_ack(
            "UDP: kind 2 with the id only",
            &pair.responder,
            V4_UDP,
            Attach::IdOnly,
            pair.by_responder(),
        )?,
        ack("UDP: kind 3: the proof", &pair)?,
        confirmation(&pair)?,
    ];
    Ok(pair.handshake("psk: over UDP, asked for by the responder", segments))
}

fn confirmation(pair: &Pair) -> anyhow::Result<Segment> {
    let body = Body::Ack { echo: pair.initiator.nonce.0, protocol: Protocol::UDP };
    let meaning = "UDP: kind 3 of the responder: the confirmation";
    segment("responder", meaning, &pair.responder, body, None, pair.by_responder())
}

/// Meanings of datagrams say so.
fn pair_protocol(meaning: &str) -> Protocol {
    if meaning.starts_with("UDP") { Protocol::UDP } else { Protocol::TCP }
}

fn syn(
    meaning: &'static str,
    party: &Party,
    family: Family,
    attach: Attach,
    seal: Seal<'_>,
) -> anyhow::Result<Segment> {
    let (token_len, credential_len) = party.lengths(attach)?;
    let body = Body::Syn { family, protocol: pair_protocol(meaning), token_len, credential_len };
    segment("initiator", meaning, party, body, Some(attach), seal)
}

fn syn_ack(
    meaning: &'static str,
    party: &Party,
    endpoint: Attested,
    attach: Attach,
    seal: Seal<'_>,
) -> anyhow::Result<Segment> {
    let (token_len, credential_len) = party.lengths(attach)?;
    let body = Body::SynAck { endpoint, token_len, credential_len };
    segment("responder", meaning, party, body, Some(attach), seal)
}

fn ack(meaning: &'static str, pair: &Pair) -> anyhow::Result<Segment> {
    let body = Body::Ack { echo: pair.responder.nonce.0, protocol: pair_protocol(meaning) };
    segment("initiator", meaning, &pair.initiator, body, None, pair.by_initiator())
}

fn segment(
    from: &'static str,
    meaning: &'static str,
    party: &Party,
    body: Body,
    attach: Option<Attach>,
    seal: Seal<'_>,
) -> anyhow::Result<Segment> {
    let attached = attach == Some(Attach::Token);
    let flags = if attached { Flags::TOKEN } else { Flags::NONE };
    let mut header = Header { flags, token_id: party.id.0, nonce: party.nonce.0, mac: [0; 16], body };
    match seal {
        Seal::Open => {}
        Seal::Cookie(cookie) => header.mac = cookie,
        Seal::Mac { key, peer_token, peer_nonce } => {
            header.flags = header.flags.union(Flags::MAC);
            let (front, back) = header.mac_input();
            header.mac = mac(key, &front, &back, &peer_token, &peer_nonce);
        }
    }
    let (token, credential): (&[u8], &[u8]) =
        if attached { (&party.token, &party.credential) } else { (&[], &[]) };
    Ok(Segment { from, meaning, payload: hex(&header.encode(token, credential)?) })
}

impl Party {
    fn lengths(&self, attach: Attach) -> anyhow::Result<(u16, u16)> {
        Ok(match attach {
            Attach::Token => (u16::try_from(self.token.len())?, u16::try_from(self.credential.len())?),
            Attach::IdOnly => (0, 0),
        })
    }
}

fn end(party: &Party, key: &MacKey) -> End {
    End {
        agreement_private: hex(&[party.private; 32]),
        token: hex(&party.token),
        credential: hex(&party.credential),
        token_id: party.id.to_string(),
        nonce: party.nonce.to_string(),
        mac_key: hex(key.secret_bytes()),
    }
}
