//! Packets that are put on their way.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use trireme_nfqueue::{Action, Buffers, Hook, Queue, RawSender};

use crate::lab::{CONFIG, PATIENT, linked, receiver, run, take, wait_until};
use crate::packets::{ACK_PUSH, RST, SYN, folded_sum, tcp, udp};

/// An address that is nobody's, and one of the near end, in each family.
const FOREIGN: [(&str, &str); 2] =
    [("192.0.2.9:4000", "198.51.100.1:7030"), ("[2001:db8:9::9]:4000", "[2001:db8:1::1]:7030")];

/// Once without a check of the way back, once with it.
fn with_and_without_reverse_path_filter(what: impl Fn(&RawSender) + Send + Sync) {
    for strict in [0, 1] {
        let (near, _far) = linked();
        near.run(|| {
            for name in ["all", "default", "lo", "near0"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), strict.to_string())
                    .unwrap();
            }
            what(&RawSender::open(0).unwrap());
        })
        .unwrap();
    }
}

#[test]
fn a_packet_from_a_foreign_source_reaches_a_local_udp_socket() {
    with_and_without_reverse_path_filter(|sender| {
        let local = [("192.0.2.9:4000", "127.0.0.1:7031"), ("[2001:db8:9::9]:4000", "[::1]:7031")];
        for (from, to) in FOREIGN.into_iter().chain(local) {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let receiver = receiver(to);

            sender.send(&udp(from, to, b"hello")).unwrap();

            let mut buffer = [0; 16];
            assert_eq!(receiver.recv_from(&mut buffer).unwrap(), (5, from), "{to}");
            assert!(buffer.starts_with(b"hello"));
        }
    });
}

#[test]
fn a_connection_from_a_foreign_source_is_opened_to_a_local_tcp_socket() {
    with_and_without_reverse_path_filter(|sender| {
        let mut buffers = Buffers::new();
        for (tables, route, (from, to)) in [
            ("iptables", "ip -4 route add default via 198.51.100.2", FOREIGN[0]),
            ("ip6tables", "ip -6 route add default via 2001:db8:1::2", FOREIGN[1]),
        ] {
            run(route);
            run(&format!("{tables} -A OUTPUT -p tcp --sport 7030 -j NFQUEUE --queue-num 7"));
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let mut queue = Queue::open(CONFIG, &mut buffers).unwrap();
            let listener = TcpListener::bind(to).unwrap();

            sender.send(&tcp(from, to, (1000, 0), SYN, b"")).unwrap();
            // The answer, which would find nobody.
            let mut isn = None;
            take(&mut queue, &mut buffers, 1, |packet, verdicts| {
                let start = if to.is_ipv4() { 20 } else { 40 };
                let (_, segment) = packet.bytes.split_at(start);
                isn = segment.get(4..8).map(|seq| u32::from_be_bytes(seq.try_into().unwrap()));
                assert!(verdicts.decide(packet.id, Action::Drop, None, None));
            });
            queue.flush().unwrap();
            let ack = isn.unwrap().wrapping_add(1);
            sender.send(&tcp(from, to, (1001, ack), ACK_PUSH, b"hello")).unwrap();

            let (mut connection, peer) = listener.accept().unwrap();
            connection.set_read_timeout(Some(PATIENT)).unwrap();
            let mut text = [0; 5];
            connection.read_exact(&mut text).unwrap();
            assert_eq!((peer, &text), (from, b"hello"));

            // Left open, the connection would look for its peer for minutes and hold the interface.
            sender.send(&tcp(from, to, (1006, ack), RST, b"")).unwrap();
            let reset = connection.read(&mut text).unwrap_err();
            assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_packet_to_elsewhere_leaves_by_routing_and_arrives_as_it_was_but_for_what_the_kernel_fills_in() {
    let (near, far) = linked();
    let mut buffers = Buffers::new();
    let mut queue = far
        .run(|| {
            for tables in ["iptables", "ip6tables"] {
                run(&format!("{tables} -t raw -A PREROUTING -p udp --dport 7032 -j NFQUEUE --queue-num 7"));
            }
            Queue::open(CONFIG, &mut buffers).unwrap()
        })
        .unwrap();
    let sender = near.run(|| RawSender::open(0).unwrap()).unwrap();
    for (from, to) in
        [("192.0.2.9:4000", "198.51.100.2:7032"), ("[2001:db8:9::9]:4000", "[2001:db8:1::2]:7032")]
    {
        let packet = udp(from.parse().unwrap(), to.parse().unwrap(), b"hello");

        // From outside the namespace, in which the sockets stay.
        sender.send(&packet).unwrap();

        take(&mut queue, &mut buffers, 1, |arrived, verdicts| {
            assert_eq!((arrived.hook, arrived.mark), (Hook::PreRouting, 0));
            let mut bytes = arrived.bytes.to_vec();
            if bytes.len() == packet.len() && to.starts_with('1') {
                assert_eq!(folded_sum(bytes.get(..20).unwrap()), 0xffff);
                bytes.get_mut(10..12).unwrap().fill(0);
            }
            assert_eq!(bytes, packet);
            assert!(verdicts.decide(arrived.id, Action::Drop, None, None));
        });
        queue.flush().unwrap();
    }
}

#[test]
fn the_mark_keeps_a_packet_from_the_rule_that_queues_the_others() {
    let (near, _far) = linked();
    near.run(|| {
        for tables in ["iptables", "ip6tables"] {
            for hook in ["INPUT", "OUTPUT"] {
                run(&format!("{tables} -A {hook} -p udp -m mark ! --mark 0x40 -j NFQUEUE --queue-num 7"));
            }
        }
        let mut buffers = Buffers::new();
        let mut queue = Queue::open(CONFIG, &mut buffers).unwrap();
        let (plain, marked) = (RawSender::open(0).unwrap(), RawSender::open(0x40).unwrap());
        for (from, to) in FOREIGN {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let receiver = receiver(to);
            marked.send(&udp(from, to, b"marked")).unwrap();
            assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 6);
            assert_eq!(queue.receive(&mut buffers, |_, _| {}).unwrap().packets, 0);

            plain.send(&udp(from, to, b"plain")).unwrap();
            assert!(receiver.recv(&mut [0; 16]).is_err());
            take(&mut queue, &mut buffers, 1, |packet, _| assert!(packet.bytes.ends_with(b"plain")));
        }
    })
    .unwrap();
}

#[test]
fn a_large_packet_reaches_a_local_socket_whole() {
    let (near, _far) = linked();
    near.run(|| {
        let sender = RawSender::open(0).unwrap();
        for (from, to) in FOREIGN {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let receiver = receiver(to);
            sender.send(&udp(from, to, &[7; 60_000])).unwrap();
            let mut buffer = vec![0; 65_536];
            wait_until("it arrives", PATIENT, || {
                receiver.recv(&mut buffer).is_ok_and(|length| length == 60_000)
            });
        }
    })
    .unwrap();
}
