//! A mark that releases a connection never outlives it: the next connection from the same port is judged.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use trireme_testkit::lab::{Family, IpTap, Pu, Server};
use trireme_tests_netns::{Judge, PATIENT, PORT, WorldSpec, abort, kind_of};
use trireme_wire::tap::Kind;
use trireme_wire::tcp::Segment;

/// How many, unless `TRIREME_CONNECTIONS` says otherwise.
const CONNECTIONS: usize = 20_000;
/// Source ports, used over and over.
const PORTS: std::ops::Range<u16> = 20_000..20_064;
/// Each has ports of its own.
const CALLERS: u16 = 4;

#[test]
fn every_connection_from_a_port_used_before_is_judged_anew() {
    let count = std::env::var("TRIREME_CONNECTIONS")
        .map_or(CONNECTIONS, |text| text.parse().expect("TRIREME_CONNECTIONS is a number"));
    let mut spec = WorldSpec::new().judged_by(Judge::Queue);
    for config in [&mut spec.a, &mut spec.b] {
        config.log_level = "info";
    }
    let world = spec.start();
    let _server = Server::start(&world.server.namespace, PORT, |mut stream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
            // The client resets it.
            drop(stream.read(&mut byte));
        }
    })
    .unwrap();
    let to = world.server.at(Family::V4, PORT);
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let counting = thread::spawn(move || {
        let mut seen = Seen::default();
        while let Some(packet) = tap
            .next(Duration::from_millis(500))
            .unwrap()
            .map_or_else(|| (!ended.load(Ordering::Relaxed)).then_some(Vec::new()), Some)
        {
            seen.note(&packet, to);
        }
        seen
    });
    let unanswered: Vec<_> = thread::scope(|scope| {
        let each = count / usize::from(CALLERS);
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let client = &world.client;
                scope.spawn(move || call(client, to, PORTS.skip(number.into()).step_by(CALLERS.into()), each))
            })
            .collect();
        callers.into_iter().filter_map(|caller| caller.join().unwrap().err()).collect()
    });
    over.store(true, Ordering::Relaxed);
    let Seen { with, without } = counting.join().unwrap();
    eprintln!("{count} connections: {with} SYNs with a message, {without} without");
    assert_eq!(without, 0, "SYNs that nobody judged, of {}\n{}", with + without, world.look());
    assert_eq!(unanswered, Vec::<String>::new(), "{}", world.look());
    assert!(with >= count / usize::from(CALLERS) * usize::from(CALLERS), "the capture lost some: {with}");
}

/// SYNs of the client on their way.
#[derive(Default)]
struct Seen {
    with: usize,
    without: usize,
}

impl Seen {
    fn note(&mut self, packet: &[u8], to: SocketAddr) {
        let Ok(segment) = Segment::parse(packet) else { return };
        if !segment.flags.is_syn() || (segment.ip.dst, segment.dst_port) != (to.ip(), to.port()) {
            return;
        }
        match kind_of(packet) {
            Some(Kind::Syn) => self.with += 1,
            _ => self.without += 1,
        }
    }
}

/// Connects from these ports one after another, says a byte, hears it back, and resets.
fn call(
    client: &Pu,
    to: SocketAddr,
    ports: impl Iterator<Item = u16> + Clone + Send,
    count: usize,
) -> Result<(), String> {
    let once = |port: u16| -> std::io::Result<()> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(client.address(Family::V4), port).into())?;
        socket.connect_timeout(&to.into(), PATIENT)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENT))?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        abort(stream);
        Ok(())
    };
    let all = || {
        ports.cycle().take(count).enumerate().try_for_each(|(number, port)| {
            once(port).map_err(|error| format!("connection {number} from port {port}: {error}"))
        })
    };
    client.namespace.enter(all).unwrap()
}
