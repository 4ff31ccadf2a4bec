//! Live connections after a change of policy, tags or units.

use trireme_datapath::{Effect, EngineConfig, Hook, Lesson, OnPolicyChange, PuSpec};
use trireme_flow::{ConnectionClass, Reason};
use trireme_policy::PuPolicy;

use crate::support::*;

fn changed(policy: &PuPolicy, on_change: OnPolicyChange) -> PuSpec {
    let mut spec = spec(SERVER, "server", &["role=backend"], policy);
    spec.epoch = 2;
    spec.settings.on_policy_change = on_change;
    spec
}

#[test]
fn a_change_that_still_allows_a_live_connection_reauthorizes_it() {
    let mut pair = Pair::new();
    pair.connect();
    pair.server.upsert(changed(&frontends_only(), OnPolicyChange::Cut), pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).got(), data(b"x"));
    assert_eq!(pair.server.table[&server_key()].epoch, 2);
    assert_eq!(pair.server.count(SERVER, Reason::Reauthorized), 1);
    pair.assert_talking();
    assert_eq!(pair.server.count(SERVER, Reason::Reauthorized), 1);
}

#[test]
fn a_change_that_refuses_a_live_connection_cuts_it_in_both_directions() {
    for hook in [Hook::ToPu, Hook::FromPu] {
        let mut pair = Pair::new();
        pair.connect();
        pair.server.upsert(changed(&PuPolicy::deny_all(), OnPolicyChange::Cut), pair.now);
        let bytes = if hook == Hook::ToPu { data(b"x") } else { server_data(b"x") };
        let now = pair.now;
        assert_eq!(pair.server.handle(SERVER, hook, &bytes, now).silence(), Reason::PolicyChanged);
        assert!(pair.server.table.is_empty());
        assert_eq!(pair.server.handle(SERVER, hook, &bytes, now).silence(), Reason::Stray);
        let record = &pair.server.records[1];
        assert_eq!(
            (record.reason, record.source.tags.to_string()),
            (Reason::PolicyChanged, "role=frontend".into())
        );
    }
}

#[test]
fn with_keep_a_live_connection_goes_on_under_its_first_judgement() {
    let mut pair = Pair::new();
    pair.connect();
    pair.server.upsert(changed(&PuPolicy::deny_all(), OnPolicyChange::Keep), pair.now);
    pair.assert_talking();
}

#[test]
fn the_initiators_end_is_judged_again_by_the_attested_port() {
    let mut pair = Pair::new();
    pair.connect();
    let mut client = spec(CLIENT, "client", &["role=frontend"], &PuPolicy::deny_all());
    client.epoch = 2;
    pair.client.upsert(client, pair.now);
    assert_eq!(pair.client_sends(&data(b"x")).silence(), Reason::PolicyChanged);
}

#[test]
fn a_peer_that_is_no_longer_remembered_is_cut() {
    let config = EngineConfig { peers: 1, tokens: 1, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    pair.connect();
    let entry = pair.server.table[&server_key()];
    let other = spec(CLIENT, "other", &["role=frontend", "n=2"], &PuPolicy::unrestricted());
    let mut second = Pair::with(EngineConfig::default(), other, server_spec());
    let wire = second.client_sends(&syn_with(9)).sent();
    pair.server_gets(&wire).got();
    let answer = pair.server_sends(&syn_ack_with(SERVER_ISN, 9)).sent();
    // The other client takes the only place in peer table and token cache.
    second.client_gets(&answer).got();
    let ack = segment(&from_client(10, SERVER_ISN + 1, trireme_wire::tcp::Flags::ACK));
    let proof = second.client_sends(&ack).sent();
    pair.server_gets(&proof).got();
    pair.server.table.insert(server_key(), entry);
    pair.server.upsert(changed(&frontends_only(), OnPolicyChange::Cut), pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::PeerForgotten);
}

#[test]
fn a_handshake_begun_under_an_older_policy_is_judged_again_at_its_proof() {
    let mut pair = Pair::new();
    pair.open();
    let proof = pair.client_sends(&ack()).sent();
    pair.server.upsert(changed(&PuPolicy::deny_all(), OnPolicyChange::Cut), pair.now);
    assert_eq!(pair.server_gets(&proof).silence(), Reason::PolicyIngress);
    assert!(pair.server.table.is_empty());
    assert_eq!(pair.server.stats().half_open, 0);
}

#[test]
fn connections_judged_by_address_are_judged_again_by_address() {
    let open = PuPolicy::unrestricted();
    let mut pair =
        Pair::with(EngineConfig::default(), client_spec(), spec(SERVER, "server", &["role=backend"], &open));
    pair.server_gets(&syn()).got();
    pair.server_sends(&syn_ack()).sent();
    pair.server_gets(&ack()).got();
    assert_eq!(pair.server.table[&server_key()].class, ConnectionClass::Address);
    pair.server.upsert(changed(&open, OnPolicyChange::Cut), pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).got(), data(b"x"));
    let mut third = changed(&frontends_only(), OnPolicyChange::Cut);
    third.epoch = 3;
    pair.server.upsert(third, pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::PolicyChanged);
}

#[test]
fn a_removed_unit_leaves_nothing_behind() {
    let mut pair = Pair::new();
    pair.open();
    pair.server_gets(&data(b"held"));
    let mut effects = Vec::new();
    pair.server.engine.remove_pu(SERVER, pair.now, &mut effects);
    let stats = pair.server.stats();
    assert_eq!((stats.half_open, stats.held_packets, stats.held_bytes), (0, 0, 0));
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::UnitUnknown);
    pair.client.engine.remove_pu(CLIENT, pair.now, &mut effects);
    let removed: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Remove(_))).collect();
    assert!(matches!(removed.as_slice(), [Effect::Remove(key)] if *key == client_key()));
    let told = |effect: &Effect| matches!(effect, Effect::Teach(Lesson::OwnTokens { tokens, .. }) if tokens.is_empty());
    assert_eq!(effects.iter().filter(|effect| told(effect)).count(), 2);
}

#[test]
fn everything_is_forgotten_in_time() {
    let mut pair = Pair::new();
    pair.connect();
    pair.client_sends(&syn_with(5)).sent();
    for _ in 0..3 {
        pair.wait(std::time::Duration::from_secs(70));
        pair.client.timeout(pair.now);
        pair.server.timeout(pair.now);
    }
    for (node, pu, waited) in [(&pair.client, CLIENT, 1), (&pair.server, SERVER, 0)] {
        let stats = node.stats();
        assert_eq!((stats.half_open, stats.records), (0, 0));
        assert_eq!(node.count(pu, Reason::HandshakeTimeout), waited);
    }
}
