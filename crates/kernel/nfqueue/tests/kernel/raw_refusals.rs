//! Packets that are not put on their way.

use std::io;
use std::net::{IpAddr, SocketAddr};

use trireme_netns::Namespace;
use trireme_nfqueue::{RawError, RawSender};

use crate::lab::{linked, receiver, run};
use crate::packets::udp;

/// From an address of the near end.
fn to(destination: &str, text: &[u8]) -> (IpAddr, Vec<u8>) {
    let destination: IpAddr = destination.parse().unwrap();
    let from = if destination.is_ipv4() { "198.51.100.1:4000" } else { "[2001:db8:1::1]:4000" };
    (destination, udp(from.parse().unwrap(), (destination, 7040).into(), text))
}

fn in_linked(what: impl FnOnce(&RawSender) + Send) {
    let (near, _far) = linked();
    near.run(|| what(&RawSender::open(0).unwrap())).unwrap();
}

#[test]
fn a_packet_for_many_or_for_nobody_is_refused() {
    in_linked(|sender| {
        for many in [
            "255.255.255.255",
            "198.51.100.255",
            "127.255.255.255",
            "224.0.0.1",
            "0.0.0.0",
            "ff02::1",
            "ff0e::5",
            "::",
        ] {
            let (destination, packet) = to(many, b"x");
            match sender.send(&packet) {
                Err(RawError::Destination(refused)) => assert_eq!(refused, destination),
                other => panic!("{many}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_packet_that_is_longer_than_the_interface_takes_is_refused_with_its_length() {
    in_linked(|sender| {
        for (far, headers) in [("198.51.100.2", 28), ("2001:db8:1::2", 48)] {
            let (_, longest) = to(far, &vec![7; 1500 - headers]);
            sender.send(&longest).unwrap();

            let (destination, packet) = to(far, &vec![7; 1501 - headers]);
            match sender.send(&packet) {
                Err(RawError::TooLong { length: 1501, destination: refused }) => {
                    assert_eq!(refused, destination);
                }
                other => panic!("{far}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_packet_without_a_route_or_that_a_rule_drops_is_refused_by_the_kernel() {
    let kind = |sent: Result<(), RawError>| match sent {
        Err(RawError::Send { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    };
    in_linked(|sender| {
        for nowhere in ["192.0.2.1", "2001:db8:2::1"] {
            assert_eq!(kind(sender.send(&to(nowhere, b"x").1)), io::ErrorKind::NetworkUnreachable);
        }
        for (tables, far) in [("iptables", "198.51.100.2"), ("ip6tables", "2001:db8:1::2")] {
            run(&format!("{tables} -A OUTPUT -p udp --dport 7040 -j DROP"));
            assert_eq!(kind(sender.send(&to(far, b"x").1)), io::ErrorKind::PermissionDenied);
        }
    });
}

#[test]
fn bytes_that_are_no_packet_are_refused_and_the_sender_goes_on() {
    in_linked(|sender| {
        for local in ["198.51.100.1", "2001:db8:1::1"] {
            let (destination, packet) = to(local, b"hello");
            let receiver = receiver(SocketAddr::new(destination, 7040));
            for end in 0..packet.len() {
                let cut = sender.send(packet.get(..end).unwrap());
                assert!(matches!(cut, Err(RawError::Malformed(_))), "{end}: {cut:?}");
            }
            sender.send(&packet).unwrap();
            assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 5);
        }
    });
}

#[test]
fn a_namespace_whose_interfaces_are_down_takes_nothing() {
    Namespace::anonymous()
        .unwrap()
        .run(|| {
            let sender = RawSender::open(0).unwrap();
            for local in ["127.0.0.1", "::1"] {
                assert!(matches!(sender.send(&to(local, b"x").1), Err(RawError::Send { .. })), "{local}");
            }
        })
        .unwrap();
}
