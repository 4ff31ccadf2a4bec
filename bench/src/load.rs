//! The load: real sockets, blocking threads, one server thread for each client thread.
//!
//! A connection costs the client six system calls and the server five; they are the same with and without hooks.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use trireme_testkit::lab::Namespace;

use crate::bed::Way;
use crate::report::Latency;

/// The first port that servers listen on.
pub(crate) const FIRST_PORT: u16 = 9000;
/// Clients at once where there are several.
pub(crate) const CLIENTS: u16 = 8;
/// How long anybody waits for a byte.
const PATIENCE: Duration = Duration::from_secs(3);
const CHUNK: usize = 128 * 1024;
/// Connections of each client before the clock starts: identities meet, neighbours resolve.
const WARM_UP: usize = 5;

/// What came of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// How much per second.
    pub(crate) per_second: f64,
    /// Connections that failed, warm-up included.
    pub(crate) failed: u64,
}

/// Connections per second: connect, one byte each way, close by the client, then by the server.
pub(crate) fn connections(way: Way<'_>, clients: u16, time: Duration) -> anyhow::Result<Rate> {
    let warm = |server| {
        (0..WARM_UP)
            .try_for_each(|_| exchange(server).map(drop))
            .context("connecting before the clock starts")
    };
    let work = |server, deadline: Instant| {
        let mut tally = Tally::default();
        while Instant::now() < deadline {
            match exchange(server) {
                Ok(_) => tally.done += 1,
                Err(_) => tally.failed += 1,
            }
        }
        Ok(tally)
    };
    let (tally, took) = with_servers(way, clients, time, answer_one_byte, warm, work)?;
    Ok(Rate { per_second: per_second(tally.done, took), failed: tally.failed })
}

/// Round trips of one byte per second on one connection.
pub(crate) fn round_trips(way: Way<'_>, time: Duration) -> anyhow::Result<f64> {
    let work = |server, deadline: Instant| {
        let mut stream = open(server)?;
        let mut done = 0;
        while Instant::now() < deadline {
            stream.write_all(b"?").context("sending")?;
            stream.read_exact(&mut [0]).context("receiving")?;
            done += 1;
        }
        Ok(Tally { done, failed: 0 })
    };
    let (tally, took) = with_servers(way, 1, time, echo_bytes, |_| Ok(()), work)?;
    Ok(per_second(tally.done, took))
}

/// Bytes per second from client to server on one connection, until the last has been read.
pub(crate) fn bulk(way: Way<'_>, time: Duration) -> anyhow::Result<f64> {
    let work = |server, deadline: Instant| {
        let mut stream = open(server)?;
        let chunk = vec![0; CHUNK];
        let mut done = 0;
        while Instant::now() < deadline {
            stream.write_all(&chunk).context("sending")?;
            done += CHUNK as u64;
        }
        stream.shutdown(Shutdown::Write).context("ending")?;
        stream.read_exact(&mut [0]).context("waiting for the last byte to be read")?;
        Ok(Tally { done, failed: 0 })
    };
    let (tally, took) = with_servers(way, 1, time, swallow, |_| Ok(()), work)?;
    Ok(per_second(tally.done, took))
}

/// How long `connect` takes, one at a time.
pub(crate) fn connect_latency(way: Way<'_>, time: Duration) -> anyhow::Result<Latency> {
    let times = std::sync::Mutex::new(Vec::new());
    let warm = |server| {
        (0..WARM_UP)
            .try_for_each(|_| exchange(server).map(drop))
            .context("connecting before the clock starts")
    };
    let work = |server, deadline: Instant| {
        let mut own = Vec::with_capacity(1 << 16);
        while Instant::now() < deadline {
            own.push(exchange(server).context("connecting")?);
        }
        let done = own.len() as u64;
        if let Ok(mut times) = times.lock() {
            times.append(&mut own);
        }
        Ok(Tally { done, failed: 0 })
    };
    with_servers(way, 1, time, answer_one_byte, warm, work)?;
    let times = times.into_inner().unwrap_or_default();
    ensure!(!times.is_empty(), "no connection was measured");
    Ok(Latency::of(times))
}

/// One connection, timed.
pub(crate) fn connect_once(
    client: &Namespace,
    server: &Namespace,
    to: SocketAddr,
) -> anyhow::Result<Duration> {
    let listener = server.enter(|| TcpListener::bind(to))?.context("listening")?;
    let took = client.enter(|| {
        let began = Instant::now();
        TcpStream::connect_timeout(&to, PATIENCE).map(|_| began.elapsed())
    })?;
    drop(listener);
    took.context("connecting for the first time")
}

/// One connection from begin to end; returns how long `connect` took.
fn exchange(server: SocketAddr) -> std::io::Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(server)?;
    let took = began.elapsed();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])?;
    Ok(took)
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    done: u64,
    failed: u64,
}

/// Runs `warm`, then `work` for `time`, on `count` threads in the client's namespace, each against a server thread of
/// its own. Returns what was done and how long it took.
fn with_servers(
    way: Way<'_>,
    count: u16,
    time: Duration,
    serve: fn(TcpStream),
    warm: impl Fn(SocketAddr) -> anyhow::Result<()> + Sync,
    work: impl Fn(SocketAddr, Instant) -> anyhow::Result<Tally> + Sync,
) -> anyhow::Result<(Tally, Duration)> {
    let stop = AtomicBool::new(false);
    let addresses: Vec<_> =
        (FIRST_PORT..FIRST_PORT + count).map(|port| way.server.at(way.family, port)).collect();
    let listeners = way
        .server
        .namespace
        .enter(|| addresses.iter().map(listen).collect::<std::io::Result<Vec<_>>>())?
        .context("listening")?;
    let start = Barrier::new(addresses.len());
    let client = |server| {
        let warmed = warm(server);
        start.wait();
        warmed?;
        let began = Instant::now();
        let tally = work(server, began + time)?;
        Ok((tally, began.elapsed()))
    };
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| accept_until(&stop, listener, serve));
        }
        let outcomes = way.client.namespace.enter(|| in_parallel(&addresses, client));
        stop.store(true, Ordering::Relaxed);
        // Wakes each acceptor up: closing a listener does not.
        let woken = way.server.namespace.enter(|| {
            for address in &addresses {
                drop(TcpStream::connect_timeout(address, PATIENCE));
            }
        });
        let mut sum = Tally::default();
        let mut longest = Duration::ZERO;
        for (tally, took) in outcomes?? {
            sum.done += tally.done;
            sum.failed += tally.failed;
            longest = longest.max(took);
        }
        woken?;
        Ok((sum, longest))
    })
}

fn in_parallel<T: Send>(
    addresses: &[SocketAddr],
    client: impl Fn(SocketAddr) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = addresses.iter().map(|address| scope.spawn(|| client(*address))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client thread panicked"))))
            .collect()
    })
}

fn listen(address: &SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Accepted sockets inherit it.
    socket2::SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    Ok(listener)
}

fn accept_until(stop: &AtomicBool, listener: &TcpListener, serve: fn(TcpStream)) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    }
}

fn answer_one_byte(mut stream: TcpStream) {
    if stream.read_exact(&mut [0]).is_ok() && stream.write_all(b"!").is_ok() {
        // The client closes first.
        drop(stream.read(&mut [0]));
    }
}

fn echo_bytes(mut stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    while stream.read_exact(&mut [0]).is_ok() && stream.write_all(b"!").is_ok() {}
}

fn swallow(mut stream: TcpStream) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    drop(stream.write_all(b"!"));
}

fn open(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).context("connecting")?;
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    stream.set_read_timeout(Some(PATIENCE)).context("setting a time limit")?;
    Ok(stream)
}

/// A count over a time, per second.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    approximate(count) / time.as_secs_f64()
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^52")]
pub(crate) const fn approximate(count: u64) -> f64 {
    count as f64
}
