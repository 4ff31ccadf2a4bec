//! How long after a change of policy the last byte of a connection that is no longer allowed arrives.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use trireme_testkit::lab::{Agent, Family};

use crate::bed::Bed;
use crate::load;
use crate::report::Latency;

const PORT: u16 = 9080;
/// Live connections at each change.
pub(crate) const CONNECTIONS: usize = 50;
/// How often each of them sends a byte.
const PACE: Duration = Duration::from_millis(1);
/// How long the connections are watched behind a change.
const WATCH: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(10);

/// Forbids everything at the server's node `changes` times; times from the change to the last byte of each connection.
pub(crate) fn times(bed: &Bed, changes: u32) -> anyhow::Result<Latency> {
    let agent = bed.agents.last().context("no agent on the server's node")?;
    let allowed = fs::read_to_string(agent.policy_file()).context("reading the policy")?;
    let forbidden = allowed.replace("role: client", "role: nobody");
    ensure!(allowed != forbidden, "the policy does not name the clients");
    let mut times = Vec::new();
    for _ in 0..changes {
        times.extend(one_change(bed, agent, &forbidden)?);
        apply(agent, &allowed)?;
        await_admission(bed)?;
    }
    Ok(Latency::of(times))
}

fn one_change(bed: &Bed, agent: &Agent, forbidden: &str) -> anyhow::Result<Vec<Duration>> {
    let address = bed.server.at(Family::V4, PORT);
    let listener = bed.server.namespace.enter(|| TcpListener::bind(address))?.context("listening")?;
    let connect = || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (accepted, _) = listener.accept()?;
        accepted.set_nonblocking(true)?;
        Ok((stream, accepted))
    };
    let pairs = bed
        .client
        .namespace
        .enter(|| (0..CONNECTIONS).map(|_| connect()).collect::<std::io::Result<Vec<_>>>())?
        .context("connecting")?;
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&clients, &stop));
        let receiver = scope.spawn(|| receive(&servers, &stop));
        std::thread::sleep(Duration::from_millis(100));
        let changed = Instant::now();
        let applied = apply(agent, forbidden);
        std::thread::sleep(WATCH);
        stop.store(true, Ordering::Relaxed);
        drop(sender.join());
        let last = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        applied?;
        last.into_iter()
            .map(|last| {
                let last = last.context("a connection carried nothing at all")?;
                Ok(last.saturating_duration_since(changed))
            })
            .collect()
    })
}

fn send(streams: &[TcpStream], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for mut stream in streams {
            // A cut connection fills its buffer, or is reset.
            drop(stream.write(b"."));
        }
        std::thread::sleep(PACE);
    }
}

/// When each connection carried its last byte.
fn receive(streams: &[TcpStream], stop: &AtomicBool) -> Vec<Option<Instant>> {
    let mut last = vec![None; streams.len()];
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        for (mut stream, last) in streams.iter().zip(&mut last) {
            match stream.read(&mut buffer) {
                Ok(len) if len > 0 => *last = Some(Instant::now()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {}
            }
        }
        std::thread::sleep(PACE / 4);
    }
    last
}

/// Puts a policy in force now; the agent would notice the file by itself too, but later.
fn apply(agent: &Agent, policy: &str) -> anyhow::Result<()> {
    let file = agent.policy_file();
    let new = file.with_extension("new");
    fs::write(&new, policy).and_then(|()| fs::rename(&new, &file)).context("writing the policy")?;
    let id = agent.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.context("the agent does not run")?, Signal::HUP).context("asking for a reload")
}

fn await_admission(bed: &Bed) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let to = bed.server.at(Family::V4, PORT);
    while load::connect_once(&bed.client.namespace, &bed.server.namespace, to).is_err() {
        ensure!(Instant::now() < deadline, "the old policy does not come into force again");
    }
    Ok(())
}
