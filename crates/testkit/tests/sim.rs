//! Thousands of seeded runs over a bad network, with engines and without.
//!
//! `TRIREME_SIM_SCHEDULES` sets how many, `TRIREME_SIM_BASE` where to begin, `TRIREME_SIM_SEED` replays one run
//! and prints everything that happened in it.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking and say what they ran"
)]

use trireme_datapath::Authorize;
use trireme_testkit::sim::{
    self, Campaign, Detail, Expect, FIRST, Family, Group, Guard, OUTSIDE, Opening, Protocol, SECOND,
    Scenario, Trust, Violation,
};

#[test]
fn without_engines_every_conversation_completes_over_the_bad_network() {
    check(Campaign {
        guard: Guard::Bare,
        schedules: 2000,
        test: "without_engines_every_conversation_completes_over_the_bad_network",
    });
}

#[test]
fn allowed_conversations_complete_denied_ones_stay_silent_and_nothing_is_left() {
    check(Campaign {
        guard: Guard::Engines,
        schedules: 10_000,
        test: "allowed_conversations_complete_denied_ones_stay_silent_and_nothing_is_left",
    });
}

#[test]
fn the_same_holds_where_kernels_complete_handshakes_by_themselves() {
    check(Campaign {
        guard: Guard::FastPath,
        schedules: 4000,
        test: "the_same_holds_where_kernels_complete_handshakes_by_themselves",
    });
}

#[test]
fn the_same_seed_goes_the_same_way_twice() {
    let seeds = (0..).filter(|seed| Scenario::generate(*seed, Guard::Engines).trust == Trust::Psk).take(100);
    for seed in seeds {
        let first = sim::run(seed, Guard::Engines, Detail::Hash);
        let second = sim::run(seed, Guard::Engines, Detail::Hash);
        assert_eq!(
            (first.trace_hash, first.events, first.virtual_time),
            (second.trace_hash, second.events, second.virtual_time),
            "seed {seed}"
        );
    }
}

#[test]
fn seeds_cover_every_kind_of_node_network_and_conversation() {
    let scenarios: Vec<Scenario> = (0..500).map(|seed| Scenario::generate(seed, Guard::Engines)).collect();
    let count = |holds: fn(&Scenario) -> bool| scenarios.iter().filter(|scenario| holds(scenario)).count();
    let group = |holds: fn(&Group) -> bool| {
        scenarios.iter().filter(|scenario| scenario.groups.iter().any(holds)).count()
    };
    let counts = [
        ("IPv4", count(|s| s.family == Family::V4)),
        ("IPv6", count(|s| s.family == Family::V6)),
        ("PSK", count(|s| s.trust == Trust::Psk)),
        ("certificate", count(|s| s.trust == Trust::Certificate)),
        ("key token", count(|s| s.trust == Trust::KeyToken)),
        ("pre-populated", count(|s| s.trust == Trust::Prepopulated)),
        ("mixed encodings", count(|s| s.encodings[0] != s.encodings[1])),
        ("mutual", count(|s| s.authorize == Authorize::Mutual)),
        ("receiver only", count(|s| s.authorize == Authorize::ReceiverOnly)),
        ("same node", count(|s| s.nodes[FIRST] == s.nodes[SECOND])),
        ("across nodes", count(|s| s.nodes[FIRST] != s.nodes[SECOND])),
        ("masquerade", count(|s| s.nat.masquerade.is_some())),
        ("service", count(|s| !s.nat.services.is_empty())),
        ("loss above 10 %", count(|s| s.link.loss > 0.1)),
        ("duplicates", count(|s| s.link.duplicate > 0.0)),
        ("corruption", count(|s| s.link.corrupt > 0.0)),
        ("stalls", count(|s| s.link.stall > 0.0)),
        ("replays", count(|s| s.link.replay > 0.0)),
        ("reordering", count(|s| s.link.jitter > s.link.delay)),
        ("MTU 1280", count(|s| s.link.mtu == 1280)),
        ("partial checksums", count(|s| s.hosts[FIRST].offload)),
        ("delayed acknowledgement", count(|s| s.hosts[FIRST].eager)),
        ("reload", count(|s| !s.reloads.is_empty())),
        ("restart", count(|s| !s.restarts.is_empty())),
        ("revocation", count(|s| !s.revocations.is_empty())),
        ("denied by the server", group(|g| g.expect == Expect::DeniedByServer)),
        ("denied by the client", group(|g| g.expect == Expect::DeniedByClient)),
        ("closed port", group(|g| g.expect == Expect::Refused)),
        ("parallel", group(|g| g.parallel > 1)),
        ("port reuse", group(|g| g.rounds > 1)),
        ("peer without identity", group(|g| g.server == OUTSIDE || g.client == OUTSIDE)),
        ("stream that looks like TAP", group(|g| g.dialogue.opening == Opening::LooksLikeTap)),
        ("large transfer", group(|g| g.dialogue.to_server + g.dialogue.to_client > 50_000)),
        ("connect and close", group(|g| g.dialogue.protocol == Protocol::ConnectAndClose)),
        ("half-close", group(|g| g.dialogue.protocol == Protocol::HalfClose)),
        ("server first", group(|g| g.dialogue.protocol == Protocol::ServerFirst)),
    ];
    let rare: Vec<_> = counts.iter().filter(|(_, count)| *count < 10).collect();
    assert!(rare.is_empty(), "too rare in {} seeds: {rare:?}", scenarios.len());
}

#[test]
fn a_policy_that_admits_too_much_is_noticed() {
    let mut scenario = scenario_with(Expect::DeniedByServer);
    scenario.groups[0].ingress_rule = true;
    let report = sim::run_scenario(scenario, Detail::Hash);
    let is_denial_broken = |violation: &Violation| matches!(violation, Violation::DenialBroken(_));
    assert!(report.violations.iter().any(is_denial_broken), "{:?}", report.violations);
}

#[test]
fn a_policy_that_admits_too_little_is_noticed() {
    let mut scenario = scenario_with(Expect::Completes);
    scenario.groups[0].ingress_rule = false;
    let report = sim::run_scenario(scenario, Detail::Hash);
    let is_incomplete = |violation: &Violation| matches!(violation, Violation::Incomplete(_));
    assert!(report.violations.iter().any(is_incomplete), "{:?}", report.violations);
}

/// A scenario on a good path whose only group of conversations, between two units, ends as given.
fn scenario_with(expect: Expect) -> Scenario {
    let fits = |scenario: &Scenario| {
        let [group] = &scenario.groups[..] else { return false };
        group.expect == expect
            && group.egress_rule
            && group.server != OUTSIDE
            && group.client != OUTSIDE
            && scenario.link.is_lossless()
    };
    let mut scenarios = (0..).map(|seed| Scenario::generate(seed, Guard::Engines));
    scenarios.find(fits).expect("some seed fits")
}

fn check(campaign: Campaign) {
    match campaign.run() {
        Ok(text) => println!("{text}"),
        Err(failure) => panic!("{failure}"),
    }
}
