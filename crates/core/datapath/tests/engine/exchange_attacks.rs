//! Identities over UDP against forged, replayed and misplaced messages.

use std::time::Duration;

use trireme_datapath::{EngineConfig, NotifyPeer};
use trireme_flow::Reason;
use trireme_handshake::message::{self as forge, Sender};
use trireme_identity::Protocol;
use trireme_token::{MacKey, Nonce, TokenId};
use trireme_wire::tap::{Body, Header};

use crate::exchange::{called, caller, exchange, message, pair, query, reply, until_proof};
use crate::support::*;

fn from_server(payload: &[u8]) -> Vec<u8> {
    reply(payload)
}

#[test]
fn a_unit_writes_no_messages_of_its_own() {
    let mut pair = pair();
    let [opening, ..] = exchange(&mut pair, b"query");
    let forged = data_of(&opening).to_vec();
    assert_eq!(pair.client_sends(&query(&forged)).silence(), Reason::TapFromPu);
    let cut = &forged[..79];
    assert_eq!(pair.client_sends(&query(cut)).sent(), query(cut), "data that begins like a message");
    assert_eq!(pair.server_gets(&query(cut)).got(), query(cut));
    assert_eq!(pair.server_gets(&query(b"TAPE")).got(), query(b"TAPE"));
}

#[test]
fn before_the_flow_is_known_nothing_that_looks_like_tap_reaches_the_unit() {
    let mut pair = pair();
    assert_eq!(pair.server_gets(&query(b"TAP\x01 and more")).silence(), Reason::TapMalformed);
    let step = pair.server_gets(&query(&[&b"TAP\x02"[..], &[0; 80]].concat()));
    assert_eq!((step.dropped, step.unit.len()), (Some(Reason::TapVersion), 0));
    assert!(matches!(message_of(&step.network[0]).body, Body::TokenRequest { protocol: Protocol::UDP, .. }));
}

#[test]
fn replayed_messages_open_nothing() {
    let mut pair = pair();
    let messages = exchange(&mut pair, b"query");
    pair.wait(Duration::from_secs(60));
    for node in [&mut pair.client, &mut pair.server] {
        node.table.clear();
    }
    pair.client.timeout(pair.now);
    pair.server.timeout(pair.now);
    let [opening, answer, proof, confirmation] = messages;
    let step = pair.server_gets(&opening);
    assert_ne!(message_of(&step.network[0]).nonce, message_of(&answer).nonce);
    assert_eq!(pair.server_gets(&proof).silence(), Reason::NonceMismatch);
    assert_eq!(pair.server_gets(&query(b"data")), Step::default(), "it waits for a proof that does not come");
    pair.wait(Duration::from_secs(3));
    assert_eq!(pair.server.timeout(pair.now), Step::default());
    assert_eq!(pair.server.count(SERVER, Reason::ProofMissing), 1);
    assert!(pair.server.table.is_empty());
    assert_eq!(pair.client_gets(&answer).silence(), Reason::TapUnexpected);
    assert_eq!(pair.client_gets(&confirmation).silence(), Reason::NonceMismatch);
    assert!(pair.client.table.is_empty());
}

#[test]
fn messages_of_tcp_are_none_of_udp() {
    let mut tcp = Pair::new();
    let [syn, syn_ack, ack] = tcp.connect();
    let mut pair = pair();
    until_proof(&mut pair, b"query");
    for (bytes, to_server) in [(syn, true), (syn_ack, false), (ack, true)] {
        let payload = payload(&bytes);
        let step =
            if to_server { pair.server_gets(&query(payload)) } else { pair.client_gets(&reply(payload)) };
        assert_eq!(step.silence(), Reason::TapUnexpected);
    }
}

#[test]
fn forged_answers_proofs_and_confirmations_change_nothing() {
    let mut pair = pair();
    let opening = message(pair.client_sends(&query(b"query")));
    let answer = message(pair.server_gets(&opening));
    for at in [8, 24, 40, 58, 60] {
        let mut payload = data_of(&answer).to_vec();
        payload[at] ^= 1;
        let step = pair.client_gets(&from_server(&payload));
        assert!(step.network.is_empty() && step.dropped.is_some(), "{at}");
    }
    let step = pair.client_gets(&answer);
    let proof = step.network[0].clone();
    for at in [24, 40, 56] {
        let mut payload = data_of(&proof).to_vec();
        payload[at] ^= 1;
        let reason = pair.server_gets(&query(&payload)).silence();
        assert!(matches!(reason, Reason::NonceMismatch | Reason::MacInvalid), "{at}: {reason}");
    }
    assert!(pair.server.table.is_empty());
    let confirmation = message(pair.server_gets(&proof));
    let mut payload = data_of(&confirmation).to_vec();
    payload[40] ^= 1;
    assert_eq!(pair.client_gets(&from_server(&payload)).silence(), Reason::MacInvalid);
    pair.wait(Duration::from_millis(200));
    assert_eq!(message(pair.client.timeout(pair.now)), proof, "it is still not confirmed");
}

#[test]
fn refusals_are_reported_and_change_nothing() {
    let mut server = called();
    server.settings.notify_peer = NotifyPeer::WithReason;
    let stranger = spec(CLIENT, "client", &["role=other"], caller().policy.source());
    let mut pair = Pair::with(EngineConfig::default(), stranger, server);
    let opening = message(pair.client_sends(&query(b"query")));
    let step = pair.server_gets(&opening);
    assert_eq!(step.dropped, Some(Reason::PolicyIngress));
    let refusal = step.network[0].clone();
    let Body::Refusal { reason, protocol, .. } = message_of(&refusal).body else { panic!("kind 4") };
    assert_eq!((reason, protocol), (Reason::PolicyIngress.code(), Protocol::UDP));
    assert_eq!(pair.client_gets(&refusal).silence(), Reason::Consumed);
    assert_eq!(pair.client.count(CLIENT, Reason::RefusedByPeer), 1);
    pair.wait(Duration::from_millis(200));
    assert_eq!(message_of(&message(pair.client.timeout(pair.now))).nonce, message_of(&opening).nonce);

    let spoofed = |nonce: [u8; 16]| {
        let to = Sender { token: TokenId([9; 16]), nonce: Nonce(nonce) };
        from_server(&forge::refusal(Protocol::UDP, TokenId([8; 16]), None, to, 0, 0).unwrap())
    };
    assert_eq!(pair.client_gets(&spoofed([7; 16])).silence(), Reason::NonceMismatch);
    assert_eq!(pair.client_gets(&spoofed(message_of(&opening).nonce)).silence(), Reason::Consumed);
    assert_eq!(pair.client.count(CLIENT, Reason::RefusedByPeer), 1, "once");
}

#[test]
fn an_invitation_needs_the_key_of_the_flows_own_peer() {
    let mut pair = pair();
    exchange(&mut pair, b"query");
    let peer = pair.client.table[&client_key().over(Protocol::UDP)].peer_token;
    let key = MacKey::from_bytes([1; 16]);
    let forged = |token: TokenId, seal: forge::Seal<'_>| {
        from_server(&forge::token_request(Protocol::UDP, token, Nonce::ZERO, seal).unwrap())
    };
    for packet in [
        forged(peer, forge::Seal::Mac(&key, peer)),
        forged(peer, forge::Seal::Open),
        forged(TokenId([9; 16]), forge::Seal::Mac(&key, peer)),
    ] {
        assert_eq!(pair.client_gets(&packet).silence(), Reason::MacInvalid);
    }
    assert_eq!(pair.client.stats().half_open, 1);
    // Where the last exchange is forgotten, an exchange is what it leads to, and nothing else; not twice.
    pair.wait(Duration::from_secs(60));
    pair.client.timeout(pair.now);
    let packet = forged(TokenId([9; 16]), forge::Seal::Mac(&key, peer));
    let opening = message(pair.client_gets(&packet));
    assert_eq!(pair.client_gets(&packet).silence(), Reason::MacInvalid);
    assert_eq!(pair.client_sends(&query(b"meanwhile")).sent(), query(b"meanwhile"));
    assert_eq!(message_of(&opening).kind(), trireme_wire::tap::Kind::Syn);
}

#[test]
fn an_unknown_token_is_asked_for_and_comes_whole() {
    let mut pair = pair();
    exchange(&mut pair, b"query");
    // The server's node starts again: it knows nobody.
    pair.server = Node::new(EngineConfig::default(), psk_secrets("node-b", KEY), 3);
    pair.server.upsert(called(), pair.now);
    let other = udp(Endpoint::new(client_end().addr, 40_001), server_end(), b"more");
    let opening = message(pair.client_sends(&other));
    let step = pair.server_gets(&opening);
    assert_eq!(step.dropped, Some(Reason::TokenUnknown));
    let whole = message(pair.client_gets(&step.network[0]));
    assert_eq!(message_of(&whole).nonce, message_of(&opening).nonce);
    let answer = message(pair.server_gets(&whole));
    let step = pair.client_gets(&answer);
    assert_eq!(step.network[1], other);
}

#[test]
fn a_damaged_message_is_dropped() {
    let mut pair = pair();
    let mut opening = message(pair.client_sends(&query(b"query")));
    let last = opening.len() - 1;
    opening[last] ^= 1;
    assert_eq!(pair.server_gets(&opening).silence(), Reason::BadChecksum);
}

#[test]
fn what_answers_is_no_larger_than_what_asks_unless_it_proved_its_address_before() {
    let mut pair = pair();
    let [opening, answer, ..] = exchange(&mut pair, b"query");
    // Only the id, as if it were known, and no MAC.
    let mut bare = message_of(&opening);
    bare.flags = trireme_wire::tap::Flags::NONE;
    let Body::Syn { family, protocol, .. } = bare.body else { panic!("kind 1") };
    let bare = Header {
        body: Body::Syn { family, protocol, token_len: 0, credential_len: 0 },
        nonce: [5; 16],
        ..bare
    };
    let step = pair.server_gets(&query(&bare.encode(&[], &[]).unwrap()));
    let sent: usize = step.network.iter().map(Vec::len).sum();
    assert!(sent < answer.len() / 2, "{sent} bytes");
}
