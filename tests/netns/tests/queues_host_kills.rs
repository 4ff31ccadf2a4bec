//! Agents of hosts killed under load: nothing that lives is lost, nothing else passes, and others notice nothing.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Reach, Server, eventually, probe};
use trireme_tests_netns::{HostUnit, Hosts, HostsSpec, PATIENT, PORT, PROMPT, is_alive};

/// How often, unless `TRIREME_KILLS` says otherwise.
const KILLS: usize = 12;
/// Where servers listen that are in no unit.
const ELSEWHERE: u16 = 9090;
/// Known peers may be silent while an agent is dead, and for as long as their stacks wait before they try again.
const BACK: Duration = Duration::from_secs(15);

/// What the callers saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    answered: AtomicUsize,
    knocked: AtomicUsize,
    others: AtomicUsize,
}

impl Seen {
    fn repeat(&self, counter: &AtomicUsize, call: impl Fn()) {
        while !self.over.load(Ordering::Relaxed) {
            call();
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One connection of a known peer after another.
fn call(seen: &Seen, client: &HostUnit, to: SocketAddr) {
    while !seen.over.load(Ordering::Relaxed) {
        match client.sees(to, PATIENT) {
            Reach::Answered => drop(seen.answered.fetch_add(1, Ordering::Relaxed)),
            // An agent was dead.
            Reach::Silent | Reach::Mute => {}
            refused @ (Reach::Refused | Reach::Prohibited) => panic!("a known peer: {refused:?}"),
        }
    }
}

fn knock(seen: &Reach) {
    assert_eq!(*seen, Reach::Silent, "somebody unknown");
}

#[test]
fn agents_of_hosts_killed_under_load_lose_no_connection_and_let_nobody_else_in() {
    let kills =
        std::env::var("TRIREME_KILLS").map_or(KILLS, |text| text.parse().expect("TRIREME_KILLS is a number"));
    let spec = HostsSpec::new();
    let (config_a, config_b) = (spec.a.clone(), spec.b.clone());
    let Hosts { mut a, mut b, client, stranger, server, lab } = spec.start();
    let _server = server.echo(PORT);
    let _others = Server::echo(&server.host, ELSEWHERE).unwrap();
    let at = |family, port| match family {
        Family::V4 => SocketAddr::new([10, 200, 2, 2].into(), port),
        Family::V6 => SocketAddr::new("fd00:200:2::2".parse().unwrap(), port),
    };
    let live: Vec<_> = Family::BOTH.map(|family| client.connect(at(family, PORT), PATIENT)).into();
    assert!(live.iter().all(is_alive));
    let seen = Seen::default();
    thread::scope(|scope| {
        for family in Family::BOTH {
            let (to, elsewhere) = (at(family, PORT), at(family, ELSEWHERE));
            let (seen, client, stranger) = (&seen, &client, &stranger);
            scope.spawn(move || call(seen, client, to));
            scope.spawn(move || seen.repeat(&seen.knocked, || knock(&stranger.sees(to, PROMPT))));
            scope.spawn(move || {
                seen.repeat(&seen.knocked, || knock(&probe(&client.host, to, PROMPT).unwrap()));
            });
            scope.spawn(move || {
                seen.repeat(&seen.others, || {
                    let reach = probe(&client.host, elsewhere, PATIENT).unwrap();
                    assert_eq!(reach, Reach::Answered, "{family}: between processes of no unit");
                });
            });
        }
        let rounds = || {
            for round in 0..kills {
                // Each alone, and both at once, at moments that shift against the agents' own beat.
                let kind = round % 3;
                if kind != 1 {
                    a.kill().unwrap();
                }
                if kind != 0 {
                    b.kill().unwrap();
                }
                thread::sleep(Duration::from_millis((round * 37 % 101) as u64));
                for (agent, config, killed) in
                    [(&mut a, &config_a, kind != 1), (&mut b, &config_b, kind != 0)]
                {
                    if killed {
                        agent.restart(&lab, config).unwrap();
                    }
                }
                assert!(live.iter().all(is_alive), "a live connection was lost with kill {round}");
                let before = seen.answered.load(Ordering::Relaxed);
                let answered = || Ok(seen.answered.load(Ordering::Relaxed) > before + 4);
                eventually(&format!("known peers that connect after kill {round}"), BACK, answered, || {
                    b.log()
                })
                .unwrap();
            }
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        seen.over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let [answered, knocked, others] =
        [&seen.answered, &seen.knocked, &seen.others].map(|count| count.load(Ordering::Relaxed));
    assert!(answered > kills * 4 && knocked > kills / 2 && others > kills, "{answered} {knocked} {others}");
    eprintln!("{kills} kills: {answered} answered, {knocked} attempts of strangers, {others} of others");
}
