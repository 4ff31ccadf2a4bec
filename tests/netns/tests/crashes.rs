//! Agents killed under load: nothing that is known is refused, nothing that lives is lost, nothing else passes.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Pu, Reach, Server, connect, probe, uninterrupted};
use trireme_tests_netns::{Judge, PATIENT, PORT, WorldSpec, is_alive};

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
    let load = Load::start(&world.client, &world.stranger, &world.server);
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

/// Callers, live connections and a stranger, each on threads of their own until stopped.
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
    fn start(client: &Pu, stranger: &Pu, server: &Pu) -> Self {
        let counts = Arc::<Counts>::default();
        let echo = {
            let (counts, clients) = (Arc::clone(&counts), Family::BOTH.map(|family| client.address(family)));
            Server::start(&server.namespace, PORT, move |stream| serve(stream, &clients, &counts)).unwrap()
        };
        let mut threads = Vec::new();
        for number in 0..LIVE {
            let family = Family::BOTH.into_iter().cycle().nth(number).unwrap();
            let stream = connect(&client.namespace, server.at(family, PORT), PATIENT).unwrap();
            let counts = Arc::clone(&counts);
            threads.push(thread::spawn(move || {
                while counts.goes_on() {
                    if !is_alive(&stream) {
                        counts.blame(format!("a live connection of {family} was lost"));
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }));
        }
        for number in 0..CALLERS {
            let family = Family::BOTH.into_iter().cycle().nth(number).unwrap();
            let (counts, namespace) = (Arc::clone(&counts), client.namespace.clone());
            let to = server.at(family, PORT);
            threads.push(thread::spawn(move || {
                while counts.goes_on() {
                    match probe(&namespace, to, PATIENT) {
                        Ok(Reach::Answered) => drop(counts.answered.fetch_add(1, Ordering::Relaxed)),
                        other => counts.blame(format!("a known peer of {family}: {other:?}")),
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        for family in Family::BOTH {
            let (counts, namespace) = (Arc::clone(&counts), stranger.namespace.clone());
            let to = server.at(family, PORT);
            threads.push(thread::spawn(move || {
                while counts.goes_on() {
                    match probe(&namespace, to, Duration::from_millis(150)) {
                        Ok(Reach::Silent) => drop(counts.knocked.fetch_add(1, Ordering::Relaxed)),
                        other => counts.blame(format!("the stranger of {family}: {other:?}")),
                    }
                }
            }));
        }
        Self { counts, threads, _server: echo }
    }

    fn check(&self, when: &str, detail: impl FnOnce() -> String) {
        let wrong = self.counts.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{when}: {wrong:?}\n{}", detail());
    }

    /// Ends it; returns how many connections of the client were answered, and how often the stranger knocked.
    fn stop(mut self, when: &str, detail: impl FnOnce() -> String) -> (usize, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.check(when, detail);
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
