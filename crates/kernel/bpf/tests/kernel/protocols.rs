//! What is not TCP, and what is not quite TCP.

use trireme_bpf::{Counter, Hook, OtherProtocols, Plane, PuState, PuntReason};

use crate::lab::{GHOST_PEER, GHOST_PU, Lab, PU, from_pu, run, state, take};
use crate::wire::{ACK, ipv4};

fn count(plane: &Plane, counter: Counter) -> u64 {
    plane.counters().unwrap()[0].1.of(counter)
}

/// An IPv6 packet from a link-local address to all nodes.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap(), next, 255];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(payload);
    packet
}

#[test]
fn other_protocols_follow_the_setting_of_the_pu() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let out = ipv4(17, GHOST_PU, GHOST_PEER, &[0x10, 0, 0, 53, 0, 9, 0, 0, 1]);
    let back = ipv4(47, GHOST_PEER, GHOST_PU, &[0; 8]);
    let is = |packet: &[u8], frame: &[u8]| frame.get(14..22) == Some(&packet[12..20]);

    pu.send(&out);
    peer.send(&back);
    peer.expect_nothing(|frame| is(&out, frame));
    pu.expect_nothing(|frame| is(&back, frame));
    let mut punts = Vec::new();
    plane.drain(10, |punt| punts.push((punt.reason, punt.hook)));
    assert!(punts.contains(&(PuntReason::Other, Hook::FromPu)), "{punts:?}");
    assert!(punts.contains(&(PuntReason::Other, Hook::ToPu)), "{punts:?}");

    plane.update(PU, PuState { other_protocols: OtherProtocols::Allow, ..state(1) }).unwrap();
    pu.send(&out);
    peer.send(&back);
    peer.expect(|frame| is(&out, frame));
    pu.expect(|frame| is(&back, frame));
    assert!(count(&plane, Counter::OtherAllowed) >= 2);
    assert_eq!(plane.drain(10, |_| {}), 0);
}

#[test]
fn address_resolution_passes_and_router_messages_of_a_pu_do_not() {
    let lab = Lab::new();
    let plane = lab.attached();
    lab.ip(&lab.pu, "neigh flush all");

    // Resolution succeeds although the datagrams are denied.
    lab.pu
        .run(|| {
            for (own, to) in [("0.0.0.0:0", "10.9.0.1:9"), ("[::]:0", "[fd09::1]:9")] {
                std::net::UdpSocket::bind(own).unwrap().send_to(b"x", to).unwrap();
            }
        })
        .unwrap();
    let resolved = || run(&lab.pu, "ip", "neigh show").lines().filter(|line| line.contains("lladdr")).count();
    wait_until(|| resolved() >= 2);
    assert_eq!(resolved(), 2);
    wait_for(&plane, Counter::PuntedFrom, 2);

    let pu = lab.pu_wire();
    for kind in [134, 137] {
        pu.send(&ipv6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]));
    }
    pu.send(&ipv4(1, GHOST_PU, GHOST_PEER, &[5, 0, 0, 0, 0, 0, 0, 0]));

    wait_for(&plane, Counter::RouterSpoof, 3);
}

#[test]
fn tagged_frames_and_frames_that_are_not_ip_are_dropped_and_counted() {
    let lab = Lab::new();
    let plane = lab.attached();
    let pu = lab.pu_wire();
    let inner = from_pu(ACK, 1, b"x").packet();

    pu.send_raw(&[&[0x81, 0, 0, 5, 8, 0][..], &inner].concat());
    pu.send_raw(&[&[0x88, 0xa8, 0, 5, 8, 0][..], &inner].concat());
    pu.send_raw(&[&[0x88, 0xcc][..], &inner].concat());
    pu.send_raw(&[8, 0, 0x45, 0, 0]);
    pu.send_raw(&[&[8, 0][..], &[0x65; 40]].concat());

    wait_for(&plane, Counter::Vlan, 2);
    wait_for(&plane, Counter::NotIp, 1);
    wait_for(&plane, Counter::Truncated, 2);
}

#[test]
fn icmp_errors_fragments_and_malformed_tcp_go_to_user_space() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let mut fragment = from_pu(ACK, 1, b"x").packet();
    fragment[6] = 0x20;
    let mut later = from_pu(ACK, 1, b"x").packet();
    later[7] = 0x20;
    let mut short = from_pu(ACK, 1, b"x").packet();
    short[32] = 0x40;
    let mut v6_fragment = vec![6, 0, 0, 8, 0, 0, 0, 1];
    v6_fragment.extend([0; 16]);
    let mut hop_by_hop = vec![6, 0, 1, 4, 0, 0, 0, 0];
    hop_by_hop.extend(&from_pu(ACK, 1, b"").packet()[20..]);

    peer.send(&ipv4(1, GHOST_PEER, GHOST_PU, &[&[3, 1, 0, 0, 0, 0, 0, 0][..], &short].concat()));
    let icmp = take(&mut plane, 1);
    for packet in [&fragment, &later, &short, &ipv6(44, &v6_fragment), &ipv6(0, &hop_by_hop)] {
        pu.send(packet);
    }
    let seen = take(&mut plane, 5);

    assert_eq!((icmp[0].hook, icmp[0].reason), (Hook::ToPu, PuntReason::IcmpError));
    let reasons: Vec<PuntReason> = seen.iter().map(|punt| punt.reason).collect();
    let fragment = PuntReason::Fragment;
    assert_eq!(reasons, [fragment, fragment, PuntReason::Malformed, fragment, PuntReason::Miss]);
}

fn wait_for(plane: &Plane, counter: Counter, wanted: u64) {
    wait_until(|| count(plane, counter) >= wanted);
    assert_eq!(count(plane, counter), wanted, "{counter:?}");
}

fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..400 {
        if done() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
