//! Identities that have met need no agent to meet again.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::time::Duration;

use trireme_flow::{Action, FlowEvent, FlowRecord, Traffic};
use trireme_testkit::lab::{Agent, Family, Reach, Server, connect, eventually};
use trireme_tests_netns::{Fast, PATIENT, PORT, PROMPT, World, WorldSpec};

fn packets_to_the_engine(agent: &Agent) -> u64 {
    agent.gauge("packets to the engine").unwrap().unwrap()
}

#[test]
fn identities_that_have_met_connect_without_their_agents_seeing_a_packet() {
    const CONNECTS: u64 = 20;
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        let before = [&world.a, &world.b].map(packets_to_the_engine);
        let ((), taken) = world.judged(|| {
            for _ in 0..CONNECTS {
                assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{}", world.logs());
            }
        });
        let each = [CONNECTS, CONNECTS];
        assert_eq!(taken, Fast { syns: each, syn_acks: each, proofs: each }, "{family}\n{}", world.look());
        assert_eq!([&world.a, &world.b].map(packets_to_the_engine), before, "{family}\n{}", world.look());
    }
}

#[test]
fn a_refused_peer_that_hammers_is_refused_by_the_programs() {
    let mut spec = WorldSpec::new();
    spec.b.enforcement.push_str("notify_peer = false\n");
    let world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        let before = world.b.kernel_count("refused").unwrap();
        let refused = || {
            assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{}", world.logs());
            Ok(world.b.kernel_count("refused")? > before)
        };
        eventually("a refusal by the programs", PATIENT, refused, || world.look()).unwrap();
        let before = packets_to_the_engine(&world.b);
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
        assert_eq!(packets_to_the_engine(&world.b), before, "{}", world.look());
    }
}

#[test]
fn start_and_end_of_a_known_connection_are_recorded_with_its_traffic() {
    const LEN: usize = 50_000;
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let port = PORT;
    let is_it = |record: &FlowRecord| record.action == Action::Accept && record.destination.port == port;
    let ends = |agent: &Agent| -> u64 {
        agent.flows().unwrap().iter().filter(|r| is_it(r) && r.event == FlowEvent::End).map(|r| r.count).sum()
    };
    let before = [&world.a, &world.b].map(ends);
    let mut stream = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    stream.set_read_timeout(Some(PATIENT)).unwrap();
    let (sent, mut received) = (vec![7; LEN], vec![0; LEN]);
    stream.write_all(&sent).unwrap();
    stream.read_exact(&mut received).unwrap();
    assert_eq!(sent, received);
    drop(stream);
    for (agent, before) in [&world.a, &world.b].into_iter().zip(before) {
        let ended = || Ok(ends(agent) > before);
        eventually("the record of an end", PATIENT, ended, || world.logs()).unwrap();
        let carries = |traffic: &Traffic| {
            traffic.bytes_from >= LEN as u64
                && traffic.bytes_to >= LEN as u64
                && traffic.packets_from > 1
                && traffic.packets_to > 1
        };
        agent
            .await_flow("the traffic of the connection", PATIENT, |record| {
                is_it(record)
                    && record.event == FlowEvent::End
                    && record.traffic.as_ref().is_some_and(carries)
            })
            .unwrap();
    }
}

#[test]
fn counters_never_go_back_over_a_kill_and_a_restart() {
    let spec = WorldSpec::new();
    let config = spec.b.clone();
    let mut world = spec.start();
    world.introduce();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let counters = |agent: &Agent| {
        let status = agent.status().unwrap();
        let all = status.pointer("/datapath/counters").unwrap().as_array().unwrap().clone();
        let of = |field: &str, value: &serde_json::Value| value.get(field).map(ToString::to_string);
        all.iter()
            .map(|counter| {
                let key = (of("pu", counter), of("reason", counter));
                (key, counter.get("count").and_then(serde_json::Value::as_u64).unwrap())
            })
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
    let before = counters(&world.b);
    world.b.kill().unwrap();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered);
    world.b.restart(&world.lab, &config).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let after = counters(&world.b);
    for (key, count) in &before {
        assert!(
            after.get(key) >= Some(count),
            "{key:?}: {count}, then {:?}\n{}",
            after.get(key),
            world.look()
        );
    }
    assert_ne!(before, after, "what happened in between is not counted");
}
