//! The load: real sockets, blocking threads, one server thread for each client thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use trireme_testkit::lab::{Family, Namespace};

use crate::Latency;
use crate::arena::Pair;

const FIRST_PORT: u16 = 9000;
const CONNECT: Duration = Duration::from_secs(3);
const CHUNK: usize = 128 * 1024;

/// Connections per second: connect, one byte each way, close.
pub(crate) fn connections(pair: &Pair, clients: u16, time: Duration) -> anyhow::Result<f64> {
    let done = AtomicU64::new(0);
    let began = Instant::now();
    with_servers(pair, clients, answer_one_byte, |server| {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            let mut stream = TcpStream::connect_timeout(&server, CONNECT).context("connecting")?;
            stream.write_all(b"?").context("sending")?;
            stream.read_exact(&mut [0]).context("receiving")?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(per_second(done.load(Ordering::Relaxed), began.elapsed()))
}

/// Round trips of one byte per second on one connection.
pub(crate) fn round_trips(pair: &Pair, time: Duration) -> anyhow::Result<f64> {
    let done = AtomicU64::new(0);
    with_servers(pair, 1, echo_bytes, |server| {
        let mut stream = open(server)?;
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            stream.write_all(b"?").context("sending")?;
            stream.read_exact(&mut [0]).context("receiving")?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(per_second(done.load(Ordering::Relaxed), time))
}

/// Bytes per second from client to server on one connection.
pub(crate) fn bulk(pair: &Pair, time: Duration) -> anyhow::Result<f64> {
    let done = AtomicU64::new(0);
    with_servers(pair, 1, swallow, |server| {
        let mut stream = open(server)?;
        let chunk = vec![0; CHUNK];
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            stream.write_all(&chunk).context("sending")?;
            done.fetch_add(CHUNK as u64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(per_second(done.load(Ordering::Relaxed), time))
}

/// How long `connect` takes, one at a time.
pub(crate) fn connect_latency(pair: &Pair, count: usize) -> anyhow::Result<Latency> {
    let times = std::sync::Mutex::new(Vec::with_capacity(count));
    with_servers(pair, 1, answer_one_byte, |server| {
        for _ in 0..count {
            let began = Instant::now();
            let mut stream = TcpStream::connect_timeout(&server, CONNECT).context("connecting")?;
            let took = began.elapsed();
            stream.write_all(b"?").context("sending")?;
            stream.read_exact(&mut [0]).context("receiving")?;
            if let Ok(mut times) = times.lock() {
                times.push(took);
            }
        }
        Ok(())
    })?;
    let times = times.into_inner().unwrap_or_default();
    ensure!(times.len() == count, "only {} of {count} connections were measured", times.len());
    Ok(Latency::of(times))
}

/// One connection, timed.
pub(crate) fn connect_once(client: &Namespace, server: &Namespace, to: SocketAddr) -> anyhow::Result<f64> {
    let listener = server.enter(|| TcpListener::bind(to))?.context("listening")?;
    let took = client.enter(|| {
        let began = Instant::now();
        TcpStream::connect_timeout(&to, CONNECT).map(|_| began.elapsed())
    })?;
    drop(listener);
    Ok(took.context("connecting for the first time")?.as_secs_f64() * 1e6)
}

/// Runs `client` on `count` threads in the client's namespace, each against a server thread of its own.
fn with_servers(
    pair: &Pair,
    count: u16,
    serve: fn(TcpStream),
    client: impl Fn(SocketAddr) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let stop = AtomicBool::new(false);
    let ports = FIRST_PORT..FIRST_PORT + count;
    let addresses: Vec<_> = ports.map(|port| pair.server.at(Family::V4, port)).collect();
    let listeners = pair
        .server
        .namespace
        .enter(|| addresses.iter().map(TcpListener::bind).collect::<Result<Vec<_>, _>>())?
        .context("listening")?;
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| accept_until(&stop, listener, serve));
        }
        let outcome = pair.client.namespace.enter(|| {
            std::thread::scope(|scope| {
                let clients: Vec<_> =
                    addresses.iter().map(|address| scope.spawn(|| client(*address))).collect();
                clients.into_iter().try_for_each(|thread| match thread.join() {
                    Ok(outcome) => outcome,
                    Err(_) => Err(anyhow::anyhow!("a client thread panicked")),
                })
            })
        });
        stop.store(true, Ordering::Relaxed);
        // Wakes each acceptor up: closing a listener does not.
        let woken = pair.server.namespace.enter(|| {
            for address in &addresses {
                drop(TcpStream::connect_timeout(address, CONNECT));
            }
        });
        outcome.map_err(anyhow::Error::from)??;
        woken.map_err(anyhow::Error::from)
    })
}

fn accept_until(stop: &AtomicBool, listener: &TcpListener, serve: fn(TcpStream)) {
    while let Ok((stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        serve(stream);
    }
}

fn answer_one_byte(mut stream: TcpStream) {
    if stream.read_exact(&mut [0]).is_ok() {
        drop(stream.write_all(b"!"));
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
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn open(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, CONNECT).context("connecting")?;
    stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    Ok(stream)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^52")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
