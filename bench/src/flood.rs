//! Packets nobody asked for: SYNs of unknown senders from the router, connection attempts of a refused neighbour.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, TagSet};
use trireme_testkit::lab::{Family, RawSender};
use trireme_token::credential::NodeCredential;
use trireme_token::{AgreementPublic, Encoding, Signer, SigningKey, TokenRequest};
use trireme_wire::build::{self, TcpSpec};
use trireme_wire::ip;
use trireme_wire::tap::{self, Body};
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

use crate::bed::Bed;
use crate::{load, process};

/// The port that is flooded: somebody listens, and no load goes there.
pub(crate) const PORT: u16 = 9090;
/// Different tokens: each is refused only after its signature has been checked.
const TOKENS: u32 = 2048;
/// Different packets: senders and ports.
const PACKETS: u32 = 16_384;
/// Bursts in a second.
const TICKS: u32 = 1000;
/// How far the sender may lag behind.
const BACKLOG: Duration = Duration::from_millis(50);

/// SYNs as somebody sends them who has seen the certificate of a node, but has not its key.
pub(crate) fn unknown_syns(bed: &Bed) -> anyhow::Result<Vec<Vec<u8>>> {
    let keys = bed.keys.as_ref().context("the bed has no keys")?;
    let key_pem = std::fs::read_to_string(&keys.key).context("reading the node's key")?;
    let certificate_pem = std::fs::read_to_string(&keys.certificate).context("reading the certificate")?;
    let node: NodeId = "node-a".parse().context("a node's name")?;
    let credential = NodeCredential::from_pem(&certificate_pem).context("reading the certificate")?;
    let signer = Signer::pki(node, SigningKey::from_pem(&key_pem)?, &credential)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut payloads = Vec::new();
    for number in 0..TOKENS {
        let request = TokenRequest {
            subject: format!("flood-{number}").parse().context("a unit's name")?,
            tags: TagSet::parse(["role=client"]).context("a tag")?,
            partial: false,
            agreement: AgreementPublic([7; 32]),
            issued_at: WallTime(now.as_secs()),
            lifetime_secs: 3600,
        };
        let token = signer.issue(&request, Encoding::Cwt)?;
        let mut wrong = token.bytes.to_vec();
        // The last byte of the signature.
        if let Some(last) = wrong.last_mut() {
            *last ^= 1;
        }
        let header = tap::Header {
            flags: tap::Flags::TOKEN,
            token_id: token.id.0,
            nonce: token.id.0,
            mac: [0; 16],
            body: Body::Syn {
                family: ip::Family::V4,
                protocol: trireme_identity::Protocol::TCP,
                token_len: u16::try_from(wrong.len())?,
                credential_len: u16::try_from(token.credential.len())?,
            },
        };
        payloads.push(header.encode(&wrong, &token.credential)?);
    }
    let target = Endpoint::from(bed.server.at(Family::V4, PORT));
    let packet = |(number, payload): (u32, &Vec<u8>)| {
        let [_, _, high, low] = number.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(10, 99, high, low));
        let port = 1024 + u16::from(low);
        let spec = TcpSpec::new(Endpoint::new(address, port), target, number, 0, Flags::SYN);
        build::tcp(&TcpSpec { window: 64_240, payload, ..spec }).context("building a SYN")
    };
    (0..PACKETS).zip(payloads.iter().cycle()).map(packet).collect()
}

/// Runs `load` while the router sends these packets at a rate; returns its result and how many were sent per second.
pub(crate) fn during_syns<T: Send>(
    bed: &Bed,
    packets: &[Vec<u8>],
    per_second: u32,
    load: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(T, f64)> {
    let target = bed.server.at(Family::V4, PORT);
    let listener = bed.server.namespace.enter(|| TcpListener::bind(target))?.context("listening")?;
    // Answers to senders that do not exist end in the router.
    bed.lab.router().ip("route replace blackhole 10.99.0.0/16\n")?;
    let sender = RawSender::open(bed.lab.router())?;
    let mut supply = packets.iter().cycle();
    let result = meanwhile(
        per_second,
        || {
            if let Some(packet) = supply.next() {
                // A full queue loses packets, as it should.
                drop(sender.send(packet));
            }
        },
        load,
    );
    drop(listener);
    result
}

/// Runs `load` while the denied workload tries to connect at a rate, each time with a new socket.
pub(crate) fn during_refusals<T: Send>(
    bed: &Bed,
    per_second: u32,
    load: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(T, f64)> {
    let target = bed.server.at(Family::V4, PORT);
    let listener = bed.server.namespace.enter(|| TcpListener::bind(target))?.context("listening")?;
    let namespace = bed.others()?.denied.namespace.clone();
    // Sockets belong to the namespace of the thread that opens them.
    let result = namespace.enter(move || {
        let attempt = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP));
            if let Ok(socket) = socket {
                // In progress, refused, or out of ports: the SYN has left or could not.
                drop(socket.connect(&target.into()));
            }
        };
        meanwhile(per_second, attempt, load)
    })?;
    drop(listener);
    result
}

/// Calls `act` at most so often on this thread while `load` runs on another.
fn meanwhile<T: Send>(
    per_second: u32,
    mut act: impl FnMut(),
    load: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<(T, f64)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let result = load();
            stop.store(true, Ordering::Relaxed);
            result
        });
        process::prefer();
        let began = Instant::now();
        let mut next = began;
        let mut done = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..per_second.div_ceil(TICKS) {
                act();
                done += 1;
            }
            next += Duration::from_secs(1) / TICKS;
            let now = Instant::now();
            // What could not be done in time is made up for within bounds.
            next = next.max(now.checked_sub(BACKLOG).unwrap_or(now));
            std::thread::sleep(next.saturating_duration_since(now));
        }
        let rate = load::per_second(done, began.elapsed());
        let result = loading.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the load panicked")))?;
        Ok((result, rate))
    })
}
