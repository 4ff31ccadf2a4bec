//! New agreement keys: tried once per peer and rotation, and given up at the first repetition that nobody answered.

use std::time::Duration;

use trireme_flow::Reason;
use trireme_wire::edit;
use trireme_wire::tap::Flags as TapFlags;
use trireme_wire::tcp::Flags;

use crate::support::*;

fn id(wire: &[u8]) -> [u8; 16] {
    tap(wire).token_id
}

fn nonce(wire: &[u8]) -> [u8; 16] {
    tap(wire).nonce
}

fn has_token(wire: &[u8]) -> bool {
    tap(wire).flags.contains(TapFlags::TOKEN)
}

fn ack_of(isn: u32) -> Vec<u8> {
    segment(&from_client(isn + 1, SERVER_ISN + 1, Flags::ACK))
}

/// A pair that has talked, half a lifetime later; returns the ids of the tokens that it talked with.
fn aged() -> (Pair, [u8; 16], [u8; 16]) {
    let mut pair = Pair::new();
    let [syn_wire, syn_ack_wire, _] = pair.connect();
    pair.wait(Duration::from_secs(301));
    (pair, id(&syn_wire), id(&syn_ack_wire))
}

fn client_rotated() -> (Pair, [u8; 16]) {
    let (mut pair, old, _) = aged();
    pair.client.timeout(pair.now);
    (pair, old)
}

fn server_rotated() -> (Pair, [u8; 16]) {
    let (mut pair, _, old) = aged();
    pair.server.timeout(pair.now);
    (pair, old)
}

#[test]
fn the_newest_token_is_tried_once_and_its_first_repetition_goes_back() {
    let (mut pair, old) = client_rotated();
    let first = pair.client_sends(&syn_with(1000)).sent();
    assert!(id(&first) != old && has_token(&first) && tap(&first).has_mac());
    for _ in 0..2 {
        let again = pair.client_sends(&syn_with(1000)).sent();
        assert_eq!((id(&again), nonce(&again)), (old, nonce(&first)));
        assert!(has_token(&again) && tap(&again).has_mac());
    }
    let next = pair.client_sends(&syn_with(2000)).sent();
    assert_eq!((id(&next), has_token(&next)), (old, false), "once per peer and rotation");
}

#[test]
fn a_back_end_may_ask_for_another_try() {
    let (mut pair, old) = client_rotated();
    let first = pair.client_sends(&syn_with(1000)).sent();
    pair.client.renewal = true;
    let wire = pair.client_sends(&syn_with(2000)).sent();
    assert_eq!((id(&wire), has_token(&wire)), (id(&first), true));
    assert_eq!(id(&pair.client_sends(&syn_with(3000)).sent()), old);
}

#[test]
fn a_token_that_worked_stays_in_use() {
    let (mut pair, old) = client_rotated();
    let first = pair.client_sends(&syn_with(1000)).sent();
    pair.server_gets(&first).got();
    let answer = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
    pair.client_gets(&answer).got();
    let next = pair.client_sends(&syn_with(2000)).sent();
    assert_ne!(id(&next), old);
    assert_eq!((id(&next), has_token(&next)), (id(&first), false));
}

#[test]
fn a_responder_that_never_saw_the_newest_token_is_reached_with_the_old_one() {
    let (mut pair, old) = client_rotated();
    pair.client_sends(&syn_with(1000)).sent();
    let again = pair.client_sends(&syn_with(1000)).sent();
    pair.server_gets(&again).got();
    let answer = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
    pair.client_gets(&answer).got();
    let proof = pair.client_sends(&ack_of(1000)).sent();
    assert_eq!(id(&proof), old);
    assert_eq!(pair.server_gets(&proof).got(), ack_of(1000));
}

/// Both SYNs arrive, in either order; the SYN-ACK that arrives may answer either.
#[test]
fn both_tokens_of_one_handshake_are_good_wherever_they_meet() {
    for swapped in [false, true] {
        for answer_the_first in [false, true] {
            let (mut pair, _) = client_rotated();
            let mut syns: Vec<_> = (0..2).map(|_| pair.client_sends(&syn_with(1000)).sent()).collect();
            if swapped {
                syns.reverse();
            }
            pair.server_gets(&syns[0]).got();
            let first = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
            pair.server_gets(&syns[1]).got();
            pair.server_gets(&syns[0]).got();
            pair.server_gets(&syns[1]).got();
            let second = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
            assert_eq!(nonce(&first), nonce(&second));
            let (taken, other, token) =
                if answer_the_first { (first, second, &syns[0]) } else { (second, first, &syns[1]) };
            pair.client_gets(&taken).got();
            let proof = pair.client_sends(&ack_of(1000)).sent();
            assert_eq!(id(&proof), id(token));
            let step = pair.client_gets(&other);
            assert_eq!(step.unit, [syn_ack_with(SERVER_ISN, 1000)], "it only asks again");
            assert_eq!(payload(&step.network[0]), payload(&proof));
            assert_eq!(pair.server_gets(&proof).got(), ack_of(1000));
            assert_eq!(pair.server.table[&server_key()].peer_token.0, id(token));
        }
    }
}

#[test]
fn a_third_token_with_the_same_nonce_is_dropped() {
    let (mut pair, _) = client_rotated();
    for _ in 0..2 {
        let wire = pair.client_sends(&syn_with(1000)).sent();
        pair.server_gets(&wire).got();
    }
    let mut changed = client_spec();
    changed.tags = trireme_identity::TagSet::parse(["role=frontend", "n=3"]).unwrap();
    let mut third = Node::new(trireme_datapath::EngineConfig::default(), psk_secrets("node-a", KEY), 9);
    third.upsert(changed, pair.now);
    let foreign = third.handle(CLIENT, trireme_datapath::Hook::FromPu, &syn_with(1000), pair.now).sent();
    let again = pair.client_sends(&syn_with(1000)).sent();
    let mut forged = payload(&foreign).to_vec();
    forged[24..40].copy_from_slice(&nonce(&again));
    assert_eq!(pair.server_gets(&with_payload(&foreign, &forged)).silence(), Reason::NonceMismatch);
    pair.server_gets(&again).got();
}

#[test]
fn a_responder_shows_its_newest_token_once_and_goes_back_at_the_second_syn_ack() {
    let (mut pair, old) = server_rotated();
    let wire = pair.client_sends(&syn_with(1000)).sent();
    pair.server_gets(&wire).got();
    let first = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
    assert!(id(&first) != old && has_token(&first));
    let second = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
    assert_eq!((id(&second), nonce(&second), has_token(&second)), (old, nonce(&first), true));
    let wire = pair.client_sends(&syn_with(2000)).sent();
    pair.server_gets(&wire).got();
    let next = pair.server_sends(&syn_ack_with(SERVER_ISN, 2000)).sent();
    assert_eq!((id(&next), has_token(&next)), (old, false));
}

#[test]
fn a_proof_may_answer_either_token_of_the_responder() {
    for take_the_first in [false, true] {
        let (mut pair, old) = server_rotated();
        let wire = pair.client_sends(&syn_with(1000)).sent();
        pair.server_gets(&wire).got();
        let answers: Vec<_> =
            (0..2).map(|_| pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent()).collect();
        let (taken, other) = if take_the_first { (0, 1) } else { (1, 0) };
        pair.client_gets(&answers[taken]).got();
        let proof = pair.client_sends(&ack_of(1000)).sent();
        assert_eq!(pair.client_gets(&answers[other]).unit, [syn_ack_with(SERVER_ISN, 1000)]);
        assert_eq!(pair.server_gets(&proof).got(), ack_of(1000));
        // The client's next SYN is for the token that it has seen at work.
        let wire = pair.client_sends(&syn_with(2000)).sent();
        pair.server_gets(&wire).got();
        let next = pair.server_sends(&syn_ack_with(SERVER_ISN, 2000)).sent();
        assert_eq!(id(&next) != old, take_the_first);
        assert!(!has_token(&next));
    }
}

#[test]
fn an_old_token_is_used_until_it_ends() {
    let (mut pair, old) = client_rotated();
    pair.client_sends(&syn_with(1000)).sent();
    assert_eq!(id(&pair.client_sends(&syn_with(2000)).sent()), old);
    pair.wait(Duration::from_secs(299));
    assert_ne!(id(&pair.client_sends(&syn_with(3000)).sent()), old);
}

/// Behind a service address any node may answer, and the one that does may be one without an agent.
#[test]
fn behind_a_service_the_token_that_worked_there_is_the_one_to_go_back_to() {
    let mut pair = Pair::new();
    let service = trireme_wire::tuple::Endpoint::new(ip("10.0.0.99"), 8080);
    let syn_to = |isn| {
        let mut bytes = syn_with(isn);
        edit::set_destination(&mut bytes, service).unwrap();
        bytes
    };
    let first = pair.client_sends(&syn_to(CLIENT_ISN)).sent();
    let old = id(&first);
    let mut wire = first;
    edit::set_destination(&mut wire, server_end()).unwrap();
    pair.server_gets(&wire).got();
    let mut wire = pair.server_sends(&syn_ack()).sent();
    edit::set_source(&mut wire, service).unwrap();
    assert_eq!(pair.client_gets(&wire).dropped, None);
    pair.wait(Duration::from_secs(301));
    pair.client.timeout(pair.now);
    let tried = pair.client_sends(&syn_to(1000)).sent();
    assert!(id(&tried) != old && !tap(&tried).has_mac());
    let again = pair.client_sends(&syn_to(1000)).sent();
    assert_eq!((id(&again), nonce(&again)), (old, nonce(&tried)));
    assert_eq!(id(&pair.client_sends(&syn_to(2000)).sent()), old);
}
