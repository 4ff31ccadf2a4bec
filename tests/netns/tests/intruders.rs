//! Somebody else meddles with what the agent put into the kernel.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::time::Duration;

use serde_json::Value;
use trireme_testkit::lab::{Agent, Family, Pu, Reach, Server, Side, connect, eventually};
use trireme_tests_netns::{PATIENT, PORT, PROMPT, World, is_alive};

/// The pins of the links that hold programs at the interfaces of a node.
fn links(world: &World, side: Side) -> Vec<String> {
    let instance = world.lab.bpffs().join("trireme").join(format!("lab-{}-{side}", world.lab.id()));
    let versions = fs::read_dir(&instance).unwrap().map(|entry| entry.unwrap().path().join("links"));
    let pins = versions.filter(|links| links.is_dir()).flat_map(|links| fs::read_dir(links).unwrap());
    pins.map(|pin| pin.unwrap().path().to_str().unwrap().to_owned()).collect()
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
    let pins = links(&world, world.server.side);
    assert_eq!(pins.len(), 2, "{pins:?}");
    for pin in &pins {
        node.run("bpftool", &["link", "detach", "pinned", pin]).unwrap();
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
