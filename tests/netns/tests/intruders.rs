//! Somebody else meddles with what the agent put into the kernel.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use serde_json::Value;
use trireme_testkit::lab::{Agent, Family, Namespace, Pu, Reach, Server, connect, eventually};
use trireme_tests_netns::{PATIENT, PORT, PROMPT, World, is_alive};

/// The ids of the links that hold programs at a workload's interface.
fn links(node: &Namespace, pu: &Pu) -> Vec<String> {
    let interfaces = node.run("ip", &["-j", "link", "show", "dev", &pu.interface]).unwrap();
    let interfaces: Value = serde_json::from_str(&interfaces).unwrap();
    let index = interfaces.pointer("/0/ifindex").unwrap().clone();
    let all: Value = serde_json::from_str(&node.run("bpftool", &["-j", "link", "show"]).unwrap()).unwrap();
    let ours = all.as_array().unwrap().iter().filter(|link| {
        link.get("type").and_then(Value::as_str) == Some("tcx")
            && (link.get("ifindex") == Some(&index)
                || link.get("devname").and_then(Value::as_str) == Some(&pu.interface))
    });
    ours.map(|link| link.get("id").unwrap().to_string()).collect()
}

fn repairs(agent: &Agent, pu: &Pu) -> u64 {
    let status = agent.status().unwrap();
    let units = status.pointer("/pus").and_then(Value::as_array).unwrap_or_else(|| panic!("{status}"));
    let unit = units.iter().find(|unit| unit.get("id").and_then(Value::as_str) == Some(&pu.name));
    let repairs = unit.and_then(|unit| unit.pointer("/datapath/repairs")?.as_u64());
    repairs.unwrap_or_else(|| panic!("{status}"))
}

#[test]
fn programs_that_somebody_detaches_are_back_within_seconds_and_the_repair_is_recorded() {
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let node = &world.lab.node(world.server.side).namespace;
    let stream = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    let ids = links(node, &world.server);
    assert_eq!(ids.len(), 2, "{ids:?}");
    for id in &ids {
        node.run("bpftool", &["link", "detach", "id", id]).unwrap();
    }
    let back = || Ok(repairs(&world.b, &world.server) > 0);
    eventually("the repair", Duration::from_secs(3), back, || world.look()).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
        assert_eq!(world.client_sees_within(family, PATIENT), Reach::Answered, "{family}\n{}", world.look());
    }
    assert!(is_alive(&stream), "{}", world.look());
}

#[test]
fn an_interface_that_vanishes_is_told_and_does_not_stop_the_agent() {
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let node = &world.lab.node(world.stranger.side).namespace;
    node.ip(&format!("link del {}\n", world.stranger.interface)).unwrap();
    let told = || Ok(world.a.status()?.to_string().contains("vanished"));
    eventually("the loss of the interface", PATIENT, told, || world.look()).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}\n{}", world.look());
    }
}
