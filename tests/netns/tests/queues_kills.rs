//! Agents of netfilter queues killed under load: nothing that lives is lost, and nothing else passes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Reach, eventually, probe};
use trireme_tests_netns::{Judge, Load, PATIENT, PORT, World, WorldSpec};

/// How often, unless `TRIREME_KILLS` says otherwise.
const KILLS: usize = 20;
/// Connections that live through all of it.
const LIVE: usize = 20;
/// Threads that open one connection after another.
const CALLERS: usize = 4;
/// Known peers may be silent while an agent is dead, and for as long as their stacks wait before they try again.
const BACK: Duration = Duration::from_secs(15);

#[test]
fn agents_killed_under_load_lose_no_connection_and_let_nobody_else_in() {
    let kills =
        std::env::var("TRIREME_KILLS").map_or(KILLS, |text| text.parse().expect("TRIREME_KILLS is a number"));
    let spec = WorldSpec::new().judged_by(Judge::Queue);
    let (config_a, config_b) = (spec.a.clone(), spec.b.clone());
    let mut world = spec.start();
    let load = start(&world);
    for round in 0..kills {
        // Each alone, and both at once, at moments that shift against the agents' own beat.
        let kind = round % 3;
        if kind != 1 {
            world.a.kill().unwrap();
        }
        if kind != 0 {
            world.b.kill().unwrap();
        }
        thread::sleep(Duration::from_millis((round * 37 % 101) as u64));
        for (agent, config, killed) in
            [(&mut world.a, &config_a, kind != 1), (&mut world.b, &config_b, kind != 0)]
        {
            if killed {
                agent.restart(&world.lab, config).unwrap();
            }
        }
        load.check(&format!("after kill {round}"), || world.logs());
        await_answers(&load, round, &world);
    }
    let (answered, knocked) = load.stop("at the end", || world.logs());
    assert!(answered > kills * CALLERS, "only {answered} connections during {kills} kills: this was no load");
    assert!(knocked > kills / 4, "the strangers hardly tried: {knocked}");
    eprintln!("{kills} kills: {answered} connections answered, {knocked} attempts of strangers");
}

/// Callers, live connections and strangers.
fn start(world: &World) -> Load {
    let mut load = Load::start(&world.client, &world.server);
    for family in Family::BOTH {
        let to = world.server.at(family, PORT);
        for _ in 0..LIVE / 2 {
            load.keep_alive(&world.client, to, family);
        }
        for _ in 0..CALLERS / 2 {
            let namespace = world.client.namespace.clone();
            load.repeat(Duration::from_millis(2), move |counts| match probe(&namespace, to, PATIENT) {
                Ok(Reach::Answered) => counts.answered(),
                // An agent was dead.
                Ok(Reach::Silent | Reach::Mute) => {}
                other => counts.blame(format!("a known peer of {family}: {other:?}")),
            });
        }
        for namespace in [&world.stranger.namespace, world.lab.router()] {
            load.knock(namespace, to, family);
        }
    }
    load
}

fn await_answers(load: &Load, round: usize, world: &World) {
    let before = load.answered();
    let answered = || Ok(load.answered() > before + CALLERS);
    eventually(&format!("known peers that connect after kill {round}"), BACK, answered, || world.look())
        .unwrap();
}
