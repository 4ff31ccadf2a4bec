//! Units of the host whose policy changes, and whose agents die.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Reach, Server, Side, connect, eventually};
use trireme_tests_netns::{
    AWAY, Hosts, HostsSpec, PATIENT, POLICY, PORT, PROMPT, is_alive, is_alive_within, section,
};

/// The time that a change may take to cut, with room for a busy machine.
const SOON: Duration = Duration::from_millis(1000);

fn live(hosts: &Hosts) -> Vec<TcpStream> {
    let open = |family| hosts.client.connect(hosts.at(Side::B, family, PORT), PATIENT);
    let streams: Vec<_> = Family::BOTH.into_iter().map(open).collect();
    assert!(streams.iter().all(is_alive), "{}", hosts.look());
    streams
}

fn await_cut(hosts: &Hosts, streams: &[TcpStream]) {
    for stream in streams {
        let cut = || Ok(!is_alive_within(stream, Duration::from_millis(200)));
        eventually("the cut", SOON, cut, || hosts.look()).unwrap();
    }
}

/// Neither a unit that no server admits nor somebody in no unit gets anything through.
fn nobody_else_comes_in(hosts: &Hosts, server: &Server) {
    let before = server.accepted();
    for family in Family::BOTH {
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}: the stranger\n{}", hosts.look());
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}: of no unit\n{}", hosts.look());
    }
    assert_eq!(server.accepted(), before);
}

#[test]
fn a_policy_change_cuts_what_it_forbids_and_leaves_what_it_allows() {
    let hosts = Hosts::start();
    let _server = hosts.server.echo(PORT);
    for (round, agent) in [&hosts.b, &hosts.a, &hosts.b].into_iter().enumerate() {
        for agent in [&hosts.a, &hosts.b] {
            fs::write(agent.policy_file(), POLICY).unwrap();
        }
        let mut streams = Vec::new();
        let open = || {
            let all = Family::BOTH.map(|family| hosts.client_sees(family) == Reach::Answered);
            Ok(all.iter().all(|answered| *answered))
        };
        eventually("connections that are allowed", PATIENT, open, || hosts.look()).unwrap();
        streams.extend(live(&hosts));
        let more = POLICY
            .replace("[{role: client}]", &format!("[{{role: client}}, {{role: other-{round}}}]"))
            .replace("[{role: server}]", &format!("[{{role: server}}, {{role: other-{round}}}]"));
        fs::write(agent.policy_file(), more).unwrap();
        thread::sleep(Duration::from_millis(500));
        assert!(streams.iter().all(is_alive), "round {round}\n{}", hosts.look());
        let forbidden = POLICY
            .replace("from: [{role: client}]", "from: [{role: nobody}]")
            .replace("to: [{role: server}]", "to: [{role: nobody}]");
        fs::write(agent.policy_file(), forbidden).unwrap();
        await_cut(&hosts, &streams);
    }
}

#[test]
fn killed_agents_leave_live_connections_open_and_judge_them_again_when_they_are_back() {
    let spec = HostsSpec::new();
    let configs = (spec.a.clone(), spec.b.clone());
    let mut hosts = spec.start();
    let server = hosts.server.echo(PORT);
    let streams = live(&hosts);
    hosts.a.kill().unwrap();
    hosts.b.kill().unwrap();
    assert!(streams.iter().all(is_alive), "a live connection ended with the agents");
    for family in Family::BOTH {
        // Silent: a refusal would be an answer of somebody.
        assert_eq!(hosts.client_sees(family), Reach::Silent, "{family}, without agents");
    }
    let before = server.accepted();
    thread::sleep(AWAY);
    for family in Family::BOTH {
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}: the stranger, without agents");
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}: of no unit, without agents");
    }
    assert_eq!(server.accepted(), before);
    assert!(streams.iter().all(is_alive), "a live connection ended without agents");
    // Processes of no unit go on as if nothing was.
    let _others = Server::echo(&hosts.server.host, 9090).unwrap();
    for family in Family::BOTH {
        let stream = connect(&hosts.client.host, hosts.at(Side::B, family, 9090), PROMPT).unwrap();
        assert!(is_alive(&stream), "{family}");
    }
    hosts.a.restart(&hosts.lab, &configs.0).unwrap();
    hosts.b.restart(&hosts.lab, &configs.1).unwrap();
    assert!(streams.iter().all(is_alive), "a live connection ended with the restart\n{}", hosts.look());
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, PORT);
        assert_eq!(hosts.client.sees(to, PATIENT), Reach::Answered, "{family}\n{}", hosts.look());
    }
    nobody_else_comes_in(&hosts, &server);
    fs::write(hosts.b.policy_file(), POLICY.replace("role: client}]", "role: nobody}]")).unwrap();
    await_cut(&hosts, &streams);
}

#[test]
fn a_policy_that_changed_while_the_agents_were_dead_cuts_what_it_forbids_when_they_are_back() {
    let spec = HostsSpec::new();
    let (config_a, mut config_b) = (spec.a.clone(), spec.b.clone());
    let mut hosts = spec.start();
    let _server = hosts.server.echo(PORT);
    let streams = live(&hosts);
    hosts.a.kill().unwrap();
    hosts.b.kill().unwrap();
    config_b.policy = POLICY.replace("role: client}]", "role: nobody}]");
    hosts.a.restart(&hosts.lab, &config_a).unwrap();
    hosts.b.restart(&hosts.lab, &config_b).unwrap();
    await_cut(&hosts, &streams);
}

#[test]
fn connections_of_before_the_first_enforcement_go_on_and_those_of_others_are_not_adopted() {
    let spec = HostsSpec::new();
    let host = spec.server.host.clone();
    let _server = spec.server.echo(PORT);
    let _others = Server::echo(&host, 9090).unwrap();
    let to = |port| std::net::SocketAddr::new([10, 200, 2, 2].into(), port);
    let streams = [PORT, 9090].map(|port| connect(&spec.client.host, to(port), PROMPT).unwrap());
    assert!(streams.iter().all(is_alive));
    let hosts = spec.start();
    assert!(streams.iter().all(is_alive), "{}", hosts.look());
    let status = hosts.b.status().unwrap();
    let adopted = status.pointer("/pus/0/datapath/adopted").and_then(serde_json::Value::as_u64);
    assert_eq!(adopted, Some(1), "{status}");
}

#[test]
fn a_unit_that_is_configured_no_more_is_released_and_the_others_go_on() {
    let mut spec = HostsSpec::new();
    let mut less = spec.a.clone();
    less.more = section("stranger", &spec.stranger.cgroup, "stranger");
    spec.a.log_level = "info";
    let mut hosts = spec.start();
    let server = hosts.server.echo(PORT);
    let _others = Server::echo(&hosts.server.host, 9090).unwrap();
    let elsewhere = hosts.at(Side::B, Family::V4, 9090);
    // Its policy lets the client call servers only.
    assert_eq!(hosts.client.sees(elsewhere, PROMPT), Reach::Silent, "{}", hosts.look());
    let streams = live(&hosts);
    hosts.a.stop().unwrap();
    hosts.a.restart(&hosts.lab, &less).unwrap();
    assert_eq!(hosts.client.sees(elsewhere, PATIENT), Reach::Answered, "{}", hosts.look());
    assert!(streams.iter().all(is_alive), "{}", hosts.look());
    assert_eq!(hosts.client_sees(Family::V6), Reach::Silent, "it has no identity any more\n{}", hosts.look());
    nobody_else_comes_in(&hosts, &server);
    hosts.a.stop().unwrap();
    less.more = String::new();
    hosts.a.restart(&hosts.lab, &less).unwrap();
    let left = hosts.client.host.run("nft", &["list", "ruleset"]).unwrap();
    assert!(!left.contains("TRIREME") && !left.contains("trireme"), "{left}");
}

#[test]
fn a_restart_with_other_rules_marks_and_queues_goes_on_and_leaves_nothing_of_the_old_ones() {
    let spec = HostsSpec::new();
    let (config_a, mut config_b) = (spec.a.clone(), spec.b.clone());
    let mut hosts = spec.start();
    let server = hosts.server.echo(PORT);
    let streams = live(&hosts);
    for (round, more) in [
        "rules = \"iptables-legacy\"\n",
        "rules = \"iptables-nft\"\nmark = \"0xff00\"\n",
        "rules = \"iptables-legacy\"\nmark = \"0xf0000\"\nqueue = 50\n",
    ]
    .into_iter()
    .enumerate()
    {
        // With and without a crash.
        if round == 1 {
            hosts.b.kill().unwrap();
        } else {
            hosts.b.stop().unwrap();
        }
        config_b.datapath_more = more.to_owned();
        hosts.b.restart(&hosts.lab, &config_b).unwrap();
        assert!(streams.iter().all(is_alive), "{more}\n{}", hosts.look());
        for family in Family::BOTH {
            let to = hosts.at(Side::B, family, PORT);
            assert_eq!(hosts.client.sees(to, PATIENT), Reach::Answered, "{more} {family}\n{}", hosts.look());
        }
        nobody_else_comes_in(&hosts, &server);
        let unused = if more.contains("legacy") { "iptables-nft-save" } else { "iptables-legacy-save" };
        let left = hosts.server.host.run(unused, &[]).unwrap();
        assert!(!left.contains("TRIREME"), "{more}: {left}");
    }
    let text = hosts.server.host.run("cat", &["/proc/self/net/nf_conntrack"]).unwrap();
    let marks = text.lines().filter_map(|line| line.split("mark=").nth(1)?.split(' ').next());
    let foreign: Vec<_> = marks.filter(|mark| mark.parse::<u32>().unwrap() & !0xf_0000 != 0).collect();
    assert_eq!(foreign, Vec::<&str>::new(), "marks of an earlier field\n{text}");
    // Rules that went while no agent was there are written again.
    hosts.b.kill().unwrap();
    hosts.server.host.run("nft", &["flush", "ruleset"]).unwrap();
    hosts.b.restart(&hosts.lab, &config_b).unwrap();
    nobody_else_comes_in(&hosts, &server);
    hosts.a.stop().unwrap();
    hosts.a.restart(&hosts.lab, &config_a).unwrap();
    assert!(streams.iter().all(is_alive), "{}", hosts.look());
}

#[test]
fn numbers_of_releases_that_begin_again_release_nothing_by_old_marks() {
    let mut spec = HostsSpec::new();
    // Two numbers that release.
    spec.b.datapath_more.push_str("mark = \"0xf0000\"\n");
    let hosts = spec.start();
    let _server = hosts.server.echo(PORT);
    let streams = live(&hosts);
    for round in 0..5 {
        let text =
            POLICY.replace("[{role: client}]", &format!("[{{role: client}}, {{role: other-{round}}}]"));
        fs::write(hosts.b.policy_file(), text).unwrap();
        thread::sleep(Duration::from_millis(400));
        assert!(streams.iter().all(is_alive), "round {round}\n{}", hosts.look());
    }
    fs::write(hosts.b.policy_file(), POLICY.replace("role: client}]", "role: nobody}]")).unwrap();
    await_cut(&hosts, &streams);
}

#[test]
fn open_units_are_reached_by_anybody_while_no_agent_is_there_and_by_nobody_else_when_it_is_back() {
    let mut spec = HostsSpec::new();
    spec.b.enforcement.push_str("fail_mode = \"open\"\n");
    let config = spec.b.clone();
    let mut hosts = spec.start();
    let server = hosts.server.echo(PORT);
    nobody_else_comes_in(&hosts, &server);
    hosts.b.kill().unwrap();
    for family in Family::BOTH {
        assert_eq!(hosts.outsider_sees(family), Reach::Answered, "{family}: open, without an agent");
    }
    let stays = connect(&hosts.client.host, hosts.at(Side::B, Family::V4, PORT), PROMPT).unwrap();
    assert!(is_alive(&stays));
    hosts.b.restart(&hosts.lab, &config).unwrap();
    assert!(!is_alive_within(&stays, PROMPT), "nobody judged it\n{}", hosts.look());
    nobody_else_comes_in(&hosts, &server);
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, PORT);
        assert_eq!(hosts.client.sees(to, PATIENT), Reach::Answered, "{family}\n{}", hosts.look());
    }
}

#[test]
fn units_that_are_observed_are_recorded_and_those_that_are_off_are_left_alone() {
    for (mode, recorded) in [("observe", true), ("off", false)] {
        let mut spec = HostsSpec::new();
        spec.b.more.push_str(&format!("mode = \"{mode}\"\n"));
        let hosts = spec.start();
        let _server = hosts.server.echo(PORT);
        for family in Family::BOTH {
            let to = hosts.at(Side::B, family, PORT);
            for reach in [hosts.stranger.sees(to, PATIENT), hosts.outsider_sees(family)] {
                assert_eq!(reach, Reach::Answered, "{mode} {family}\n{}", hosts.look());
            }
        }
        let flows = hosts.b.flows().unwrap();
        assert_eq!(!flows.is_empty(), recorded, "{mode}: {flows:?}");
        let rules = hosts.server.host.run("nft", &["list", "ruleset"]).unwrap();
        assert_eq!(rules.contains("trireme_host"), recorded, "{mode}: {rules}");
    }
}
