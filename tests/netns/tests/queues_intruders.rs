//! Somebody meddles with the rules in a unit's namespace, or takes the namespace away.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use serde_json::Value;
use trireme_testkit::lab::{Agent, Family, Pu, Reach, Server, connect, eventually, probe};
use trireme_tests_netns::{Judge, PATIENT, PORT, PROMPT, World, WorldSpec, is_alive};

/// Rules are looked at every second.
const REPAIRED: Duration = Duration::from_secs(5);

/// What the status says about a unit.
fn shown(agent: &Agent, pu: &Pu) -> Value {
    let status = agent.status().unwrap();
    let units = status.pointer("/pus").and_then(Value::as_array).unwrap_or_else(|| panic!("{status}"));
    let unit = units.iter().find(|unit| unit.get("id").and_then(Value::as_str) == Some(&pu.name));
    unit.unwrap_or_else(|| panic!("{status}")).clone()
}

fn repairs(agent: &Agent, pu: &Pu) -> u64 {
    shown(agent, pu).pointer("/datapath/repairs").and_then(Value::as_u64).unwrap()
}

#[test]
fn rules_of_iptables_nft_that_a_unit_flushes_or_deletes_are_back_within_seconds_and_the_repair_is_recorded() {
    meddle_with_iptables("iptables-nft");
}

#[test]
fn rules_of_iptables_legacy_that_a_unit_flushes_or_deletes_are_back_within_seconds_and_the_repair_is_recorded()
 {
    meddle_with_iptables("iptables-legacy");
}

fn meddle_with_iptables(program: &str) {
    let commands = [
        // Everything, then the chains, which nobody jumps to any more.
        ("IPT -t mangle -F; IPT -t mangle -X", "TRIREME-"),
        ("IPT -t mangle -D INPUT -j TRIREME-TO", "the jump from INPUT to TRIREME-TO"),
        ("IPT -t mangle -F TRIREME-FROM", "chain TRIREME-FROM"),
        ("IPT -t filter -F INPUT", "the jump from INPUT to TRIREME-SAVE"),
        ("IPT -t mangle -I INPUT -j ACCEPT", "the jump from INPUT to TRIREME-TO"),
    ];
    let commands = commands.map(|(command, named)| (command.replace("IPT", program), named));
    let commands: Vec<_> = commands.iter().map(|(command, named)| (command.as_str(), *named)).collect();
    meddle(program, &commands);
}

/// Runs commands in the server's namespace, one after another, each of which changes what it is told to name.
fn meddle(rules: &str, commands: &[(&str, &str)]) {
    let mut spec = WorldSpec::new().judged_by(Judge::Queue);
    spec.b.datapath_more.push_str(&format!("rules = \"{rules}\"\n"));
    let world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let stream = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    for (number, (command, named)) in commands.iter().enumerate() {
        let before = repairs(&world.b, &world.server);
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent, "before {command}");
        world.server.namespace.run("sh", &["-c", command]).unwrap();
        let repaired = || Ok(repairs(&world.b, &world.server) > before);
        eventually(&format!("the repair after {command}"), REPAIRED, repaired, || world.look()).unwrap();
        let unit = shown(&world.b, &world.server);
        let told = unit.pointer("/datapath/last_repair/text").and_then(Value::as_str).unwrap();
        assert!(told.contains(named), "{command}: {told}");
        assert!(world.b.log().matches("repaired: somebody else changed its edge").count() > number);
        for family in Family::BOTH {
            let outsider = probe(world.lab.router(), world.server.at(family, PORT), PROMPT).unwrap();
            assert_eq!(outsider, Reach::Silent, "{family}, after {command}\n{}", world.look());
            let known = world.client_sees_within(family, PATIENT);
            assert_eq!(known, Reach::Answered, "{family}, after {command}\n{}", world.look());
        }
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent, "after {command}");
        assert!(is_alive(&stream), "after {command}\n{}", world.look());
    }
}

#[test]
fn a_namespace_that_is_deleted_is_told_and_the_one_made_in_its_place_is_enforced() {
    let world = WorldSpec::new().judged_by(Judge::Queue).start();
    let World { server, .. } = &world;
    let node = &world.lab.node(server.side).namespace;
    let echo = Server::echo(&server.namespace, PORT).unwrap();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.look());
    // Its sockets keep a namespace as much as its name does.
    drop(echo);
    node.run("ip", &["netns", "del", server.namespace.name()]).unwrap();
    let told =
        || Ok(shown(&world.b, server).pointer("/datapath/edge").is_some_and(|edge| edge == "vanished"));
    eventually("the loss of the namespace", PATIENT, told, || world.look()).unwrap();
    let gone = || Ok(!node.run("ip", &["-o", "link"])?.contains(&server.interface));
    eventually("the end of the namespace", PATIENT, gone, || world.look()).unwrap();

    make_again(&world);
    let _echo = Server::echo(&server.namespace, PORT).unwrap();
    let back =
        || Ok(shown(&world.b, server).pointer("/datapath/edge").is_some_and(|edge| edge != "vanished"));
    eventually("enforcement of the new namespace", PATIENT, back, || world.look()).unwrap();
    for family in Family::BOTH {
        let known = world.client_sees_within(family, PATIENT);
        assert_eq!(known, Reach::Answered, "{family}\n{}", world.look());
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
        let outsider = probe(world.lab.router(), server.at(family, PORT), PROMPT).unwrap();
        assert_eq!(outsider, Reach::Silent, "{family}\n{}", world.look());
    }
}

/// The server's namespace and interface as the lab made them.
fn make_again(world: &World) {
    let World { server, lab, .. } = world;
    let node = &lab.node(server.side).namespace;
    node.run("ip", &["netns", "add", server.namespace.name()]).unwrap();
    server.namespace.ip("link set lo up\n").unwrap();
    node.ip(&format!(
        "link add {interface} type veth peer name eth0 netns {}\nlink set {interface} master br0 up\n",
        server.namespace.name(),
        interface = server.interface
    ))
    .unwrap();
    server
        .namespace
        .ip(&format!(
            "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n\
             route add default via 10.10.2.1\nroute add ::/0 via fd00:10:2::1\n",
            server.v4, server.v6
        ))
        .unwrap();
    // Another interface, another address of its own.
    node.ip("neigh flush all\n").unwrap();
}
