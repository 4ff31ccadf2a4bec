//! What goes on while agents are killed: known peers, strangers and live connections, each on threads of their own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{Family, Namespace, Pu, Reach, Server, connect, probe, uninterrupted};

use crate::{PATIENT, PORT, is_alive};

/// Threads that go on until stopped, and an echo server for them.
pub struct Load {
    counts: Arc<Counts>,
    threads: Vec<thread::JoinHandle<()>>,
    _server: Server,
}

/// What happened.
#[derive(Default)]
pub struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    knocked: AtomicUsize,
    /// What must not happen, and how often it did.
    wrong: Mutex<BTreeMap<String, usize>>,
}

impl Counts {
    /// A known peer was answered.
    pub fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of what must not happen.
    pub fn blame(&self, what: String) {
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }
}

impl Load {
    /// Starts the server, which takes note of every byte of anybody but the client.
    ///
    /// # Panics
    /// If the port cannot be had.
    #[must_use]
    pub fn start(client: &Pu, server: &Pu) -> Self {
        let counts = Arc::<Counts>::default();
        let clients = Family::BOTH.map(|family| client.address(family));
        let theirs = Arc::clone(&counts);
        let serve = move |stream| serve(stream, &clients, &theirs);
        let server = Server::start(&server.namespace, PORT, serve).expect("the server can listen");
        Self { counts, threads: Vec::new(), _server: server }
    }

    /// Does something over and over, with a pause in between.
    pub fn repeat(&mut self, pause: Duration, mut once: impl FnMut(&Counts) + Send + 'static) {
        let counts = Arc::clone(&self.counts);
        self.threads.push(thread::spawn(move || {
            while !counts.stop.load(Ordering::Relaxed) {
                once(&counts);
                thread::sleep(pause);
            }
        }));
    }

    /// Keeps a connection of the client's open, and its loss is noted.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn keep_alive(&mut self, client: &Pu, to: SocketAddr, family: Family) {
        let stream = connect(&client.namespace, to, PATIENT).expect("a known peer connects");
        self.repeat(Duration::from_millis(20), move |counts| {
            if !is_alive(&stream) {
                counts.blame(format!("a live connection of {family} was lost"));
            }
        });
    }

    /// Has a stranger knock: nothing but silence is right.
    pub fn knock(&mut self, stranger: &Namespace, to: SocketAddr, family: Family) {
        let namespace = stranger.clone();
        self.repeat(Duration::ZERO, move |counts| match probe(&namespace, to, Duration::from_millis(150)) {
            Ok(Reach::Silent) => drop(counts.knocked.fetch_add(1, Ordering::Relaxed)),
            other => counts.blame(format!("a stranger of {family}: {other:?}")),
        });
    }

    /// Known peers that were answered so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Requires that nothing happened that must not.
    ///
    /// # Panics
    /// If it did.
    pub fn check(&self, when: &str, detail: impl FnOnce() -> String) {
        let wrong = self.counts.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{when}: {wrong:?}\n{}", detail());
    }

    /// Ends it; returns how many connections of known peers were answered, and how often strangers knocked.
    ///
    /// # Panics
    /// If something happened that must not.
    pub fn stop(mut self, when: &str, detail: impl FnOnce() -> String) -> (usize, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the thread ends");
        }
        self.check(when, detail);
        (self.answered(), self.counts.knocked.load(Ordering::Relaxed))
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
