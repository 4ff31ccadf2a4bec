//! An edge inside the PU's own namespace.

use trireme_bpf::{Counter, Edge};

use crate::lab::{Lab, PU, PassAll, entry, from_pu, ghost_key, state, take, to_pu};
use crate::transfer::transfer;
use crate::wire::ACK;

#[test]
fn ten_megabytes_arrive_both_ways_through_an_edge_inside_the_namespace() {
    let lab = Lab::new();
    let before = lab.state();
    let mut plane = lab.open();
    plane.attach(&lab.inside_edge(), PU, state(1)).unwrap();
    let pass = PassAll::start(plane);

    transfer(&lab.pu, &lab.peer, "10.8.0.2:7001");
    transfer(&lab.peer, &lab.pu, "[fd09::2]:7002");

    assert!(pass.count() > 1000);
    let mut plane = pass.stop();
    let counters = plane.counters().unwrap()[0].1;
    assert!(counters.of(Counter::Reinjected) > 500);
    assert_eq!(counters.of(Counter::NoOwner), 0);
    plane.detach(PU).unwrap();
    drop(plane);
    assert_eq!(lab.state(), before);
}

#[test]
fn table_and_direction_are_the_same_inside() {
    let lab = Lab::new();
    let mut plane = lab.open();
    plane.attach(&lab.inside_edge(), PU, state(1)).unwrap();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

    plane.beat().unwrap();
    pu.send(&from_pu(ACK, 1, b"x").packet());
    peer.send(&to_pu(ACK, 1, b"x").packet());
    let hooks: Vec<_> = take(&mut plane, 2).into_iter().map(|seen| seen.hook).collect();
    assert_eq!(hooks.len(), 2);
    assert!(hooks.contains(&trireme_bpf::Hook::FromPu) && hooks.contains(&trireme_bpf::Hook::ToPu));

    plane.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    let segment = from_pu(ACK, 1, b"y");
    pu.send(&segment.packet());
    peer.expect(|frame| segment.is(frame));
    peer.send(&to_pu(ACK, 1, b"y").packet());
    std::thread::sleep(std::time::Duration::from_millis(50));
    let activity = plane.connection(&ghost_key(4000, 80)).unwrap().unwrap().1;
    assert_eq!((activity.packets_from, activity.packets_to), (1, 1));
}

#[test]
fn namespaces_whose_interfaces_share_an_index_do_not_share_a_pu() {
    let (lab, other) = (Lab::new(), Lab::new());
    let mut plane = lab.open();
    plane.attach(&lab.inside_edge(), PU, state(1)).unwrap();
    let edge = Edge::Namespace { path: other.path(&other.pu), device: "eth0".to_owned() };
    plane.attach(&edge, trireme_bpf::Slot(6), state(1)).unwrap();
    let indices: Vec<u32> = plane.edges().iter().map(|edge| edge.ifindex).collect();
    assert_eq!(indices[0], indices[1]);

    plane.beat().unwrap();
    other.pu_wire().send(&from_pu(ACK, 1, b"x").packet());
    let mut slots = Vec::new();
    plane.poll(Some(std::time::Duration::from_secs(1))).unwrap();
    plane.drain(10, |punt| slots.push(punt.slot));

    assert_eq!(slots, [trireme_bpf::Slot(6)]);
    assert_eq!(plane.vanished(), []);
}
