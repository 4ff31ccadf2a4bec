//! Somebody meddles with the rules of a host, or takes a unit's cgroup away.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use serde_json::Value;
use trireme_testkit::lab::{Agent, Family, Reach, Server, Side, eventually};
use trireme_tests_netns::{Hosts, HostsSpec, PATIENT, PORT, PROMPT, is_alive};

/// Rules are looked at every second.
const REPAIRED: Duration = Duration::from_secs(5);

/// What the status says about the unit of host b.
fn shown(agent: &Agent) -> Value {
    let status = agent.status().unwrap();
    status.pointer("/pus/0").unwrap_or_else(|| panic!("{status}")).clone()
}

fn repairs(agent: &Agent) -> u64 {
    shown(agent).pointer("/datapath/repairs").and_then(Value::as_u64).unwrap()
}

#[test]
fn rules_of_nft_and_iptables_nft_that_somebody_changes_are_back_within_seconds_and_the_repair_is_recorded() {
    meddle("iptables-nft");
}

#[test]
fn rules_of_nft_and_iptables_legacy_that_somebody_changes_are_back_within_seconds_and_the_repair_is_recorded()
{
    meddle("iptables-legacy");
}

fn meddle(rules: &str) {
    let mut spec = HostsSpec::new();
    spec.b.datapath_more.push_str(&format!("rules = \"{rules}\"\n"));
    let hosts = spec.start();
    let host = &hosts.server.host;
    let _server = hosts.server.echo(PORT);
    let stream = hosts.client.connect(hosts.at(Side::B, Family::V4, PORT), PATIENT);
    assert!(is_alive(&stream), "{}", hosts.look());
    for (command, named) in [
        ("nft flush table inet trireme_host", "table inet trireme_host"),
        ("nft delete table inet trireme_host", "table inet trireme_host is gone"),
        // Of both tables, where both are nft's.
        ("nft flush ruleset", "is gone"),
        ("nft insert rule inet trireme_host to accept", "chain to of table inet trireme_host"),
        ("IPT -t mangle -F; IPT -t mangle -X", "TRIREME-HOST-"),
        ("IPT -t mangle -D INPUT -j TRIREME-HOST-TO", "the jump from INPUT to TRIREME-HOST-TO"),
        ("IPT -t mangle -I INPUT -j ACCEPT", "the jump from INPUT to TRIREME-HOST-TO"),
    ] {
        let command = command.replace("IPT", rules);
        let before = repairs(&hosts.b);
        host.run("sh", &["-c", &command]).unwrap();
        let repaired = || Ok(repairs(&hosts.b) > before);
        eventually(&format!("the repair after {command}"), REPAIRED, repaired, || hosts.look()).unwrap();
        let unit = shown(&hosts.b);
        let told = unit.pointer("/datapath/last_repair/text").and_then(Value::as_str).unwrap();
        assert!(told.contains(named), "{command}: {told}");
        for family in Family::BOTH {
            assert_eq!(
                hosts.outsider_sees(family),
                Reach::Silent,
                "{family}, after {command}\n{}",
                hosts.look()
            );
            let known = hosts.client.sees(hosts.at(Side::B, family, PORT), PATIENT);
            assert_eq!(known, Reach::Answered, "{family}, after {command}\n{}", hosts.look());
        }
        assert_eq!(hosts.stranger_sees(Family::V4), Reach::Silent, "after {command}");
        assert!(is_alive(&stream), "after {command}\n{}", hosts.look());
    }
}

/// Rules of iptables that queue do not open anything when they are gone: what comes by unqueued is dropped and counted.
#[test]
fn nothing_passes_unqueued_while_the_rules_that_queue_are_gone() {
    let mut spec = HostsSpec::new();
    spec.b.datapath_more.push_str("rules = \"iptables-legacy\"\n");
    let mut hosts = spec.start();
    let server = hosts.server.echo(PORT);
    let live = hosts.client.connect(hosts.at(Side::B, Family::V4, PORT), PATIENT);
    assert!(is_alive(&live), "{}", hosts.look());
    let before = server.accepted();
    // Nobody repairs.
    hosts.b.kill().unwrap();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        hosts.server.host.run(program, &["-t", "mangle", "-F"]).unwrap();
    }
    for family in Family::BOTH {
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}");
    }
    assert_eq!(server.accepted(), before);
    let chain =
        hosts.server.host.run("nft", &["list", "chain", "inet", "trireme_host", "unqueued_1"]).unwrap();
    assert!(chain.contains("counter packets ") && !chain.contains("counter packets 0 "), "{chain}");
    assert!(is_alive(&live), "a live connection was lost with the rules that queue");
}

#[test]
fn a_cgroup_that_is_removed_is_told_and_the_one_made_in_its_place_is_enforced() {
    let hosts = Hosts::start();
    let gone = &hosts.server.cgroup;
    {
        let _server = hosts.server.echo(PORT);
        assert_eq!(hosts.client_sees(Family::V4), Reach::Answered, "{}", hosts.look());
    }
    gone.remove().unwrap();
    let told = || Ok(shown(&hosts.b).pointer("/datapath/edge").is_some_and(|edge| edge == "vanished"));
    eventually("the loss of the cgroup", PATIENT, told, || hosts.look()).unwrap();
    // Others are not hindered by what is left.
    let others = Server::echo(&hosts.server.host, 9090).unwrap();
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, 9090);
        let reach = trireme_testkit::lab::probe(&hosts.client.host, to, PROMPT).unwrap();
        assert_eq!(reach, Reach::Answered, "{family}\n{}", hosts.look());
    }
    drop(others);
    let made = gone.again().unwrap();
    let back = || Ok(shown(&hosts.b).pointer("/datapath/edge").is_some_and(|edge| edge != "vanished"));
    eventually("enforcement of the new cgroup", PATIENT, back, || hosts.look()).unwrap();
    let _server = made.enter(|| Server::echo(&hosts.server.host, PORT)).flatten().unwrap();
    for family in Family::BOTH {
        let known = hosts.client.sees(hosts.at(Side::B, family, PORT), PATIENT);
        assert_eq!(known, Reach::Answered, "{family}\n{}", hosts.look());
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
    }
}
