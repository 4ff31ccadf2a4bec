//! What a client writes at once arrives at once: no first data waits for a retransmission behind its proof.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Family, Lab, Pu, Server, Side};
use trireme_tests_netns::{PATIENT, PORT, by_each};

const CONNECTIONS: usize = 300;

/// Less than the first retransmission of data takes.
const STALL: Duration = Duration::from_millis(150);

/// How long a connection takes from its first SYN to the answer to its first data, the shortest first.
fn times(client: &Pu, server: &Pu, family: Family) -> Vec<Duration> {
    let to = server.at(family, PORT);
    let measure = || {
        let once = |_| {
            let start = Instant::now();
            let mut stream = TcpStream::connect_timeout(&to, PATIENT).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENT)).unwrap();
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
            start.elapsed()
        };
        (0..CONNECTIONS).map(once).collect()
    };
    let mut times: Vec<Duration> = client.namespace.enter(measure).unwrap();
    times.sort();
    times
}

/// The time that one of a hundred exceeds, and the largest.
fn tail(times: &[Duration]) -> (Duration, Duration) {
    let p99 = times.get(times.len() * 99 / 100 - 1).copied().unwrap();
    (p99, times.last().copied().unwrap())
}

#[test]
fn first_data_right_behind_the_proof_does_not_stall() {
    let yardstick = {
        let mut lab = Lab::new().unwrap();
        let client = lab.add_pu(Side::A, "client").unwrap();
        let server = lab.add_pu(Side::B, "server").unwrap();
        let _echo = Server::echo(&server.namespace, PORT).unwrap();
        tail(&times(&client, &server, Family::V4))
    };
    by_each(|world| {
        let _echo = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let (p99, largest) = tail(&times(&world.client, &world.server, family));
            eprintln!("{family}: p99 {p99:?}, largest {largest:?}; without agents {yardstick:?}");
            // A machine that takes so long by itself is not the agents' fault.
            let limit = STALL.max(yardstick.0 * 4);
            assert!(p99 < limit, "{family}: {p99:?} of {limit:?}, largest {largest:?}\n{}", world.look());
        }
    });
}
