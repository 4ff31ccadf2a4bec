//! Packets and stacks that a program in the kernel easily gets wrong.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{
    Family, Fate, IpTap, Process, Pu, RawSender, Reach, Relay, Server, connect, eventually, probe,
};
use trireme_tests_netns::{
    PATIENT, PORT, PROMPT, World, WorldSpec, by_each, by_each_disturbed, echo_megabytes, is_alive,
    is_of_port, kind_of, payload_of, python,
};
use trireme_wire::build::{self, TcpSpec};
use trireme_wire::tap::Kind;
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::tuple::Endpoint;

/// Sends a frame with a VLAN tag around an ordinary SYN: `device destination-mac packet`, the last two in hex.
const VLAN_FRAME: &str = "
import socket, sys
device, destination, packet = sys.argv[1:]
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
out.bind((device, 0))
source = out.getsockname()[4]
kind = b'\\x08\\x00' if packet[0] == '4' else b'\\x86\\xdd'
out.send(bytes.fromhex(destination) + source + b'\\x81\\x00\\x00\\x05' + kind + bytes.fromhex(packet))
";

/// A SYN of the client to the server, from a port of no socket.
fn syn(world: &World, port: u16, options: &[u8]) -> Vec<u8> {
    let from = Endpoint::new(world.client.v4.into(), port);
    let to = Endpoint::new(world.server.v4.into(), PORT);
    build::tcp(&TcpSpec { options, ..TcpSpec::new(from, to, 7, 0, Flags::SYN) }).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_frame_with_a_vlan_tag_is_dropped_and_counted() {
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let before = world.a.kernel_count("vlan").unwrap();
    let taken = world.judged(|| {
        let packet = hex(&syn(&world, 46_000, &[2, 4, 5, 180]));
        python(&world.client.namespace, VLAN_FRAME, &["eth0", "ffffffffffff", &packet]).unwrap();
    });
    let counted = || Ok(world.a.kernel_count("vlan")? == before + 1);
    eventually("the count of the frame", PATIENT, counted, || world.look()).unwrap();
    assert_eq!(taken.1.syns, [0, 0]);
}

#[test]
fn fragments_of_a_syn_reach_nobody() {
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let sender = RawSender::open(&world.client.namespace).unwrap();
    let whole = syn(&world, 46_001, &[2, 4, 5, 180]);
    let (header, data) = whole.split_at(20);
    let ((), taken) = world.judged(|| {
        // Flags and ports first, then the rest; and the rest of another one first.
        for (offset, more, part) in [(0, true, &data[..16]), (2, false, &data[16..]), (1, false, &data[8..])]
        {
            sender.send(&fragment(header, offset, more, part)).unwrap();
        }
        thread::sleep(Duration::from_millis(200));
    });
    assert_eq!(taken.syns, [0, 0], "{taken}");
    let from_client = |packet: &[u8]| packet[0] >> 4 == 4 && packet[12..16] == world.client.v4.octets();
    assert_eq!(tap.find(Duration::from_millis(500), from_client).unwrap(), None, "{}", world.look());
}

/// A fragment of an IPv4 packet; `offset` counts units of eight bytes.
fn fragment(header: &[u8], offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let mut packet = [header, data].concat();
    let len = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[4..6].copy_from_slice(&77_u16.to_be_bytes());
    packet[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
    packet
}

/// Connects with two no-operation options in the IP header, says a byte and prints the answer: `address port`.
const WITH_IP_OPTIONS: &str = "
import socket, sys
s = socket.socket()
s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b'\\x01\\x01\\x01\\x01')
s.settimeout(3)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.sendall(b'x')
    print(s.recv(1).decode())
except OSError as error:
    print(error)
";

#[test]
fn a_syn_with_ip_options_is_nothing_for_the_programs_and_its_bytes_are_not_mistaken() {
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let to = [world.server.v4.to_string(), PORT.to_string()];
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let (said, taken) =
        world.judged(|| python(&world.client.namespace, WITH_IP_OPTIONS, &[&to[0], &to[1]]).unwrap());
    assert_eq!(taken.syns[0], 0, "{taken}");
    // Whether the agent lets it through or not: nothing leaves without identity.
    let bare = |packet: &[u8]| {
        is_of_port(packet, PORT)
            && Segment::parse(packet).unwrap().flags.is_syn()
            && kind_of(packet) != Some(Kind::Syn)
    };
    assert_eq!(tap.find(Duration::from_millis(300), bare).unwrap(), None, "{}", world.look());
    assert!(said.trim() == "x" || said.contains("timed out"), "{said}");
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered);
}

#[test]
fn a_syn_with_an_option_of_multipath_tcp_goes_to_the_agent_and_carries_an_identity() {
    carries_an_identity_without(&[30, 12, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_syn_with_a_fast_open_cookie_goes_to_the_agent_and_leaves_without_it() {
    let syn = carries_an_identity_without(&[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]);
    let segment = Segment::parse(&syn).unwrap();
    assert!(!segment.options(&syn).has_fast_open());
}

/// Sends a SYN with an option that the programs do not know; returns what passed the router.
fn carries_an_identity_without(option: &[u8]) -> Vec<u8> {
    let world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let sender = RawSender::open(&world.client.namespace).unwrap();
    let packet = syn(&world, 46_002, &[&[2, 4, 5, 180], option].concat());
    let (passed, taken) = world.judged(|| {
        sender.send(&packet).unwrap();
        tap.find(PATIENT, |packet| {
            Segment::parse(packet).is_ok_and(|segment| segment.src_port == 46_002 && segment.flags.is_syn())
        })
        .unwrap()
        .unwrap()
    });
    assert_eq!(taken.syns[0], 0, "{taken}");
    assert_eq!(kind_of(&passed), Some(Kind::Syn), "{}", world.look());
    passed
}

#[test]
fn every_proof_that_comes_twice_is_taken_off_twice() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = Relay::start(&world.lab, |packet| match kind_of(packet) {
            Some(Kind::Ack) => Fate::Replace(vec![packet.to_vec(), packet.to_vec()]),
            _ => Fate::Pass,
        })
        .unwrap();
        for family in Family::BOTH {
            let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 1);
            assert_eq!(echoed.sent, echoed.received, "{family}\n{}", world.look());
        }
    });
}

#[test]
fn every_handshake_segment_that_comes_twice_is_harmless() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = Relay::start(&world.lab, |packet| match kind_of(packet) {
            Some(_) => Fate::Replace(vec![packet.to_vec(), packet.to_vec()]),
            None => Fate::Pass,
        })
        .unwrap();
        for family in Family::BOTH {
            for _ in 0..5 {
                let reach = world.client_sees(family, PORT);
                assert_eq!(reach, Reach::Answered, "{family}\n{}", world.look());
            }
        }
    });
}

#[test]
fn first_data_of_many_segments_at_once_arrives_intact() {
    const LEN: usize = 200_000;
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            for _ in 0..5 {
                let to = world.server.at(family, PORT);
                let mut stream = connect(&world.client.namespace, to, PROMPT).unwrap();
                stream.set_read_timeout(Some(PATIENT)).unwrap();
                let sent: Vec<u8> = (0..=250).cycle().take(LEN).collect();
                let mut writer = stream.try_clone().unwrap();
                let copy = sent.clone();
                let writing = thread::spawn(move || writer.write_all(&copy).unwrap());
                let mut received = vec![0; LEN];
                stream.read_exact(&mut received).unwrap();
                writing.join().unwrap();
                assert!(sent == received, "{family}\n{}", world.look());
            }
        }
    });
}

#[test]
fn forced_syn_cookies_change_nothing_for_known_peers_without_agents() {
    let mut world = World::acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    world.server.namespace.sysctl("net/ipv4/tcp_syncookies", "2").unwrap();
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    for family in Family::BOTH {
        for _ in 0..5 {
            assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}");
        }
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
    }
}

/// Listens with hardly any queue, is busy for a while, then greets everybody: `port seconds`.
const SLOW_TO_ACCEPT: &str = "
import socket, sys, time
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('::', int(sys.argv[1])))
listener.listen(1)
time.sleep(float(sys.argv[2]))
while True:
    stream, _ = listener.accept()
    stream.sendall(b'hello')
    stream.close()
";

/// Ignores the handshake's last segment and waits for data, then echoes: `port`.
const DEFERS_ACCEPT: &str = "
import socket, sys
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
listener.bind(('::', int(sys.argv[1])))
listener.listen(64)
while True:
    stream, _ = listener.accept()
    stream.sendall(stream.recv(100))
    stream.close()
";

fn serve(world: &World, pu: &Pu, program: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new("python3");
    command.args(["-c", program, &PORT.to_string()]).args(arguments);
    let log = world.lab.dir().join("server.log");
    let process = Process::start(&pu.namespace, "server", &mut command, &log).unwrap();
    let listens =
        || Ok(pu.namespace.run("ss", &["-Htln", "sport", "=", &format!(":{PORT}")])?.contains("LISTEN"));
    eventually("the server", PATIENT, listens, || process.log()).unwrap();
    process
}

#[test]
fn a_server_that_speaks_first_and_whose_backlog_overflowed_is_heard_by_all() {
    const CLIENTS: usize = 6;
    by_each_disturbed(|world| {
        // A cookie leaves nothing that could be sent again.
        world.server.namespace.sysctl("net/ipv4/tcp_syncookies", "0").unwrap();
        let _server = serve(world, &world.server, SLOW_TO_ACCEPT, &["1.5"]);
        let heard: Vec<String> = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let family = Family::BOTH[number % 2];
                    let world = &*world;
                    scope.spawn(move || {
                        let to = world.server.at(family, PORT);
                        let mut stream =
                            connect(&world.client.namespace, to, Duration::from_secs(15)).unwrap();
                        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
                        let mut greeting = String::new();
                        stream
                            .read_to_string(&mut greeting)
                            .map(|_| greeting)
                            .unwrap_or_else(|e| e.to_string())
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(heard, vec!["hello"; CLIENTS], "{}", world.look());
    });
}

#[test]
fn a_server_that_defers_accepting_gets_the_data_of_a_client_that_thinks_first() {
    by_each_disturbed(|world| {
        let _server = serve(world, &world.server, DEFERS_ACCEPT, &[]);
        for family in Family::BOTH {
            for pause in [0, 1500] {
                let to = world.server.at(family, PORT);
                let mut stream = connect(&world.client.namespace, to, PROMPT).unwrap();
                thread::sleep(Duration::from_millis(pause));
                let start = Instant::now();
                stream.set_read_timeout(Some(PATIENT)).unwrap();
                stream.write_all(b"late").unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap_or_else(|error| {
                    assert_eq!(error.to_string(), "", "{family}, {pause} ms\n{}", world.look());
                });
                assert_eq!(&answer, b"late");
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            }
        }
    });
}

/// Connects with an initial sequence number right below the wrap, sends much and prints how much comes back:
/// `address port number bytes`.
const WRAPS: &str = "
import socket, sys, threading
address, port, number, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, SEND_QUEUE = 19, 20, 21, 2
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET)
s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
s.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, number.to_bytes(4, sys.byteorder))
s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
s.settimeout(5)
s.connect((address, port))
data = bytes(range(256)) * (size // 256)
threading.Thread(target=s.sendall, args=(data,)).start()
got = b''
while len(got) < len(data):
    part = s.recv(65536)
    if not part:
        break
    got += part
print('whole' if got == data else f'{len(got)} of {len(data)}')
";

#[test]
fn sequence_numbers_may_wrap_in_the_handshake_and_right_after_it() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let mut tap = IpTap::open(world.lab.router()).unwrap();
        for family in Family::BOTH {
            for number in [u32::MAX, u32::MAX - 1, u32::MAX - 5000, 0x7fff_ffff] {
                let to = world.server.at(family, PORT);
                let said = python(
                    &world.client.namespace,
                    WRAPS,
                    &[&to.ip().to_string(), &PORT.to_string(), &number.to_string(), "65536"],
                )
                .unwrap();
                assert_eq!(said.trim(), "whole", "{family}, from {number}\n{}", world.look());
                let syn = tap
                    .find(PATIENT, |packet| {
                        is_of_port(packet, PORT) && Segment::parse(packet).unwrap().flags.is_syn()
                    })
                    .unwrap()
                    .unwrap();
                assert_eq!(Segment::parse(&syn).unwrap().seq, number);
            }
        }
    });
}

#[test]
fn a_neighbour_on_the_same_bridge_is_not_the_node() {
    let mut spec = WorldSpec::new();
    let neighbour = spec.lab.add_pu(spec.server.side, "neighbour").unwrap();
    let world = spec.start();
    world.introduce();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        let reach = probe(&neighbour.namespace, world.server.at(family, PORT), PROMPT).unwrap();
        assert_eq!(reach, Reach::Silent, "{family}\n{}", world.look());
    }
    // In the node's own name, too.
    let sender = RawSender::open(&neighbour.namespace).unwrap();
    let from = Endpoint::new(Ipv4Addr::new(10, 10, 2, 1).into(), 46_010);
    let to = Endpoint::new(world.server.v4.into(), PORT);
    let mut tap = IpTap::open(&world.lab.node(world.server.side).namespace).unwrap();
    sender.send(&build::tcp(&TcpSpec::new(from, to, 7, 0, Flags::SYN)).unwrap()).unwrap();
    let answer = tap
        .find(Duration::from_millis(700), |packet| {
            Segment::parse(packet).is_ok_and(|segment| segment.dst_port == 46_010)
        })
        .unwrap();
    assert_eq!(answer.as_deref().map(payload_of), None, "{}", world.look());
    assert_eq!(server.accepted(), 0);
    let live = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    assert!(is_alive(&live));
}
