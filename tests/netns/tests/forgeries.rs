//! Forged segments against live connections.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use trireme_testkit::lab::{Family, Fate, IpTap, RawSender, Reach, Relay, Server, connect};
use trireme_tests_netns::{PATIENT, PORT, PROMPT, World, by_each, kind_of};
use trireme_wire::build::{self, TcpSpec};
use trireme_wire::tap::Kind;
use trireme_wire::tcp::{Flags, Segment};

/// A live connection, and the last segment of each direction as it passed the router.
struct Live {
    stream: TcpStream,
    /// The last from the client, the last from the server.
    last: [Segment; 2],
}

fn exchange(mut stream: &TcpStream, text: &[u8]) -> bool {
    let mut answer = vec![0; text.len()];
    stream.write_all(text).is_ok() && stream.read_exact(&mut answer).is_ok() && answer == text
}

fn open(world: &World, family: Family) -> Live {
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let stream = connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
    stream.set_read_timeout(Some(PATIENT)).unwrap();
    assert!(exchange(&stream, b"hello"), "{}", world.logs());
    let mut last = [None, None];
    while let Some(packet) = tap.next(Duration::from_millis(100)).unwrap() {
        let Ok(segment) = Segment::parse(&packet) else { continue };
        let [from_client, from_server] = &mut last;
        let slot = if segment.dst_port == PORT { from_client } else { from_server };
        *slot = Some(segment);
    }
    Live { stream, last: last.map(Option::unwrap) }
}

/// Sends forged copies of the last segment of each direction, with these flags and at guessed sequence numbers.
fn forge(world: &World, live: &Live, flags: Flags, payload: &[u8]) {
    let sender = RawSender::open(world.lab.router()).unwrap();
    for segment in &live.last {
        let tuple = segment.tuple();
        // Outside of the window, and inside of it but not exactly where the stack would believe it.
        for offset in [0x4000_0000_u32, 1000] {
            let seq = segment.seq.wrapping_add(offset);
            let spec = TcpSpec {
                window: 100,
                payload,
                ..TcpSpec::new(tuple.src, tuple.dst, seq, segment.ack, flags)
            };
            sender.send(&build::tcp(&spec).unwrap()).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_spoofed_reset_does_not_cut_a_live_connection() {
    survives(Flags::RST, &[]);
    survives(Flags::RST.union(Flags::ACK), &[]);
}

#[test]
fn a_spoofed_fin_does_not_cut_a_live_connection() {
    survives(Flags::FIN.union(Flags::ACK), &[]);
}

fn survives(flags: Flags, payload: &[u8]) {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let live = open(world, family);
            forge(world, &live, flags, payload);
            assert!(exchange(&live.stream, b"still here"), "{family}\n{}", world.logs());
            forge(world, &live, flags, payload);
            assert!(exchange(&live.stream, b"and again"), "{family}\n{}", world.logs());
        }
    });
}

#[test]
fn a_spoofed_refusal_does_not_cut_a_live_connection_nor_one_in_the_making() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        // The true refusal of a stranger, captured on its way.
        let mut tap = IpTap::open(world.lab.router()).unwrap();
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
        let refusal = tap.find(PATIENT, |packet| kind_of(packet) == Some(Kind::Refusal)).unwrap().unwrap();
        let payload = trireme_tests_netns::payload_of(&refusal);
        let live = open(world, Family::V4);
        forge(world, &live, Flags::ACK, &payload);
        assert!(exchange(&live.stream, b"still here"), "{}", world.logs());

        // Answers every SYN of the client before the server does.
        let sender = RawSender::open(world.lab.router()).unwrap();
        let server = world.server.clone();
        let _relay = Relay::start(&world.lab, move |packet| {
            if kind_of(packet) == Some(Kind::Syn) {
                let segment = Segment::parse(packet).unwrap();
                let tuple = segment.tuple().reversed();
                assert_eq!(tuple.src.addr, server.address(Family::V4));
                let ack = segment.seq.wrapping_add(1);
                let spec =
                    TcpSpec { payload: &payload, ..TcpSpec::new(tuple.src, tuple.dst, 0, ack, Flags::ACK) };
                sender.send(&build::tcp(&spec).unwrap()).unwrap();
            }
            Fate::Pass
        })
        .unwrap();
        let second = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
        second.set_read_timeout(Some(PATIENT)).unwrap();
        assert!(exchange(&second, b"made all the same"), "{}", world.logs());
    });
}

#[test]
fn stray_segments_without_a_handshake_never_reach_the_server() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let live = open(world, Family::V4);
        let [from_client, _] = &live.last;
        let sender = RawSender::open(world.lab.router()).unwrap();
        let mut tap = IpTap::open(world.lab.router()).unwrap();
        for (port, flags) in [
            (50_001, Flags::ACK),
            (50_002, Flags::FIN.union(Flags::ACK)),
            (50_003, Flags::ACK.union(Flags::PSH)),
        ] {
            let mut source = from_client.tuple().src;
            source.port = port;
            let spec =
                TcpSpec { payload: b"scan", ..TcpSpec::new(source, from_client.tuple().dst, 1, 1, flags) };
            sender.send(&build::tcp(&spec).unwrap()).unwrap();
        }
        let answer = tap
            .find(Duration::from_millis(500), |packet| {
                Segment::parse(packet).is_ok_and(|segment| (50_001..=50_003).contains(&segment.dst_port))
            })
            .unwrap();
        assert_eq!(answer, None, "a reset tells a scanner that the port is there");
    });
}
