//! Agents of netfilter queues killed under load: nothing that lives is lost, and nothing else passes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Namespace, Reach, Server, connect, eventually, probe, uninterrupted};
use trireme_tests_netns::{Judge, PATIENT, PORT, World, WorldSpec, is_alive};

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
    let load = Load::start(&world);
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
        load.check(&format!("after kill {round}"), &world);
        load.await_answers(round, &world);
    }
    let (answered, knocked) = load.stop(&world);
    assert!(answered > kills * CALLERS, "only {answered} connections during {kills} kills: this was no load");
    assert!(knocked > kills / 4, "the strangers hardly tried: {knocked}");
    eprintln!("{kills} kills: {answered} connections answered, {knocked} attempts of strangers");
}

/// Callers, live connections and strangers, each on threads of their own until stopped.
struct Load {
    counts: Arc<Counts>,
    threads: Vec<thread::JoinHandle<()>>,
    _server: Server,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    knocked: AtomicUsize,
    /// What must not happen, and how often it did.
    wrong: Mutex<BTreeMap<String, usize>>,
}

impl Counts {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn blame(&self, what: String) {
        *self.wrong.lock().unwrap().entry(what).or_default() += 1;
    }
}

impl Load {
    fn start(world: &World) -> Self {
        let counts = Arc::<Counts>::default();
        let clients = Family::BOTH.map(|family| world.client.address(family));
        let theirs = Arc::clone(&counts);
        let serve = move |stream| serve(stream, &clients, &theirs);
        let server = Server::start(&world.server.namespace, PORT, serve).unwrap();
        let mut load = Self { counts, threads: Vec::new(), _server: server };
        for family in Family::BOTH {
            let to = world.server.at(family, PORT);
            for _ in 0..LIVE / 2 {
                let stream = connect(&world.client.namespace, to, PATIENT).unwrap();
                load.repeat(Duration::from_millis(20), move |counts| {
                    if !is_alive(&stream) {
                        counts.blame(format!("a live connection of {family} was lost"));
                    }
                });
            }
            for _ in 0..CALLERS / 2 {
                let namespace = world.client.namespace.clone();
                load.repeat(Duration::from_millis(2), move |counts| match probe(&namespace, to, PATIENT) {
                    Ok(Reach::Answered) => drop(counts.answered.fetch_add(1, Ordering::Relaxed)),
                    // An agent was dead.
                    Ok(Reach::Silent | Reach::Mute) => {}
                    other => counts.blame(format!("a known peer of {family}: {other:?}")),
                });
            }
            for namespace in [&world.stranger.namespace, world.lab.router()] {
                let namespace: Namespace = namespace.clone();
                load.repeat(Duration::ZERO, move |counts| {
                    match probe(&namespace, to, Duration::from_millis(150)) {
                        Ok(Reach::Silent) => drop(counts.knocked.fetch_add(1, Ordering::Relaxed)),
                        other => counts.blame(format!("a stranger of {family}: {other:?}")),
                    }
                });
            }
        }
        load
    }

    fn repeat(&mut self, pause: Duration, mut once: impl FnMut(&Counts) + Send + 'static) {
        let counts = Arc::clone(&self.counts);
        self.threads.push(thread::spawn(move || {
            while counts.goes_on() {
                once(&counts);
                thread::sleep(pause);
            }
        }));
    }

    fn check(&self, when: &str, world: &World) {
        let wrong = self.counts.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{when}: {wrong:?}\n{}", world.logs());
    }

    fn await_answers(&self, round: usize, world: &World) {
        let before = self.counts.answered.load(Ordering::Relaxed);
        let answered = || Ok(self.counts.answered.load(Ordering::Relaxed) > before + CALLERS);
        eventually(&format!("known peers that connect after kill {round}"), BACK, answered, || world.look())
            .unwrap();
    }

    /// Ends it; returns how many connections of the client were answered, and how often strangers knocked.
    fn stop(mut self, world: &World) -> (usize, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.check("at the end", world);
        (self.counts.answered.load(Ordering::Relaxed), self.counts.knocked.load(Ordering::Relaxed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
    }
}

/// Echoes to the client and takes note of every byte of anybody else.
fn serve(mut stream: TcpStream, clients: &[IpAddr; 2], counts: &Counts) {
    let from = stream.peer_addr().map(|from| from.ip());
    let known = from.as_ref().is_ok_and(|from| clients.contains(&from.to_canonical()));
    let mut buffer = [0; 64];
    while let Ok(len @ 1..) = uninterrupted(|| stream.read(&mut buffer)) {
        if !known {
            counts.blame(format!("bytes of {from:?} reached the server"));
        }
        if stream.write_all(buffer.get(..len).unwrap_or_default()).is_err() {
            break;
        }
    }
}
