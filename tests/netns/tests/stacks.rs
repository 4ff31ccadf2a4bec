//! What TCP stacks do that a simple handshake does not show.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, sockopt};
use socket2::SockRef;
use trireme_flow::Reason;
use trireme_testkit::lab::{Family, Fate, IpTap, LabError, Pu, Reach, Relay, Server, connect, uninterrupted};
use trireme_tests_netns::{PATIENT, PORT, PROMPT, World, by_each_disturbed, is_of_port, kind_of, payload_of};
use trireme_wire::tap::Kind;
use trireme_wire::tcp::{Flags, Segment};

/// Both ends send data in the SYN without a cookie, and accept it.
const FAST_OPEN: &str = "1543";

#[test]
fn a_fast_open_client_is_served_but_its_syn_carries_no_data_and_no_cookie() {
    let world = World::acquainted();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    for pu in [&world.client, &world.stranger, &world.server] {
        pu.namespace.sysctl("net/ipv4/tcp_fastopen", FAST_OPEN).unwrap();
    }
    for family in Family::BOTH {
        let to = world.server.at(family, PORT);
        let mut tap = IpTap::open(world.lab.router()).unwrap();
        // The option is nothing for the programs: only the agent takes it off.
        let (answer, taken) = world.judged(|| fast_open(&world.client, to).unwrap());
        assert_eq!(taken.syns[0], 0, "{taken}");
        assert_eq!(answer, b"early", "{family}\n{}", world.logs());
        let syn = tap
            .find(PATIENT, |packet| {
                is_of_port(packet, PORT) && Segment::parse(packet).unwrap().flags.is_syn()
            })
            .unwrap()
            .unwrap();
        let segment = Segment::parse(&syn).unwrap();
        assert!(!segment.options(&syn).has_fast_open());
        assert_eq!(kind_of(&syn), Some(Kind::Syn), "the payload is the enforcer's alone");
        let before = server.accepted();
        assert!(fast_open(&world.stranger, to).is_err());
        assert_eq!(server.accepted(), before);
    }
}

/// Connects with data in the SYN and reads as much back.
fn fast_open(pu: &Pu, to: SocketAddr) -> Result<Vec<u8>, String> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open = || {
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENT))?;
        // MSG_FASTOPEN
        sendto(&socket, b"early", SendFlags::from_bits_retain(0x2000_0000), &to)?;
        Ok(socket)
    };
    let socket = pu.namespace.enter(open).unwrap().map_err(|errno: rustix::io::Errno| errno.to_string())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    let mut answer = vec![0; 5];
    stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer)
}

#[test]
fn a_client_that_connects_and_closes_at_once_is_accepted_though_its_proof_is_lost() {
    by_each_disturbed(|world| {
        let (sender, closed) = mpsc::channel();
        let _server = Server::start(&world.server.namespace, PORT, move |mut stream| {
            sender.send(uninterrupted(|| stream.read(&mut [0])).ok()).unwrap();
        })
        .unwrap();
        let (_relay, proofs) = lose_the_first_proof(world);
        let start = Instant::now();
        drop(connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap());
        let seen = closed.recv_timeout(PATIENT);
        assert_eq!(seen, Ok(Some(0)), "the server never saw the close\n{}", world.logs());
        assert!(proofs.load(Ordering::Relaxed) >= 2, "the proof was never repeated");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    });
}

#[test]
fn a_lost_proof_in_front_of_data_costs_less_than_a_second() {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let (_relay, proofs) = lose_the_first_proof(world);
        let start = Instant::now();
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        assert!(proofs.load(Ordering::Relaxed) >= 2);
    });
}

#[test]
fn a_client_that_delays_its_first_ack_gets_its_proof_sent_in_front_of_the_data() {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let mut tap = IpTap::open(world.lab.router()).unwrap();
            let to = world.server.at(family, PORT);
            let start = Instant::now();
            let mut stream = delayed_ack_connect(&world.client, to).unwrap();
            stream.write_all(b"first").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"first", "{}", world.logs());
            assert!(start.elapsed() < Duration::from_millis(150), "a stall of {:?}", start.elapsed());
            // The last segments of the connection before may pass by as well.
            let port = stream.local_addr().unwrap().port();
            let mut from_client = |what: &str| {
                tap.find(PATIENT, |packet| {
                    Segment::parse(packet).is_ok_and(|segment| {
                        (segment.src_port, segment.dst_port) == (port, PORT) && !segment.flags.is_syn()
                    })
                })
                .unwrap()
                .unwrap_or_else(|| panic!("{what} never passed"))
            };
            let proof = from_client("the proof");
            let segment = Segment::parse(&proof).unwrap();
            assert_eq!(kind_of(&proof), Some(Kind::Ack), "{segment:?}\n{}", world.logs());
            assert_eq!(segment.flags.without(Flags::PSH), Flags::ACK);
            assert!(
                segment.options(&proof).all(|option| option.kind == 8 || option.kind == 1),
                "{segment:?}"
            );
            assert_eq!(payload_of(&from_client("the data")), b"first");
        }
    });
}

/// Connects in the mode in which Linux sends the handshake's last ACK together with the first data.
fn delayed_ack_connect(pu: &Pu, to: SocketAddr) -> Result<TcpStream, LabError> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open = || {
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        sockopt::set_tcp_quickack(&socket, false)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENT))?;
        rustix::net::connect(&socket, &to)?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    let socket = pu
        .namespace
        .enter(open)?
        .map_err(|errno| LabError::Io { what: format!("connecting to {to}"), source: errno.into() })?;
    Ok(TcpStream::from(socket))
}

#[test]
fn a_stale_conntrack_entry_on_the_node_is_removed_and_the_connection_completes() {
    by_each_disturbed(|world| {
        let node = &world.lab.node(world.client.side).namespace;
        node.nft("table ip lab_nat { chain post { type nat hook postrouting priority srcnat; oifname \"up0\" masquerade; }; }\n")
            .unwrap();
        // Echoes bytes until it is told to abort.
        let _server = Server::start(&world.server.namespace, PORT, |mut stream| {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && &byte != b"!" && stream.write_all(&byte).is_ok() {}
            drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
        })
        .unwrap();
        let to = world.server.at(Family::V4, PORT);
        let port = 45_001;
        let mut first = connect_from(&world.client, port, to, PATIENT).unwrap();
        assert!(is_alive(&first), "{}", world.logs());
        // Neither end's reset reaches the node's conntrack: both sockets are gone, the entry stays established.
        node.nft("table ip lab_mute { chain pre { type filter hook prerouting priority raw; tcp flags & (fin|rst) != 0 drop; }; }\n")
            .unwrap();
        first.write_all(b"!").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
        drop(first);
        std::thread::sleep(Duration::from_millis(50));
        node.nft("delete table ip lab_mute\n").unwrap();
        let sport = port.to_string();
        let entries = || node.run("conntrack", &["-L", "-p", "tcp", "--sport", &sport]).unwrap();
        assert!(entries().contains("ESTABLISHED"), "{}", entries());
        let sockets = world.server.namespace.run("ss", &["-tn", "sport", "=", &format!(":{PORT}")]).unwrap();
        assert!(!sockets.contains("ESTAB"), "{sockets}");
        let start = Instant::now();
        let second = connect_from(&world.client, port, to, Duration::from_secs(15)).unwrap();
        assert!(is_alive(&second), "{}\n{}", entries(), world.logs());
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        let status = world.a.status().unwrap();
        let removed = status
            .pointer("/datapath/gauges/stale conntrack entries deleted")
            .and_then(serde_json::Value::as_u64);
        assert!(removed.is_some_and(|removed| removed > 0), "{}", status["datapath"]["gauges"]);
    });
}

fn connect_from(pu: &Pu, port: u16, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let open = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(pu.address(Family::V4), port).into())?;
        socket.connect_timeout(&to.into(), limit)?;
        Ok(TcpStream::from(socket))
    };
    pu.namespace.enter(open).unwrap()
}

fn is_alive(mut stream: &TcpStream) -> bool {
    let mut byte = [9];
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok()
}

#[test]
fn a_refusal_is_known_to_the_initiators_agent_with_its_reason() {
    let world = World::start();
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
    let ours = world.b.await_refusal(Reason::PolicyIngress).unwrap();
    assert!(ours.explanation.is_some(), "{ours:?}");
    let theirs = world.a.await_refusal(Reason::RefusedByPeer).unwrap();
    assert_eq!(theirs.destination.address, world.server.address(Family::V4));
}

/// Loses the first proof on its way; counts all of them.
fn lose_the_first_proof(world: &World) -> (Relay, Arc<AtomicUsize>) {
    let proofs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&proofs);
    let relay = Relay::start(&world.lab, move |packet| {
        if kind_of(packet) == Some(Kind::Ack) && counter.fetch_add(1, Ordering::Relaxed) == 0 {
            return Fate::Drop;
        }
        Fate::Pass
    })
    .unwrap();
    (relay, proofs)
}
