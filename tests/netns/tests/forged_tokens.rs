//! Tokens of a node that cheats: it has a true key, but says what it may not say.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trireme_flow::Reason;
use trireme_identity::time::WallTime;
use trireme_identity::{Protocol, TagSet};
use trireme_testkit::lab::{Family, IpTap, NodeKeys, RawSender, Server};
use trireme_tests_netns::{PORT, World, WorldSpec, kind_of};
use trireme_token::credential::NodeCredential;
use trireme_token::{AgreementKey, Encoding, SeededRandom, Signer, SigningKey, Token, TokenRequest};
use trireme_wire::build::{self, TcpSpec};
use trireme_wire::ip;
use trireme_wire::tap::{Body, Flags as TapFlags, Header, Kind};
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::tuple::Endpoint;

/// A token as node a could sign it.
fn issue(keys: &NodeKeys, tags: &[&str], issued_at: WallTime) -> Token {
    let key = SigningKey::from_pem(&fs::read_to_string(&keys.key).unwrap()).unwrap();
    let credential = NodeCredential::from_pem(&fs::read_to_string(&keys.certificate).unwrap()).unwrap();
    let signer = Signer::pki("node-a".parse().unwrap(), key, &credential).unwrap();
    let agreement = AgreementKey::generate(&mut SeededRandom::new([7; 32])).unwrap();
    let request = TokenRequest {
        subject: "client".parse().unwrap(),
        tags: TagSet::parse(tags.iter().copied()).unwrap(),
        partial: false,
        agreement: agreement.public(),
        issued_at,
        lifetime_secs: 600,
    };
    signer.issue(&request, Encoding::Cwt).unwrap()
}

/// Sends a SYN with this token from the router in the client's name; tells whether it was answered.
fn is_answered(world: &World, token: &Token, port: u16) -> bool {
    let body = Body::Syn {
        family: ip::Family::V4,
        protocol: Protocol::TCP,
        token_len: token.bytes.len().try_into().unwrap(),
        credential_len: token.credential.len().try_into().unwrap(),
    };
    let header = Header { flags: TapFlags::TOKEN, token_id: token.id.0, nonce: [9; 16], mac: [0; 16], body };
    let payload = header.encode(&token.bytes, &token.credential).unwrap();
    let client = Endpoint::new(world.client.address(Family::V4), port);
    let server = Endpoint::new(world.server.address(Family::V4), PORT);
    let spec =
        TcpSpec { window: 64_240, payload: &payload, ..TcpSpec::new(client, server, 77, 0, Flags::SYN) };
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    RawSender::open(world.lab.router()).unwrap().send(&build::tcp(&spec).unwrap()).unwrap();
    let answer = tap.find(Duration::from_secs(1), |packet| {
        kind_of(packet) == Some(Kind::SynAck) && Segment::parse(packet).unwrap().dst_port == port
    });
    answer.unwrap().is_some()
}

fn now() -> WallTime {
    WallTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

#[test]
fn a_true_token_is_answered_so_that_the_refusals_of_these_tests_mean_something() {
    let spec = WorldSpec::new();
    let token = issue(&spec.keys_a, &["role=client"], now());
    let _server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world = spec.start();
    assert!(is_answered(&world, &token, 40_001), "{}", world.logs());
}

#[test]
fn an_expired_token_is_refused() {
    is_refused(Reason::TokenExpired, |keys| issue(keys, &["role=client"], now().minus_secs(700)));
}

#[test]
fn a_token_from_the_future_is_refused() {
    is_refused(Reason::TokenNotYetValid, |keys| issue(keys, &["role=client"], now().plus_secs(300)));
}

#[test]
fn a_token_with_another_signature_is_refused() {
    is_refused(Reason::TokenSignature, |keys| {
        let token = issue(keys, &["role=stranger"], now());
        let other = issue(keys, &["role=client"], now());
        // The signature is the last 64 bytes of a compact token.
        let mut bytes = token.bytes.to_vec();
        let split = bytes.len() - 64;
        bytes.truncate(split);
        bytes.extend_from_slice(&other.bytes[other.bytes.len() - 64..]);
        Token { bytes: bytes.into(), ..token }
    });
}

fn is_refused(reason: Reason, forge: impl Fn(&NodeKeys) -> Token) {
    let spec = WorldSpec::new();
    let token = forge(&spec.keys_a);
    let server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world = spec.start();
    assert!(!is_answered(&world, &token, 40_001), "{}", world.logs());
    assert_eq!(server.accepted(), 0);
    world.b.await_refusal(reason).unwrap();
}

#[test]
fn a_node_cannot_claim_tags_that_its_certificate_forbids() {
    let spec = WorldSpec::new();
    let keys = spec.authority.issue_as("node-a", "limited", &["role=stranger"]).unwrap();
    let token = issue(&keys, &["role=client"], now());
    let _server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world = spec.start();
    assert!(!is_answered(&world, &token, 40_001), "{}", world.logs());
    world.b.await_refusal(Reason::TokenConstraint).unwrap();
}
