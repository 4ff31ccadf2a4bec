//! How many connections per second survive the punt path. By hand:
//! `cargo test --release -p trireme-bpf --test kernel -- --ignored --exact rate::connections_per_second --nocapture`

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trireme_bpf::{
    Class, Connection, Edge, FlowKey, Hook, Injection, Plane, PlaneConfig, PuntReason, Role, Slot, Toward,
    Waker,
};

use crate::lab::{Lab, PU, host_edge, state};
use crate::wire::{ACK, SYN};

const PEER: Slot = Slot(6);
const CLIENTS: usize = 8;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);

#[test]
#[ignore = "measures; start it by hand on a quiet machine"]
#[expect(clippy::print_stdout, reason = "prints what it measured")]
fn connections_per_second() {
    let lab = Lab::new();
    let bare = AtomicU64::new(0);
    let punted = AtomicU64::new(0);
    for round in 0..ROUNDS {
        bare.fetch_add(measure(&lab), Ordering::Relaxed);
        let (driver, stop, waker) = drive(&lab);
        punted.fetch_add(measure(&lab), Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        waker.wake();
        let (plane, punts) = driver.join().unwrap();
        let counters = plane.counters().unwrap();
        drop(plane);
        println!("round {round}: {bare:?} bare, {punted:?} punted, {punts} punts, {:?}", counters[0].1);
        lab.node.run(|| Plane::cleanup("/sys/fs/bpf".as_ref(), &lab.instance)).unwrap().unwrap();
    }
    let per_sec = |total: &AtomicU64| total.load(Ordering::Relaxed) / (ROUND.as_secs() * ROUNDS as u64);
    let (bare, punted) = (per_sec(&bare), per_sec(&punted));
    println!("{bare}/s bare, {punted}/s punted at both ends, ratio {}%", punted * 100 / bare.max(1));
    let (driver, stop, waker) = drive(&lab);
    println!("connect p50: {:?} punted", latency(&lab));
    stop.store(true, Ordering::Relaxed);
    waker.wake();
    drop(driver.join().unwrap());
    lab.node.run(|| Plane::cleanup("/sys/fs/bpf".as_ref(), &lab.instance)).unwrap().unwrap();
    println!("connect p50: {:?} bare", latency(&lab));
}

/// Connections that complete in one round: connect, one byte each way, close.
fn measure(lab: &Lab) -> u64 {
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let ports: Vec<u16> = (0..CLIENTS).map(|n| 9000 + u16::try_from(n).unwrap()).collect();
    let servers = ports.clone().into_iter().map(|port| serve(lab, port, &done)).collect::<Vec<_>>();
    let clients: Vec<_> = ports.into_iter().map(|port| connect(lab, port, &count)).collect();
    std::thread::sleep(ROUND);
    let total = count.load(Ordering::Relaxed);
    done.store(true, Ordering::Relaxed);
    clients.into_iter().chain(servers).for_each(|thread| thread.join().unwrap());
    total
}

fn serve(lab: &Lab, port: u16, done: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let listener = lab.peer.run(|| TcpListener::bind(("10.8.0.2", port))).unwrap().unwrap();
    let done = Arc::clone(done);
    std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() || done.load(Ordering::Relaxed) {
                return;
            }
            let _closed = stream.write_all(&byte);
        }
    })
}

fn connect(lab: &Lab, port: u16, count: &Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    let count = Arc::clone(count);
    let namespace = lab.pu.duplicate().unwrap();
    std::thread::spawn(move || {
        namespace
            .run(|| {
                // The server ends with the first connection after the end.
                while let Ok(mut stream) = TcpStream::connect(("10.8.0.2", port)) {
                    let _closed = stream.write_all(b"x");
                    let mut byte = [0];
                    if stream.read(&mut byte).is_ok_and(|got| got == 1) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
            .unwrap();
    })
}

fn latency(lab: &Lab) -> Duration {
    let listener = lab.peer.run(|| TcpListener::bind("10.8.0.2:9100")).unwrap().unwrap();
    let server = std::thread::spawn(move || (0..2000).for_each(|_| drop(listener.accept().unwrap())));
    let mut times: Vec<Duration> = lab
        .pu
        .run(|| {
            (0..2000)
                .map(|_| {
                    let start = Instant::now();
                    let stream = TcpStream::connect("10.8.0.2:9100").unwrap();
                    let time = start.elapsed();
                    drop(stream);
                    time
                })
                .collect()
        })
        .unwrap();
    server.join().unwrap();
    times.sort();
    times[1000]
}

type Driver = std::thread::JoinHandle<(Plane, u64)>;

/// Both ends are PUs of one node; their handshakes go through one user space that installs the connection.
fn drive(lab: &Lab) -> (Driver, Arc<AtomicBool>, Waker) {
    let spin = std::env::var("SPIN_MICROS")
        .map_or_else(|_| lab.config().spin, |text| Duration::from_micros(text.parse().unwrap()));
    let mut plane = lab.open_with(PlaneConfig { spin, ..lab.config() });
    plane.attach(&host_edge(), PU, state(1)).unwrap();
    plane.attach(&Edge::Interface("up0".to_owned()), PEER, state(1)).unwrap();
    let (stop, waker) = (Arc::new(AtomicBool::new(false)), plane.waker());
    let stopped = Arc::clone(&stop);
    let driver = std::thread::Builder::new().name("driver".to_owned());
    let driver = driver.spawn(move || {
        let (mut batch, mut entries, mut punts) = (Vec::new(), Vec::new(), 0);
        while !stopped.load(Ordering::Relaxed) {
            let count = plane.drain(64, |punt| {
                entries.extend(authorized(&punt));
                batch.push(Injection {
                    slot: punt.slot,
                    toward: if punt.hook == Hook::FromPu { Toward::Network } else { Toward::Pu },
                    bytes: punt.bytes.to_vec(),
                    gso_size: punt.gso_size,
                    token: Some(punt.token),
                });
            });
            for (key, connection) in entries.drain(..) {
                plane.connection_insert(&key, &connection).unwrap();
            }
            punts += count as u64;
            if count == 0 {
                plane.poll(Some(Duration::from_millis(50))).unwrap();
            } else {
                plane.reinject(&mut batch);
            }
        }
        (plane, punts)
    });
    (driver.unwrap(), stop, waker)
}

/// The initiator's entry comes with the SYN-ACK, the responder's with the first segment behind it.
fn authorized(punt: &trireme_bpf::Punt<'_>) -> Option<(FlowKey, Connection)> {
    let bytes = punt.bytes;
    let flags = bytes[33];
    let role = match (punt.hook, punt.reason, flags & SYN != 0) {
        (Hook::ToPu, PuntReason::Syn, true) if flags & ACK != 0 => Role::Initiator,
        (Hook::ToPu, PuntReason::Miss, false) => Role::Responder,
        _ => return None,
    };
    let end = |address: usize, port: usize| {
        let octets = <[u8; 4]>::try_from(&bytes[address..address + 4]).unwrap();
        SocketAddr::new(IpAddr::from(octets), u16::from_be_bytes([bytes[port], bytes[port + 1]]))
    };
    let (remote, local) = (end(12, 20), end(16, 22));
    let ack = u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]);
    let connection = Connection {
        role,
        class: Class::Identity,
        proof_seq: ack,
        confirmed: role == Role::Responder,
        ..crate::lab::entry(1)
    };
    let key =
        FlowKey { slot: punt.slot, local: (local.ip(), local.port()), remote: (remote.ip(), remote.port()) };
    Some((key, connection))
}
