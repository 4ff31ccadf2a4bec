//! Agents killed under load: nothing that is known is refused, nothing that lives is lost, nothing else passes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Pu, Reach, probe};
use trireme_tests_netns::{Judge, Load, PATIENT, PORT, WorldSpec};

/// How often, unless `TRIREME_KILLS` says otherwise.
const KILLS: usize = 100;
/// Connections that live through all of it.
const LIVE: usize = 20;
/// Threads that open one connection after another.
const CALLERS: usize = 4;

#[test]
fn agents_killed_under_load_lose_no_connection_refuse_no_known_peer_and_let_nobody_else_in() {
    let kills =
        std::env::var("TRIREME_KILLS").map_or(KILLS, |text| text.parse().expect("TRIREME_KILLS is a number"));
    let spec = WorldSpec::new().judged_by(Judge::Kernel);
    let (config_a, config_b) = (spec.a.clone(), spec.b.clone());
    let mut world = spec.start();
    world.introduce();
    let load = start(&world.client, &world.stranger, &world.server);
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
    }
    let (answered, knocked) = load.stop("at the end", || world.logs());
    assert!(answered > kills, "only {answered} connections during {kills} kills: this was no load");
    assert!(knocked > kills / 20, "the stranger hardly tried: {knocked}");
}

/// Callers, live connections and a stranger.
fn start(client: &Pu, stranger: &Pu, server: &Pu) -> Load {
    let mut load = Load::start(client, server);
    for family in Family::BOTH {
        let to = server.at(family, PORT);
        for _ in 0..LIVE / 2 {
            load.keep_alive(client, to, family);
        }
        for _ in 0..CALLERS / 2 {
            let namespace = client.namespace.clone();
            load.repeat(Duration::from_millis(2), move |counts| match probe(&namespace, to, PATIENT) {
                Ok(Reach::Answered) => counts.answered(),
                other => counts.blame(format!("a known peer of {family}: {other:?}")),
            });
        }
        load.knock(&stranger.namespace, to, family);
    }
    load
}
