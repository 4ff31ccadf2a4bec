//! What applications do with connections works as if nobody watched.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Family, Reach, Server, connect};
use trireme_tests_netns::{CLOSED_PORT, PATIENT, PORT, PROMPT, by_each, echo_megabytes, raise_file_limit};

#[test]
fn a_closed_port_is_refused_at_once_to_a_client_and_silent_to_a_stranger() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let start = Instant::now();
            assert_eq!(world.client_sees(family, CLOSED_PORT), Reach::Refused, "{}", world.logs());
            assert!(start.elapsed() < Duration::from_millis(500), "refused after {:?}", start.elapsed());
            assert_eq!(world.stranger_sees(family, CLOSED_PORT), Reach::Silent);
            // The port beside it is open; nobody is known behind a port that never answered.
            assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{}", world.logs());
        }
    });
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    by_each(|world| {
        let _server = Server::start(&world.server.namespace, PORT, |mut stream| {
            drop(stream.write_all(b"220 ready"));
        })
        .unwrap();
        for family in Family::BOTH {
            let mut stream = connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
            stream.set_read_timeout(Some(PROMPT)).unwrap();
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "220 ready", "{}", world.logs());
        }
    });
}

#[test]
fn a_client_that_speaks_first_is_answered() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let mut stream = connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
            stream.set_read_timeout(Some(PROMPT)).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello", "{}", world.logs());
        }
    });
}

#[test]
fn after_a_half_close_the_other_direction_goes_on() {
    by_each(|world| {
        let _server = Server::start(&world.server.namespace, PORT, |mut stream| {
            let mut request = Vec::new();
            if stream.read_to_end(&mut request).is_ok() {
                thread::sleep(Duration::from_millis(100));
                request.reverse();
                drop(stream.write_all(&request));
            }
        })
        .unwrap();
        for family in Family::BOTH {
            let mut stream = connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
            stream.set_read_timeout(Some(PROMPT)).unwrap();
            stream.write_all(b"abc").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"cba", "{}", world.logs());
        }
    });
}

#[test]
fn ten_megabytes_arrive_intact_in_both_directions_at_once() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 10);
            assert_eq!(echoed.sent, echoed.received, "{family}\n{}", world.logs());
        }
    });
}

#[test]
fn two_thousand_concurrent_connects_all_complete() {
    const CONNECTS: usize = 2000;
    const THREADS: usize = 8;
    raise_file_limit();
    by_each(|world| {
        let server = Server::echo(&world.server.namespace, PORT).unwrap();
        let to = world.server.at(Family::V4, PORT);
        let answered = AtomicUsize::new(0);
        world
            .client
            .namespace
            .enter(|| {
                thread::scope(|scope| {
                    for _ in 0..THREADS {
                        scope.spawn(|| {
                            answered.fetch_add(exchange(to, CONNECTS / THREADS), Ordering::Relaxed)
                        });
                    }
                });
            })
            .unwrap();
        assert_eq!(answered.into_inner(), CONNECTS, "{}", world.logs());
        assert_eq!(server.accepted(), CONNECTS);
    });
}

/// Opens connections without closing any, then says a byte on each; returns how many answered.
fn exchange(to: SocketAddr, count: usize) -> usize {
    let streams: Vec<TcpStream> =
        (0..count).filter_map(|_| TcpStream::connect_timeout(&to, PATIENT).ok()).collect();
    let answered = streams.iter().filter(|stream| {
        let mut stream = *stream;
        let mut byte = [7];
        stream.set_read_timeout(Some(PATIENT)).is_ok()
            && stream.write_all(&byte).is_ok()
            && stream.read_exact(&mut byte).is_ok()
    });
    answered.count()
}
