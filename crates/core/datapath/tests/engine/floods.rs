//! Bounds, budgets, and packets that wait for signature checks.

use std::time::Duration;

use trireme_datapath::{EngineConfig, Hook};
use trireme_flow::{BudgetConfig, HalfOpenLimits, Reason};
use trireme_policy::PuPolicy;
use trireme_wire::edit;
use trireme_wire::tuple::Endpoint;

use crate::support::*;

/// SYNs of many units of an honest node, each with a token of its own.
fn stranger(number: usize) -> Vec<u8> {
    let tag = format!("n={number}");
    let unit = spec(CLIENT, "client", &["role=frontend", &tag], &PuPolicy::unrestricted());
    Pair::with(EngineConfig::default(), unit, server_spec()).client_sends(&syn()).sent()
}

#[test]
fn a_packet_waits_for_its_signature_check_and_goes_on() {
    let mut pair = Pair::new();
    pair.server.deferred = Some(Vec::new());
    let wire = pair.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire), Step::default());
    assert_eq!(pair.server_gets(&wire), Step::default(), "a retransmission waits for the same check");
    let stats = pair.server.stats();
    assert_eq!((stats.verifications, stats.parked_packets), (1, 2));
    let done = pair.server.deferred.take().unwrap().remove(0);
    let (mut step, now) = (Step::default(), pair.now);
    pair.server.verified(done, now, &mut step);
    assert_eq!(step.unit, [syn(), syn()]);
    assert_eq!((pair.server.stats().parked_packets, pair.server.stats().half_open), (0, 1));
}

#[test]
fn the_wrong_signature_of_a_right_token_spoils_nothing_for_its_owner() {
    let mut pair = Pair::new();
    pair.server.deferred = Some(Vec::new());
    let wire = pair.client_sends(&syn()).sent();
    let mut forged = payload(&wire).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(pair.server_gets(&with_payload(&wire, &forged)), Step::default());
    assert_eq!(pair.server_gets(&wire), Step::default());
    let done = pair.server.deferred.take().unwrap();
    assert_eq!(done.len(), 2, "checks are shared by equal bytes, not by the id");
    let (mut step, now) = (Step::default(), pair.now);
    for done in done {
        pair.server.verified(done, now, &mut step);
    }
    assert_eq!(step.unit, [syn()]);
    assert_eq!(pair.server.count(SERVER, Reason::TokenSignature), 1);
}

#[test]
fn a_check_that_never_comes_back_is_given_up() {
    let mut pair = Pair::new();
    pair.server.deferred = Some(Vec::new());
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire);
    pair.wait(Duration::from_secs(5));
    pair.server.timeout(pair.now);
    assert_eq!((pair.server.stats().verifications, pair.server.stats().parked_packets), (0, 0));
}

#[test]
fn one_source_cannot_use_up_the_signature_checks_of_others() {
    let config =
        EngineConfig { verify_source: BudgetConfig { per_second: 1, burst: 2 }, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    let strangers: Vec<_> = (0..3).map(stranger).collect();
    pair.server_gets(&strangers[0]).got();
    let mut isn = strangers[1].clone();
    edit::set_seq(&mut isn, 1).unwrap();
    pair.server_gets(&isn).got();
    edit::set_seq(&mut isn, 2).unwrap();
    let mut third = strangers[2].clone();
    edit::set_seq(&mut third, 3).unwrap();
    assert_eq!(pair.server_gets(&third).silence(), Reason::VerifySource);
    edit::set_source(&mut third, Endpoint::new(ip("10.0.0.99"), 4000)).unwrap();
    assert_eq!(pair.server_gets(&third).unit.len(), 1);
    pair.server_gets(&isn).got();
}

#[test]
fn a_flood_of_syns_leaves_other_units_and_live_connections_alone() {
    let limits = HalfOpenLimits { total: 64, per_unit: 8, per_source: 8, completed_per_unit: 8 };
    let config = EngineConfig { half_open: limits, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    let mut other = server_spec();
    (other.slot, other.id) = (trireme_flow::PuSlot(3), "third".parse().unwrap());
    pair.server.upsert(other, pair.now);
    let [wire, ..] = pair.connect();
    let mut refused = 0;
    for number in 0..20_u32 {
        let mut flood = wire.clone();
        edit::set_seq(&mut flood, number).unwrap();
        edit::set_source(&mut flood, Endpoint::new([10, 0, 1, u8::try_from(number).unwrap()].into(), 1))
            .unwrap();
        let step = pair.server_gets(&flood);
        match step.dropped {
            Some(reason) => {
                assert_eq!(reason, Reason::CookieDemanded);
                assert!(!tap(&step.network[0]).has_mac());
                refused += 1;
            }
            None => assert_eq!(step.unit.len(), 1),
        }
    }
    assert_eq!(refused, 14, "three quarters of eight, the rest is for senders that show something");
    pair.assert_talking();
    let now = pair.now;
    assert_eq!(pair.server.handle(trireme_flow::PuSlot(3), Hook::ToPu, &wire, now).unit.len(), 1);
    // A known peer shows a MAC and gets in.
    let known = pair.client_sends(&syn_with(4711)).sent();
    assert!(tap(&known).has_mac());
    assert_eq!(pair.server_gets(&known).got(), syn_with(4711));
}

#[test]
fn parked_packets_are_bounded() {
    let config = EngineConfig { parked_packets: 1, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    pair.server.deferred = Some(Vec::new());
    let wire = pair.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire), Step::default());
    assert_eq!(pair.server_gets(&wire).silence(), Reason::ParkedFull);
}

#[test]
fn a_limit_of_zero_is_refused() {
    let config = EngineConfig { tokens: 0, ..EngineConfig::default() };
    let error = trireme_datapath::Engine::new(config, psk_secrets("node-a", KEY), [0; 32]).unwrap_err();
    assert_eq!(error.to_string(), "tokens must not be zero");
}
