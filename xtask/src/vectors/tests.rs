use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use trireme_handshake::message::{self, Attachment, Seal, Sender};
use trireme_identity::Protocol;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::credential::NodeCredential;
use trireme_token::{Constraints, Encoding, MacKey, Nonce, Signer};
use trireme_wire::ip::Family;
use trireme_wire::tap::Attested;

use super::tokens::{NODE, TIME, initiator_request, node_key, responder_request};
use super::*;

#[test]
fn two_runs_give_the_same_bytes_and_every_file_is_json() {
    let first = generate().unwrap();
    assert_eq!(first, generate().unwrap());
    for (name, text) in first {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["about"].is_string() && text.ends_with("}\n"), "{name}");
    }
}

fn content(file: &str) -> serde_json::Value {
    let files = generate().unwrap();
    let (_, text) = files.iter().find(|(name, _)| name == file).unwrap();
    serde_json::from_str(text).unwrap()
}

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    unhex(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &serde_json::Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// The vectors are composed here from header and MAC; the handshake crate must make the same.
#[test]
fn the_handshake_crate_makes_the_same_first_contact() {
    let file = content("handshake.json");
    for (index, family, port) in [(0, Family::V4, 8080), (1, Family::V6, 443)] {
        let vector = &file["handshakes"][index];
        let end = |name: &str| {
            let end = &vector[name];
            let sender = Sender {
                token: trireme_token::TokenId(array(&end["token_id"])),
                nonce: Nonce(array(&end["nonce"])),
            };
            (
                sender,
                MacKey::from_bytes(array(&end["mac_key"])),
                bytes(&end["token"]),
                bytes(&end["credential"]),
            )
        };
        let (initiator, initiator_key, token, credential) = end("initiator");
        let attached = Some(Attachment { token: &token, credential: &credential });
        let syn = message::syn(Protocol::TCP, initiator, family, Seal::Open, attached).unwrap();
        let (responder, responder_key, token, credential) = end("responder");
        let attached = Some(Attachment { token: &token, credential: &credential });
        let addr = if family == Family::V4 { "10.1.2.3" } else { "fd00::5" }.parse().unwrap();
        let endpoint = Attested { protocol: Protocol::TCP, port, addr };
        let syn_ack = message::syn_ack(responder, endpoint, &responder_key, initiator, attached).unwrap();
        let ack = message::ack(Protocol::TCP, initiator, &initiator_key, responder).unwrap();
        for (segment, expected) in [syn, syn_ack, ack].into_iter().enumerate() {
            assert_eq!(bytes(&vector["segments"][segment]["payload"]), expected, "{index} {segment}");
        }
    }
}

#[test]
fn the_handshake_crate_makes_the_same_syn_towards_a_known_node() {
    let vector = &content("handshake.json")["handshakes"][2];
    let from = Sender {
        token: trireme_token::TokenId(array(&vector["initiator"]["token_id"])),
        nonce: Nonce(array(&vector["initiator"]["nonce"])),
    };
    let key = MacKey::from_bytes(array(&vector["initiator"]["mac_key"]));
    let peer = trireme_token::TokenId(array(&vector["responder"]["token_id"]));
    let syn = message::syn(Protocol::TCP, from, Family::V4, Seal::Mac(&key, peer), None).unwrap();
    assert_eq!(bytes(&vector["segments"][0]["payload"]), syn);
}

#[test]
fn the_handshake_crate_makes_the_same_exchange_over_udp() {
    let vector = &content("handshake.json")["handshakes"][6];
    let end = |name: &str| {
        let end = &vector[name];
        let token = trireme_token::TokenId(array(&end["token_id"]));
        let sender = Sender { token, nonce: Nonce(array(&end["nonce"])) };
        (sender, MacKey::from_bytes(array(&end["mac_key"])))
    };
    let ((initiator, initiator_key), (responder, responder_key)) = (end("initiator"), end("responder"));
    let udp = Protocol::UDP;
    let addr = "10.1.2.3".parse().unwrap();
    let endpoint = Attested { protocol: udp, port: 8080, addr };
    let asking = Seal::Mac(&responder_key, initiator.token);
    let towards = Seal::Mac(&initiator_key, responder.token);
    let expected = [
        message::token_request(udp, responder.token, Nonce::ZERO, asking),
        message::syn(udp, initiator, Family::V4, towards, None),
        message::syn_ack(responder, endpoint, &responder_key, initiator, None),
        message::ack(udp, initiator, &initiator_key, responder),
        message::ack(udp, responder, &responder_key, initiator),
    ];
    for (index, expected) in expected.into_iter().enumerate() {
        assert_eq!(bytes(&vector["segments"][index]["payload"]), expected.unwrap(), "{index}");
    }
}

/// n of P-256.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

fn negated(s: &[u8]) -> Vec<u8> {
    let mut borrow = 0_i16;
    let mut out = Vec::new();
    for (n, s) in unhex(ORDER).unwrap().iter().zip(s).rev() {
        let difference = i16::from(*n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        out.push(u8::try_from(difference.rem_euclid(256)).unwrap());
    }
    out.reverse();
    out
}

#[test]
#[ignore = "makes new constants for fixed.rs; run by hand with --nocapture when the format changes"]
fn mint() {
    let rng = &mut seeded(0xca);
    let period = Period { now: TIME, lifetime_secs: 20 * 365 * 24 * 3600 };
    let ca = Authority::create("Trireme test vectors", &Constraints::Unrestricted, period, rng).unwrap();
    let key = node_key().unwrap();
    let request = NodeRequest {
        node: NODE.parse().unwrap(),
        key: key.public().clone(),
        constraints: Constraints::Unrestricted,
        period,
    };
    let certificate = ca.certify(&request, rng).unwrap();
    let key_token = ca.key_token(&request).unwrap();
    let constraints = Constraints::parse(["role=database"]).unwrap();
    let constrained = ca.key_token(&NodeRequest { constraints, ..request }).unwrap();
    let signer = Signer::pki(NODE.parse().unwrap(), key, &NodeCredential::Prepopulated).unwrap();
    let jwt = signer.issue(&initiator_request().unwrap(), Encoding::Jwt).unwrap().bytes;
    let cwt = signer.issue(&responder_request().unwrap(), Encoding::Cwt).unwrap().bytes;
    let (head, s) = cwt.split_at(cwt.len() - 32);
    let high_cwt = [head, &negated(s)].concat();
    let at = jwt.iter().rposition(|byte| *byte == b'.').unwrap() + 1;
    let mut signature = URL_SAFE_NO_PAD.decode(&jwt[at..]).unwrap();
    let s = negated(&signature[32..]);
    signature.splice(32.., s);
    let high_jwt = [&jwt[..at], URL_SAFE_NO_PAD.encode(&signature).as_bytes()].concat();
    for (name, bytes) in [
        ("CA_CERTIFICATE", ca.certificate_der()),
        ("NODE_CERTIFICATE", &certificate.bytes()),
        ("KEY_TOKEN", &key_token.bytes()),
        ("CONSTRAINED_KEY_TOKEN", &constrained.bytes()),
        ("INITIATOR_JWT", &jwt),
        ("RESPONDER_CWT", &cwt),
        ("HIGH_S_JWT", &high_jwt),
        ("HIGH_S_CWT", &high_cwt),
    ] {
        println!("{name} {}", hex(bytes));
    }
}
