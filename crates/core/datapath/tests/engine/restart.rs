//! What survives a restart of the engine: own tokens, peers at their places, counters.

use trireme_datapath::{Engine, EngineConfig, Lesson, PeersError};
use trireme_flow::Reason;
use trireme_identity::Direction;
use trireme_token::{DenyList, TokenId};

use crate::support::*;

/// Stops the server's engine and starts another; the kernel's table stays.
fn restart(pair: &mut Pair, peers: &[u8]) -> usize {
    let tokens = pair.server.engine.export_tokens().unwrap();
    let secrets = psk_secrets("node-b", KEY);
    pair.server.verifier = std::sync::Arc::clone(&secrets.verifier);
    pair.server.engine = Engine::new(EngineConfig::default(), secrets, [77; 32]).unwrap();
    pair.server.engine.import_tokens(&tokens).unwrap();
    let count = pair.server.engine.import_peers(peers, pair.now).unwrap();
    pair.server.lessons.clear();
    count
}

fn place(node: &Node) -> (TokenId, u32, u32) {
    let told = node.lessons.iter().rev().find_map(|lesson| {
        let Lesson::Peer { token, slot, generation, .. } = lesson else { return None };
        Some((*token, *slot, *generation))
    });
    told.unwrap()
}

fn next_epoch(pair: &mut Pair) {
    let mut server = server_spec();
    server.epoch = 2;
    pair.server.upsert(server, pair.now);
}

#[test]
fn live_connections_are_judged_by_claims_from_before_the_restart() {
    let mut pair = Pair::new();
    pair.connect();
    // Longer than the token lives.
    pair.wait(std::time::Duration::from_secs(4000));
    let peers = pair.server.engine.export_peers().unwrap();
    assert_eq!(restart(&mut pair, &peers), 1);
    next_epoch(&mut pair);
    assert_eq!(pair.server_gets(&data(b"x")).got(), data(b"x"));
    restart(&mut pair, &Pair::new().server.engine.export_peers().unwrap());
    let mut server = server_spec();
    server.epoch = 3;
    pair.server.upsert(server, pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::PeerForgotten);
}

#[test]
fn a_peer_from_before_the_restart_needs_not_send_its_token_again() {
    let mut pair = Pair::new();
    pair.connect();
    let before = place(&pair.server);
    let peers = pair.server.engine.export_peers().unwrap();
    restart(&mut pair, &peers);
    pair.server.upsert(server_spec(), pair.now);
    assert!(pair.server.engine.knows_peer(&before.0, before.1, before.2));
    assert!(!pair.server.engine.knows_peer(&before.0, before.1, before.2 + 1));
    let wire = pair.client_sends(&syn_with(1000)).sent();
    pair.server_gets(&wire).got();
    assert_eq!(place(&pair.server), before);
}

#[test]
fn claims_that_other_secrets_do_not_vouch_for_are_not_believed() {
    let mut pair = Pair::new();
    pair.connect();
    let peers = pair.server.engine.export_peers().unwrap();
    let secrets = psk_secrets("node-b", "Zc8nBm4QhTy2UiLk7JdF");
    pair.server.engine = Engine::new(EngineConfig::default(), secrets, [77; 32]).unwrap();
    assert_eq!(pair.server.engine.import_peers(&peers, pair.now).unwrap(), 1);
    next_epoch(&mut pair);
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::PeerForgotten);
}

#[test]
fn damaged_peers_are_refused_as_a_whole() {
    let mut pair = Pair::new();
    pair.connect();
    let peers = String::from_utf8(pair.server.engine.export_peers().unwrap()).unwrap();
    for wrong in ["", "{}", &peers[..peers.len() - 1], &peers.replace("\"version\":1", "\"version\":9")] {
        let mut engine = Engine::new(EngineConfig::default(), psk_secrets("node-b", KEY), [7; 32]).unwrap();
        assert_eq!(engine.import_peers(wrong.as_bytes(), pair.now), Err(PeersError::Damaged), "{wrong}");
    }
}

#[test]
fn places_that_the_kernel_still_names_are_not_given_to_others() {
    let mut pair = Pair::new();
    pair.connect();
    let (token, slot, generation) = place(&pair.server);
    let nothing = Pair::new().server.engine.export_peers().unwrap();
    restart(&mut pair, &nothing);
    pair.server.engine.reserve_peers([(slot, generation + 10), (u32::MAX, 1)]);
    assert!(!pair.server.engine.knows_peer(&token, slot, generation));
    pair.server.upsert(server_spec(), pair.now);
    let wire = pair.client_sends(&syn_with(1000)).sent();
    let step = pair.server_gets(&wire);
    assert_eq!(step.dropped, Some(Reason::TokenUnknown));
    let wire = pair.client_gets(&step.network[0]).network.remove(0);
    pair.server_gets(&wire).got();
    let wire = pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent();
    pair.client_gets(&wire).got();
    let proof = segment(&from_client(1001, SERVER_ISN + 1, trireme_wire::tcp::Flags::ACK));
    let wire = pair.client_sends(&proof).sent();
    pair.server_gets(&wire).got();
    assert!(place(&pair.server).2 > generation + 10 || place(&pair.server).1 != slot);
}

#[test]
fn counters_go_on_where_they_stopped() {
    let mut pair = Pair::new();
    pair.connect();
    let before = pair.server.stats().reasons;
    assert!(!before.is_empty());
    let nothing = Pair::new().server.engine.export_peers().unwrap();
    restart(&mut pair, &nothing);
    let kept = before.iter().map(|((slot, reason), count)| (*slot, *reason, *count));
    pair.server.engine.import_counters(kept);
    pair.server.upsert(server_spec(), pair.now);
    assert_eq!(pair.server.stats().reasons, before);
}

fn deny_client() -> DenyList {
    DenyList { nodes: std::iter::once("node-a".parse().unwrap()).collect(), ..DenyList::default() }
}

#[test]
fn a_deny_list_in_force_forgets_peers_and_ends_their_connections_even_where_changes_do_not() {
    for on_change in [trireme_datapath::OnPolicyChange::Cut, trireme_datapath::OnPolicyChange::Keep] {
        let mut pair = Pair::new();
        pair.connect();
        let (token, ..) = place(&pair.server);
        let mut effects = Vec::new();
        assert_eq!(pair.server.engine.set_deny_list(deny_client(), pair.now, &mut effects), 1);
        pair.server.carry_out(effects, pair.now, &mut Step::default());
        assert!(matches!(pair.server.lessons.last(), Some(Lesson::ForgetPeer(id)) if *id == token));
        let mut server = server_spec();
        (server.epoch, server.settings.on_policy_change) = (2, on_change);
        pair.server.upsert(server, pair.now);
        pair.server.lessons.clear();
        assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::TokenRevoked);
        assert!(pair.server.table.is_empty());
        let wire = pair.client_sends(&syn_with(1000)).sent();
        assert_eq!(pair.server_gets(&wire).silence(), Reason::TokenRevoked);
        assert!(pair.server.lessons.is_empty(), "{:?}", pair.server.lessons);
    }
}

#[test]
fn a_deny_list_holds_for_peers_from_before_a_restart_as_well() {
    let mut pair = Pair::new();
    pair.connect();
    let peers = pair.server.engine.export_peers().unwrap();
    restart(&mut pair, &peers);
    assert_eq!(pair.server.engine.set_deny_list(deny_client(), pair.now, &mut Vec::new()), 1);
    let mut server = server_spec();
    (server.epoch, server.settings.on_policy_change) = (2, trireme_datapath::OnPolicyChange::Keep);
    pair.server.upsert(server, pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::PeerForgotten);
}

#[test]
fn a_connection_of_somebody_forgotten_is_kept_if_nobody_is_denied() {
    let mut pair = Pair::new();
    pair.connect();
    let nothing = Pair::new().server.engine.export_peers().unwrap();
    restart(&mut pair, &nothing);
    let mut server = server_spec();
    (server.epoch, server.settings.on_policy_change) = (2, trireme_datapath::OnPolicyChange::Keep);
    pair.server.upsert(server, pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).got(), data(b"x"));
    assert!(
        pair.server
            .lessons
            .iter()
            .all(|l| !matches!(l, Lesson::Verdict { direction: Direction::Ingress, .. }))
    );
}
