//! What attaching changes, and that detaching takes all of it back.

use trireme_bpf::{
    AttachError, AttachMethod, Counter, DetachError, Edge, Plane, PlaneConfig, PlaneError, Slot,
};
use trireme_netns::{LinkError, Links};

use crate::lab::{Lab, PU, entry, from_pu, ghost_key, host_edge, run, state, take, to_pu};
use crate::wire::{ACK, SYN};

#[test]
fn detach_leaves_interfaces_qdiscs_links_and_settings_as_they_were() {
    for method in [AttachMethod::Auto, AttachMethod::Clsact] {
        for inside in [false, true] {
            let lab = Lab::new();
            let before = lab.state();
            let mut plane = lab.open_with(PlaneConfig { attach: method, ..lab.config() });
            let edge = if inside { lab.inside_edge() } else { host_edge() };

            plane.attach(&edge, PU, state(1)).unwrap();
            assert_ne!(lab.state(), before, "{method:?} {inside}");
            plane.detach(PU).unwrap();
            drop(plane);

            assert_eq!(lab.state(), before, "{method:?} {inside}");
        }
    }
}

#[test]
fn clsact_of_someone_else_and_the_filters_on_it_stay() {
    let lab = Lab::new();
    run(&lab.node, "tc", "qdisc add dev host0 clsact");
    run(
        &lab.node,
        "tc",
        "filter add dev host0 ingress protocol ip prio 7 u32 match ip dst 192.0.2.9 flowid 1:1",
    );
    let before = lab.state();
    let mut plane = lab.open_with(PlaneConfig { attach: AttachMethod::Clsact, ..lab.config() });

    plane.attach(&host_edge(), PU, state(1)).unwrap();
    plane.detach(PU).unwrap();
    drop(plane);

    assert_eq!(lab.state(), before);
    assert!(before.contains("qdisc clsact ffff: dev host0") && before.contains("pref 7 u32"), "{before}");
}

#[test]
fn another_program_in_the_same_chain_still_runs() {
    let lab = Lab::new();
    let other = format!("{}-b", lab.instance);
    let mut first = lab.attached();
    let mut second = lab.open_with(PlaneConfig::new(&other));
    second.attach(&host_edge(), Slot(9), state(1)).unwrap();
    first.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    let key = trireme_bpf::FlowKey { slot: Slot(9), ..ghost_key(4000, 80) };
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

    // The one in front passes: the one behind sees the packet and takes it.
    second.connection_insert(&key, &entry(1)).unwrap();
    first.connection_remove(&ghost_key(4000, 80)).unwrap();
    // Opening the second one takes its time on a busy machine.
    first.beat().unwrap();
    pu.send(&from_pu(ACK, 5, b"a").packet());
    assert_eq!(take(&mut first, 1).len(), 1);
    assert_eq!(second.connection(&key).unwrap().unwrap().1.packets_from, 1);

    // Both pass: it arrives.
    first.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    let segment = from_pu(ACK, 6, b"b");
    pu.send(&segment.packet());
    peer.expect(|frame| segment.is(frame));
    assert_eq!(first.connection(&ghost_key(4000, 80)).unwrap().unwrap().1.packets_from, 1);
    assert_eq!(second.connection(&key).unwrap().unwrap().1.packets_from, 2);
    second.detach(Slot(9)).unwrap();
    drop(second);
    lab.node.run(|| Plane::cleanup("/sys/fs/bpf".as_ref(), &other)).unwrap().unwrap();
}

#[test]
fn wrong_edges_are_refused_by_name_and_change_nothing() {
    let lab = Lab::new();
    let mut plane = lab.open();
    let before = lab.settled_state();

    let absent = plane.attach(&Edge::Interface("absent0".into()), PU, state(1));
    assert!(
        matches!(&absent, Err(AttachError::Link(LinkError::Absent(name))) if name == "absent0"),
        "{absent:?}"
    );
    let loopback =
        plane.attach(&Edge::Namespace { path: lab.path(&lab.pu), device: "lo".into() }, PU, state(1));
    assert!(matches!(&loopback, Err(AttachError::NotEthernet(name)) if name == "lo"), "{loopback:?}");
    let gone = plane.attach(
        &Edge::Namespace { path: "/run/netns/absent".into(), device: "eth0".into() },
        PU,
        state(1),
    );
    assert!(matches!(&gone, Err(AttachError::Namespace(_))), "{gone:?}");
    let high = plane.attach(&host_edge(), Slot(1 << 31), state(1));
    assert!(matches!(high, Err(AttachError::Slot(_))), "{high:?}");
    assert!(matches!(plane.detach(PU), Err(DetachError::NotAttached(PU))));
    assert!(matches!(plane.update(PU, state(2)), Err(PlaneError::NotAttached(PU))));
    assert_eq!(lab.settled_state(), before);
    assert_eq!(plane.edges(), []);

    plane.attach(&host_edge(), PU, state(1)).unwrap();
    let taken = plane.attach(&host_edge(), Slot(6), state(1));
    assert!(matches!(taken, Err(AttachError::InterfaceTaken { owner: PU, .. })), "{taken:?}");
    let moved = plane.attach(&Edge::Interface("up0".into()), PU, state(1));
    assert!(matches!(moved, Err(AttachError::SlotTaken { slot: PU, .. })), "{moved:?}");
}

#[test]
fn interface_that_disappears_is_noticed_and_one_made_anew_is_attached_again() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    assert_eq!(plane.vanished(), []);

    lab.ip(&lab.node, "link del host0");

    assert_eq!(plane.vanished(), [PU]);
    assert!(plane.edges()[0].vanished);
    lab.node
        .run(|| {
            let links = Links::connect().unwrap();
            let (host, end) = links.create_veth("host0", "eth0").unwrap();
            links.move_into(end.index, &lab.pu).unwrap();
            links.set_up(host.index).unwrap();
        })
        .unwrap();
    lab.ip(&lab.pu, "link set eth0 up");
    plane.attach(&host_edge(), PU, state(1)).unwrap();
    assert_eq!(plane.vanished(), []);
    lab.pu_wire().send(&from_pu(ACK, 5, b"x").packet());
    assert_eq!(take(&mut plane, 1).len(), 1);
    lab.ip(&lab.node, "link del host0");
    plane.detach(PU).unwrap();
    assert_eq!(plane.edges(), []);
}

#[test]
fn detached_pu_is_open_and_its_connections_are_forgotten() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    plane.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    plane.connection_insert(&trireme_bpf::FlowKey { slot: Slot(77), ..ghost_key(1, 2) }, &entry(1)).unwrap();

    plane.detach(PU).unwrap();

    assert_eq!(plane.count_connections().unwrap(), 1);
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    for (from, to, segment) in [(&pu, &peer, from_pu(SYN, 1, b"")), (&peer, &pu, to_pu(ACK, 1, b""))] {
        from.send(&segment.packet());
        to.expect(|frame| segment.is(frame));
    }
    assert_eq!(plane.drain(100, |_| {}), 0);
}

#[test]
fn mode_off_passes_everything_until_it_is_enforced_again() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

    plane.update(PU, trireme_bpf::PuState { mode: trireme_bpf::Mode::Off, ..state(1) }).unwrap();
    let segment = from_pu(SYN, 9, b"");
    pu.send(&segment.packet());
    peer.expect(|frame| segment.is(frame));

    plane.update(PU, state(1)).unwrap();
    pu.send(&segment.packet());
    assert_eq!(take(&mut plane, 1).len(), 1);
    peer.expect_nothing(|frame| segment.is(frame));
    assert_eq!(plane.counters().unwrap()[0].1.of(Counter::PuntedFrom), 1);
}

#[test]
fn two_planes_of_one_instance_exclude_each_other() {
    let lab = Lab::new();
    let plane = lab.open();

    let second = lab.node.run(|| Plane::open(lab.config())).unwrap();
    let cleanup = Plane::cleanup("/sys/fs/bpf".as_ref(), &lab.instance);

    assert!(
        matches!(&second, Err(trireme_bpf::OpenError::InUse(name)) if *name == lab.instance),
        "{second:?}"
    );
    assert!(matches!(&cleanup, Err(trireme_bpf::CleanupError::InUse(_))), "{cleanup:?}");
    drop(plane);
}
