//! What only a machine of its own can be used for: `make test-guest` runs this in an emulated one.
//!
//! The wall clock belongs to the whole machine, and programs on a clsact qdisc to kernels before 6.6.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::Value;
use trireme_testkit::lab::{Family, Reach, Server, connect, eventually};
use trireme_tests_netns::{PATIENT, PORT, World, is_alive};

/// An emulated processor takes its time.
const SLOW: Duration = Duration::from_secs(20);
const HOUR: i64 = 3600;

/// Nothing here may run on a machine that others use.
fn in_the_guest() {
    assert!(
        std::env::var_os("TRIREME_GUEST").is_some(),
        "this changes the whole machine: run it with `make test-guest`"
    );
}

fn step_the_clock(seconds: i64) {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: tv_sec + seconds, tv_nsec }).unwrap();
}

#[test]
fn small_steps_of_the_clock_are_noticed_by_nobody() {
    in_the_guest();
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let live = connect(&world.client.namespace, world.server.at(Family::V4, PORT), SLOW).unwrap();
    for step in [20, -20, -20, 20] {
        step_the_clock(step);
        for _ in 0..3 {
            for family in Family::BOTH {
                let reach = world.client_sees_within(family, PATIENT);
                assert_eq!(reach, Reach::Answered, "{family}, after {step} s\n{}", world.look());
            }
            std::thread::sleep(Duration::from_millis(700));
        }
        assert!(is_alive(&live), "after {step} s\n{}", world.look());
    }
}

#[test]
fn after_great_steps_of_the_clock_live_connections_go_on_and_known_peers_connect_again() {
    in_the_guest();
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let live = connect(&world.client.namespace, world.server.at(Family::V4, PORT), SLOW).unwrap();
    // Tokens live for ten minutes: these end all of them, and then make them tokens of the future.
    for step in [HOUR, -HOUR] {
        step_the_clock(step);
        assert!(is_alive(&live), "after {step} s\n{}", world.look());
        for family in Family::BOTH {
            let answers = || Ok(world.client_sees_within(family, PATIENT) == Reach::Answered);
            eventually("a connect", SLOW, answers, || format!("after {step} s: {}", world.look())).unwrap();
        }
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent, "after {step} s");
        assert!(is_alive(&live), "after {step} s\n{}", world.look());
    }
}

#[test]
fn without_tcx_the_programs_stand_on_clsact_and_are_back_when_somebody_removes_them() {
    in_the_guest();
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let node = &world.lab.node(world.server.side).namespace;
    let filters =
        |hook: &str| node.run("tc", &["filter", "show", "dev", &world.server.interface, hook]).unwrap();
    for hook in ["ingress", "egress"] {
        assert!(filters(hook).contains("bpf"), "no program at {hook}: {}", filters(hook));
        node.run("tc", &["filter", "del", "dev", &world.server.interface, hook]).unwrap();
    }
    let repaired = || {
        let status = world.b.status()?;
        let units = status.pointer("/pus").and_then(Value::as_array).unwrap_or_else(|| panic!("{status}"));
        Ok(units.iter().any(|unit| unit.pointer("/datapath/repairs").and_then(Value::as_u64) > Some(0)))
    };
    eventually("the repair", SLOW, repaired, || world.look()).unwrap();
    for hook in ["ingress", "egress"] {
        assert!(filters(hook).contains("bpf"), "no program at {hook}: {}", filters(hook));
    }
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent, "{}", world.look());
    assert_eq!(world.client_sees_within(Family::V4, SLOW), Reach::Answered, "{}", world.look());
}
