//! Against the queues of the running kernel; needs root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use trireme_netns::Namespace;
use trireme_nfqueue::{Action, Hook, Queue, QueueConfig, QueueError, Received, Verdicts, statistics};

const CONFIG: QueueConfig = QueueConfig { number: 7, length: 1024, receive_buffer: 1 << 20 };
const PATIENT: Duration = Duration::from_secs(10);

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs in a namespace of its own, where what goes to the port is queued.
fn queued(port: u16, what: impl FnOnce() + Send) {
    Namespace::anonymous()
        .unwrap()
        .run(|| {
            run("ip link set lo up");
            for tables in ["iptables", "ip6tables"] {
                run(&format!("{tables} -A OUTPUT -p udp --dport {port} -j NFQUEUE --queue-num 7"));
            }
            what();
        })
        .unwrap();
}

fn pair(family: SocketAddr) -> (UdpSocket, UdpSocket, SocketAddr) {
    let receiver = UdpSocket::bind(family).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let to = receiver.local_addr().unwrap();
    (UdpSocket::bind((to.ip(), 0)).unwrap(), receiver, to)
}

/// Calls until that many packets were handed out.
fn take(queue: &mut Queue, count: usize, mut each: impl FnMut(trireme_nfqueue::Packet<'_>)) -> Received {
    let (mut all, end) = (Received::default(), Instant::now() + PATIENT);
    while all.packets < count {
        assert!(Instant::now() < end, "{all:?}");
        let received = queue.receive(&mut each).unwrap();
        all.packets += received.packets;
        all.refused += received.refused;
        all.unknown += received.unknown;
        all.overrun |= received.overrun;
        std::thread::yield_now();
    }
    all
}

/// A UDP packet without options, its checksum computed anew (RFC 768, RFC 8200 section 8.1).
fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let (addresses, udp) = if packet.first().unwrap() >> 4 == 4 { (12..20, 20) } else { (8..40, 40) };
    packet.get_mut(udp + 6..udp + 8).unwrap().fill(0);
    let length = packet.len() - udp;
    let words = packet.get(addresses).unwrap().chunks(2).chain(packet.get(udp..).unwrap().chunks(2));
    let sum = words.fold(length + 17, |sum, word| {
        sum + usize::from(u16::from_be_bytes([*word.first().unwrap(), word.get(1).copied().unwrap_or(0)]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet.get_mut(udp + 6..udp + 8).unwrap().copy_from_slice(&checksum.to_be_bytes());
    packet
}

#[test]
fn packets_are_dropped_passed_and_changed_as_the_verdicts_say() {
    const PORT: u16 = 7000;
    queued(PORT, || {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), (Ipv6Addr::LOCALHOST, PORT).into()] {
            let mut queue = Queue::open(CONFIG).unwrap();
            let (sender, receiver, to) = pair(address);
            for text in [b"drop", b"pass", b"edit"] {
                sender.send_to(text, to).unwrap();
            }
            let mut verdicts = Verdicts::default();
            take(&mut queue, 3, |packet| {
                assert_eq!((packet.hook, packet.queue, packet.truncated_from), (Hook::LocalOut, 7, None));
                let (headers, text) = packet.bytes.split_at(packet.bytes.len() - 4);
                let edited = with_checksum([headers, b"EDIT"].concat());
                let (action, bytes) = match text {
                    b"drop" => (Action::Drop, None),
                    b"pass" => (Action::Accept, None),
                    b"edit" => (Action::Accept, Some(&edited[..])),
                    other => panic!("{other:?}"),
                };
                assert!(verdicts.push(7, packet.id, action, None, bytes));
            });
            queue.send(&mut verdicts).unwrap();
            assert!(verdicts.is_empty());

            let mut arrived = Vec::new();
            let mut buffer = [0; 16];
            while let Ok(length) = receiver.recv(&mut buffer) {
                arrived.push(String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned());
            }
            assert_eq!(arrived, ["pass", "EDIT"], "{address}");
        }
    });
}

#[test]
fn a_mark_is_set_with_the_verdict_and_seen_by_later_rules() {
    queued(7001, || {
        run("iptables -t mangle -A POSTROUTING -m mark --mark 0x40 -j DROP");
        let mut queue = Queue::open(CONFIG).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7001).into());
        for mark in [None, Some(0x40)] {
            sender.send_to(b"x", to).unwrap();
            let mut verdicts = Verdicts::default();
            take(&mut queue, 1, |packet| assert!(verdicts.push(7, packet.id, Action::Accept, mark, None)));
            queue.send(&mut verdicts).unwrap();
            assert_eq!(receiver.recv(&mut [0; 4]).is_ok(), mark.is_none());
        }
    });
}

#[test]
fn a_verdict_on_a_packet_that_is_gone_is_refused_and_counted() {
    queued(7002, || {
        let mut queue = Queue::open(CONFIG).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7002).into());
        sender.send_to(b"x", to).unwrap();
        let mut verdicts = Verdicts::default();
        take(&mut queue, 1, |packet| {
            assert!(verdicts.push(7, packet.id + 1, Action::Accept, None, None));
            assert!(verdicts.push(7, packet.id, Action::Accept, None, None));
        });
        queue.send(&mut verdicts).unwrap();
        assert!(receiver.recv(&mut [0; 4]).is_ok());
        assert_eq!(queue.receive(|_| {}).unwrap(), Received { refused: 1, ..Received::default() });
    });
}

#[test]
fn a_full_queue_drops_and_the_kernel_counts() {
    queued(7003, || {
        let mut queue = Queue::open(QueueConfig { length: 10, ..CONFIG }).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7003).into());
        for _ in 0..30 {
            // A dropped packet of a local sender is an error of the call.
            drop(sender.send_to(b"x", to));
        }
        let counted = statistics().unwrap();
        let [counted] = counted.as_slice() else { panic!("{counted:?}") };
        assert_eq!((counted.queue, counted.waiting, counted.dropped), (7, 10, 20));

        let mut verdicts = Verdicts::default();
        take(&mut queue, 10, |packet| assert!(verdicts.push(7, packet.id, Action::Accept, None, None)));
        queue.send(&mut verdicts).unwrap();
        assert_eq!((0..11).filter(|_| receiver.recv(&mut [0; 4]).is_ok()).count(), 10);
    });
}

#[test]
fn an_overrun_of_the_socket_is_told_and_the_queue_goes_on() {
    queued(7006, || {
        let mut queue = Queue::open(QueueConfig { receive_buffer: 4096, ..CONFIG }).unwrap();
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7006).into());
        for _ in 0..100 {
            drop(sender.send_to(&[7; 1000], to));
        }
        let (mut verdicts, mut overrun) = (Verdicts::default(), false);
        loop {
            let received = queue
                .receive(|packet| assert!(verdicts.push(7, packet.id, Action::Drop, None, None)))
                .unwrap();
            overrun |= received.overrun;
            if received.packets == 0 && !received.more {
                break;
            }
        }
        queue.send(&mut verdicts).unwrap();
        assert!(overrun);
        assert!(statistics().unwrap().iter().any(|counted| counted.not_delivered > 50));

        sender.send_to(b"x", to).unwrap();
        take(&mut queue, 1, |packet| assert!(verdicts.push(7, packet.id, Action::Accept, None, None)));
        queue.send(&mut verdicts).unwrap();
        assert!(receiver.recv(&mut [0; 4]).is_ok());
    });
}

#[test]
fn nothing_passes_when_nobody_is_bound_and_what_waits_is_dropped_at_the_end() {
    queued(7004, || {
        let (sender, receiver, to) = pair((Ipv4Addr::LOCALHOST, 7004).into());
        drop(sender.send_to(b"early", to));
        let mut queue = Queue::open(CONFIG).unwrap();
        sender.send_to(b"waits", to).unwrap();
        take(&mut queue, 1, |_| {});
        drop(queue);
        assert!(receiver.recv(&mut [0; 8]).is_err());
        assert_eq!(statistics().unwrap(), []);
    });
}

#[test]
fn a_queue_that_another_holds_is_refused_by_name() {
    queued(7005, || {
        let _first = Queue::open(CONFIG).unwrap();
        match Queue::open(CONFIG) {
            Err(QueueError::Taken(7)) => {}
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("bound twice"),
        }
    });
}
