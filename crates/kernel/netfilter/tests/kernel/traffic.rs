//! Real connections between a unit with rules and a peer without.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use trireme_netfilter::{BackEnd, Denied, OtherProtocols, RuleSet, apply, denied};
use trireme_netns::Namespace;

use crate::agent::Agent;
use crate::lab::{BOTH, Wire, connmarks, families, join, program, rule_set, run};
use crate::packets::{ACK, SYN, behind_options, segment};

const RELEASED: u32 = 5;
const RESET: u32 = 255;

/// A wire, its agent, and one family.
struct Scene {
    wire: Wire,
    agent: Agent,
    back_end: BackEnd,
    unit: IpAddr,
    peer: IpAddr,
}

/// Plays the scene with every back end and in both families.
fn each(set: &RuleSet, play: impl Fn(&Scene)) {
    for back_end in BOTH {
        for (unit, peer) in families() {
            let wire = Wire::new();
            wire.unit.run(|| apply(back_end, set).unwrap()).unwrap();
            let agent = Agent::start(&wire.unit, set);
            play(&Scene { wire, agent, back_end, unit, peer });
        }
    }
}

impl Scene {
    /// Connects from the unit to the peer; its end and the peer's.
    fn outward(&self, mark: u32) -> (TcpStream, TcpStream) {
        let listener = self.wire.peer.run(|| TcpListener::bind((self.peer, 0)).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let connect = || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.set_mark(mark).unwrap();
            socket.connect_timeout(&to.into(), Duration::from_secs(5)).unwrap();
            TcpStream::from(socket)
        };
        let ours = self.wire.unit.run(connect).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    /// Connects from the peer to the unit; the unit's end and the peer's.
    fn inward(&self) -> (TcpStream, TcpStream) {
        let listener = self.wire.unit.run(|| TcpListener::bind((self.unit, 0)).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let theirs = self.wire.peer.run(|| TcpStream::connect(to).unwrap()).unwrap();
        (listener.accept().unwrap().0, theirs)
    }

    fn connmarks(&self) -> Vec<u32> {
        self.wire.unit.run(connmarks).unwrap()
    }

    fn raw(&self, protocol: Protocol, packet: &[u8], to: SocketAddr) {
        let send = || {
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(protocol)).unwrap();
            socket.send_to(packet, &SocketAddr::new(to.ip(), 0).into()).unwrap();
        };
        self.wire.unit.run(send).unwrap();
    }
}

/// Sends one way and the other, and waits for it.
fn talk(ours: &mut TcpStream, theirs: &mut TcpStream) {
    ours.write_all(b"ping").unwrap();
    theirs.read_exact(&mut [0; 4]).unwrap();
    theirs.write_all(b"pong").unwrap();
    ours.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn handshake_is_queued_and_its_verdict_releases_the_connection() {
    each(&rule_set(), |scene| {
        scene.agent.answer(RELEASED);
        for (mut ours, mut theirs) in [scene.outward(0), scene.inward()] {
            talk(&mut ours, &mut theirs);

            let seen = scene.agent.take();

            assert!(seen.iter().all(crate::packets::Seen::is_syn), "{seen:?}");
        }
        assert_eq!(scene.connmarks(), [RELEASED << 24; 2]);
    });
}

#[test]
fn connection_without_a_verdict_is_queued_until_one_releases_it_and_again_after_a_reset() {
    each(&rule_set(), |scene| {
        for inward in [false, true] {
            let (mut ours, mut theirs) = if inward { scene.inward() } else { scene.outward(0) };
            let handshake: Vec<u8> = scene.agent.take().iter().map(|seen| seen.flags).collect();
            assert_eq!(handshake, [SYN, SYN | ACK, ACK]);
            talk(&mut ours, &mut theirs);
            let seen = scene.agent.take();
            assert!(seen.iter().any(|seen| seen.outward && seen.payload == b"ping"), "{seen:?}");
            assert!(seen.iter().any(|seen| !seen.outward && seen.payload == b"pong"), "{seen:?}");

            scene.agent.answer(RELEASED);
            talk(&mut ours, &mut theirs);
            scene.agent.take();
            talk(&mut ours, &mut theirs);
            assert_eq!(scene.agent.take(), []);

            // Another value than the one that releases now is none.
            scene.agent.answer(RESET);
            theirs.write_all(b"TAP\x01").unwrap();
            ours.read_exact(&mut [0; 4]).unwrap();
            let seen = scene.agent.take();
            assert_eq!(seen.first().map(|seen| &seen.payload[..]), Some(&b"TAP\x01"[..]));
            scene.agent.answer(RELEASED - 1);
            talk(&mut ours, &mut theirs);
            assert_ne!(scene.agent.take(), []);
            talk(&mut ours, &mut theirs);
            assert_ne!(scene.agent.take(), []);
            drop((ours, theirs));
            scene.agent.take();
            scene.agent.answer(0);
        }
        assert_eq!(scene.connmarks(), [(RELEASED - 1) << 24; 2]);
    });
}

#[test]
fn another_released_value_ends_every_release() {
    each(&rule_set(), |scene| {
        scene.agent.answer(RELEASED);
        let (mut ours, mut theirs) = scene.outward(0);
        scene.agent.take();
        let next = RuleSet { released: RELEASED + 1, ..rule_set() };

        scene.wire.unit.run(|| apply(scene.back_end, &next).unwrap()).unwrap();

        talk(&mut ours, &mut theirs);
        assert_ne!(scene.agent.take(), []);
        scene.agent.answer(RELEASED + 1);
        talk(&mut ours, &mut theirs);
        scene.agent.take();
        talk(&mut ours, &mut theirs);
        assert_eq!(scene.agent.take(), []);
    });
}

#[test]
fn payload_that_begins_with_the_magic_is_queued_on_its_way_in_only() {
    each(&rule_set(), |scene| {
        scene.agent.answer(RELEASED);
        let (mut ours, mut theirs) = scene.outward(0);
        scene.agent.take();

        for text in [&b"TAP\x01and more"[..], b"TAP\x01", b"xTAP\x01", b"TAP\x02", b"TAP"] {
            theirs.write_all(text).unwrap();
            ours.read_exact(&mut vec![0; text.len()]).unwrap();
            ours.write_all(text).unwrap();
            theirs.read_exact(&mut vec![0; text.len()]).unwrap();
            let seen: Vec<_> =
                scene.agent.take().into_iter().map(|seen| (seen.outward, seen.payload)).collect();
            if text.starts_with(b"TAP\x01") {
                assert_eq!(seen, [(false, text.to_vec())]);
            } else {
                assert_eq!(seen, [], "{text:?}");
            }
        }
    });
}

#[test]
fn new_syn_on_the_tuple_of_a_released_connection_is_queued_and_ends_the_release() {
    each(&rule_set(), |scene| {
        scene.agent.answer(RELEASED);
        let (mut ours, mut theirs) = scene.outward(0);
        scene.agent.take();
        let (from, to) = (ours.local_addr().unwrap(), ours.peer_addr().unwrap());
        assert_eq!(scene.connmarks(), [RELEASED << 24]);
        scene.agent.answer(0);

        scene.raw(Protocol::TCP, &segment(from, to, SYN), to);

        let seen = scene.agent.take();
        assert!(seen.first().is_some_and(|seen| seen.is_syn() && seen.outward), "{seen:?}");
        assert_eq!(scene.connmarks(), [0]);
        talk(&mut ours, &mut theirs);
        assert_ne!(scene.agent.take(), []);
    });
}

#[test]
fn tcp_behind_an_extension_header_is_queued_though_released() {
    each(&rule_set(), |scene| {
        scene.agent.answer(RELEASED);
        let (ours, _theirs) = scene.outward(0);
        scene.agent.take();
        let (from, to) = (ours.local_addr().unwrap(), ours.peer_addr().unwrap());
        if from.is_ipv4() {
            return;
        }
        // The segment belongs to the connection whatever its sequence number is: its connmark says released.
        let liberal = || std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1").unwrap();
        scene.wire.unit.run(liberal).unwrap();
        scene.raw(Protocol::TCP, &segment(from, to, ACK), to);
        assert_eq!(scene.agent.take(), []);

        scene.raw(Protocol::from(255), &behind_options(from, to, ACK), to);

        let seen = scene.agent.take();
        assert!(seen.iter().any(|seen| seen.outward && seen.flags == ACK), "{seen:?}");
    });
}

#[test]
fn mark_that_a_process_sets_does_not_release_and_its_other_bits_are_kept() {
    each(&rule_set(), |scene| {
        let tables = if scene.unit.is_ipv4() { "iptables" } else { "ip6tables" };
        let iptables = program(scene.back_end, tables, "");
        let others = || {
            // Behind ours: the mark as it is after saving, and bits of somebody else in the connmark.
            run(&format!("{iptables} -t mangle -A POSTROUTING -p tcp -m mark --mark 0x7"));
            run(&format!("{iptables} -t mangle -A POSTROUTING -p tcp -m mark ! --mark 0x7"));
            run(&format!("{iptables} -t mangle -A POSTROUTING -p tcp -j CONNMARK --set-xmark 0x30/0xf0"));
        };
        scene.wire.unit.run(others).unwrap();
        let (mut ours, mut theirs) = scene.outward(RELEASED << 24 | 7);
        talk(&mut ours, &mut theirs);

        let seen = scene.agent.take();

        assert!(seen.iter().any(|seen| seen.outward && seen.payload == b"ping"), "{seen:?}");
        assert!(seen.iter().filter(|seen| seen.outward).all(|seen| seen.mark == 7), "{seen:?}");
        assert_eq!(scene.connmarks(), [0x30]);

        scene.agent.answer(RELEASED);
        talk(&mut ours, &mut theirs);
        assert_eq!(scene.connmarks(), [RELEASED << 24 | 0x30]);
        scene.agent.take();
        // Released packets of that socket leave with its other bits as well.
        talk(&mut ours, &mut theirs);
        assert_eq!(scene.agent.take(), []);
        scene.agent.answer(RESET);
        theirs.write_all(b"TAP\x01").unwrap();
        ours.read_exact(&mut [0; 4]).unwrap();
        scene.agent.take();
        assert_eq!(scene.connmarks(), [0x30]);

        let save = format!("{} -c -t mangle", program(scene.back_end, tables, "save"));
        let counted = scene.wire.unit.run(|| run(&save)).unwrap();
        let packets = |rule: &str| {
            let line = counted.lines().find(|line| line.ends_with(rule)).unwrap();
            line[1..].split(':').next().unwrap().parse::<u64>().unwrap()
        };
        assert!(packets("-A POSTROUTING -p tcp -m mark --mark 0x7") > 5, "{counted}");
        assert_eq!(packets("-A POSTROUTING -p tcp -m mark ! --mark 0x7"), 0, "{counted}");
    });
}

#[test]
fn other_protocols_are_denied_and_counted_or_allowed() {
    for other_protocols in [OtherProtocols::Deny, OtherProtocols::Allow] {
        each(&RuleSet { other_protocols, ..rule_set() }, |scene| {
            let [unit, peer] = [(&scene.wire.unit, scene.unit), (&scene.wire.peer, scene.peer)].map(
                |(namespace, address)| {
                    let socket = namespace.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
                    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    socket
                },
            );
            let allowed = other_protocols == OtherProtocols::Allow;
            for _ in 0..2 {
                // A dropped packet of a local sender is an error of the call.
                assert_eq!(unit.send_to(b"x", peer.local_addr().unwrap()).is_ok(), allowed);
                assert_eq!(peer.recv(&mut [0; 4]).is_ok(), allowed);
            }
            peer.send_to(b"x", unit.local_addr().unwrap()).unwrap();
            assert_eq!(unit.recv(&mut [0; 4]).is_ok(), allowed);

            let counted = scene.wire.unit.run(|| denied(scene.back_end).unwrap()).unwrap();

            let expected = if allowed { Denied::default() } else { Denied { from: 2, to: 1 } };
            assert_eq!(counted, expected);
            assert_eq!(scene.agent.take(), []);
        });
    }
}

#[test]
fn icmp_errors_are_queued_both_ways() {
    each(&RuleSet { other_protocols: OtherProtocols::Allow, ..rule_set() }, |scene| {
        let ends = [(&scene.wire.unit, scene.unit, scene.peer), (&scene.wire.peer, scene.peer, scene.unit)];
        for (outward, (namespace, from, to)) in [false, true].into_iter().zip(ends) {
            let socket = namespace.run(|| UdpSocket::bind((from, 0)).unwrap()).unwrap();
            socket.send_to(b"x", (to, 9)).unwrap();

            let seen = scene.agent.take();

            let protocol = if from.is_ipv4() { 1 } else { 58 };
            assert_eq!(seen.len(), 1, "{seen:?}");
            assert_eq!((seen[0].outward, seen[0].protocol), (outward, protocol));
        }
    });
}

#[test]
fn mark_on_a_routed_connection_does_not_release_it() {
    for back_end in BOTH {
        let (router, [near, far]) =
            (Namespace::anonymous().unwrap(), [(); 2].map(|()| Namespace::anonymous().unwrap()));
        join(
            &router,
            &near,
            "eth0",
            [["192.0.2.1/25", "2001:db8::1/64"], ["192.0.2.2/25", "2001:db8::2/64"]],
        );
        join(
            &router,
            &far,
            "eth1",
            [["192.0.2.129/25", "2001:db8:1::1/64"], ["192.0.2.130/25", "2001:db8:1::2/64"]],
        );
        for (end, gates) in [(&near, ["192.0.2.1", "2001:db8::1"]), (&far, ["192.0.2.129", "2001:db8:1::1"])]
        {
            end.run(|| gates.map(|gate| run(&format!("ip route add default via {gate}")))).unwrap();
        }
        let route = || {
            for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{forwarding}"), "1").unwrap();
            }
            for tables in ["iptables", "ip6tables"] {
                let mark = "-t mangle -A PREROUTING -j MARK --set-xmark 0x5000007/0xffffffff";
                run(&format!("{} {mark}", program(back_end, tables, "")));
            }
            apply(back_end, &rule_set()).unwrap();
        };
        router.run(route).unwrap();

        for address in ["192.0.2.130", "2001:db8:1::2"] {
            let listener = far.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
            let mut ours = near.run(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
            talk(&mut ours, &mut listener.accept().unwrap().0);
        }

        assert_eq!(router.run(connmarks).unwrap(), [0, 0]);
    }
}

#[test]
fn no_packet_slips_through_while_rules_are_replaced() {
    each(&rule_set(), |scene| {
        let sender = scene.wire.unit.run(|| UdpSocket::bind((scene.unit, 0)).unwrap()).unwrap();
        let receiver = scene.wire.peer.run(|| UdpSocket::bind((scene.peer, 0)).unwrap()).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (to, stop) = (receiver.local_addr().unwrap(), AtomicBool::new(false));
        let sent = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::SeqCst) {
                    // A dropped packet of a local sender is an error of the call.
                    drop(sender.send_to(b"x", to));
                    sent += 1;
                }
                sent
            });
            for released in 1..12 {
                let set = RuleSet { released, ..rule_set() };
                scene.wire.unit.run(|| apply(scene.back_end, &set).unwrap()).unwrap();
            }
            stop.store(true, Ordering::SeqCst);
            flood.join().unwrap()
        });

        assert!(sent > 100, "{sent}");
        assert!(receiver.recv(&mut [0; 4]).is_err());
    });
}

#[test]
fn loopback_is_left_alone() {
    each(&rule_set(), |scene| {
        let address = if scene.unit.is_ipv4() { "127.0.0.1" } else { "::1" };
        let talk = || {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            talk(&mut ours, &mut listener.accept().unwrap().0);
        };
        scene.wire.unit.run(talk).unwrap();

        assert_eq!(scene.agent.take(), []);
    });
}
