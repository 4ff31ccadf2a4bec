//! Bounds: rate limits before the rings, rings that are full, packets of any size, frames that are not ours.

use trireme_bpf::{Counter, Injection, Plane, Slot, Toward};

use crate::lab::{Lab, PU, from_pu, run, take, to_pu};
use crate::wire::{ACK, SYN, Wire};

fn counter(plane: &Plane, counter: Counter) -> u64 {
    plane.counters().unwrap()[0].1.of(counter)
}

#[test]
fn punts_beyond_the_rate_limit_are_dropped_and_counted_for_each_direction() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.limits.from_pu_per_sec = 80;
    let mut plane = lab.attached_with(config);
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

    for seq in 0..500 {
        pu.send(&from_pu(SYN, seq, b"").packet());
    }
    peer.send(&to_pu(SYN, 1, b"").packet());
    let seen = take(&mut plane, 500);

    let (dropped, punted) = (counter(&plane, Counter::RateLimited), counter(&plane, Counter::PuntedFrom));
    assert!(dropped > 300, "{dropped}");
    assert_eq!(dropped + punted, 500);
    assert_eq!(seen.len() as u64, punted + 1);
}

#[test]
fn full_ring_drops_and_counts_and_the_other_ring_goes_on() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.sizes.ring_bytes = 1 << 17;
    config.limits.from_pu_per_sec = 10_000_000;
    let mut plane = lab.attached_with(config);
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

    for seq in 0..1000 {
        pu.send(&from_pu(SYN, seq, b"").packet());
    }
    peer.send(&to_pu(SYN, 1, b"").packet());
    let seen = take(&mut plane, 1000);

    let full = counter(&plane, Counter::RingFull);
    assert!(full > 300, "{full}");
    assert_eq!(seen.len() as u64 + full, 1001);
    assert_eq!(counter(&plane, Counter::PuntedTo), 1);
}

#[test]
fn one_unit_cannot_take_more_than_half_of_a_ring() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.sizes.ring_bytes = 1 << 17;
    config.limits.from_pu_per_sec = 400;
    let mut plane = lab.attached_with(config);
    let pu = lab.pu_wire();

    for seq in 0..1000 {
        pu.send(&from_pu(SYN, seq, &[7; 1000]).packet());
    }
    let seen = take(&mut plane, 1000);

    assert_eq!(counter(&plane, Counter::RingFull), 0);
    assert_eq!(counter(&plane, Counter::RateLimited) + seen.len() as u64, 1000);
    // A record of this size class takes 1,888 bytes; what the unit may always send comes on top.
    assert!((30..=60).contains(&seen.len()), "{}", seen.len());
}

#[test]
fn packets_of_every_size_class_arrive_whole() {
    let lab = Lab::new();
    for namespace in [&lab.pu, &lab.node] {
        let device = if std::ptr::eq(namespace, &lab.pu) { "eth0" } else { "host0" };
        run(namespace, "ip", &format!("link set {device} mtu 65535"));
    }
    let mut plane = lab.attached();
    let pu = lab.pu_wire();
    let sizes = [0, 88, 89, 600, 601, 1496, 1497, 16344, 16345, 65000];

    for size in sizes {
        let payload: Vec<u8> = (0..size).map(|n| u8::try_from(n % 253).unwrap()).collect();
        let packet = from_pu(ACK, 1, &payload).packet();
        pu.send(&packet);
        let seen = take(&mut plane, 1);
        assert!(seen[0].bytes == packet, "{size}");
    }
}

#[test]
fn made_packets_find_their_way_once_the_pu_has_spoken() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let (out, back) = (from_pu(ACK, 50, b"out"), to_pu(ACK, 60, b"back"));
    let batch = || {
        [(Toward::Network, &out), (Toward::Pu, &back)]
            .map(|(toward, segment)| Injection {
                slot: PU,
                toward,
                bytes: segment.packet(),
                gso_size: None,
                token: None,
            })
            .to_vec()
    };
    let mut first = batch();
    let nobody = plane.reinject(&mut first);
    assert_eq!((nobody.unaddressed, nobody.sent, first.len()), (2, 0, 0));

    pu.send(&from_pu(SYN, 1, b"").packet());
    take(&mut plane, 1);
    let report = plane.reinject(&mut batch());

    assert_eq!((report.sent, report.unaddressed, report.refused), (2, 0, 0));
    peer.expect(|frame| out.is(frame));
    pu.expect(|frame| back.is(frame));
    let stranger = Injection { slot: Slot(1), ..batch().remove(0) };
    assert_eq!(plane.reinject(&mut vec![stranger]).unattached, 1);
}

#[test]
fn large_made_packet_leaves_in_segments_that_fit() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    pu.send(&from_pu(SYN, 1, b"").packet());
    let token = {
        let mut token = None;
        plane.poll(Some(std::time::Duration::from_secs(1))).unwrap();
        plane.drain(1, |punt| token = Some(punt.token));
        token
    };
    let packet = from_pu(ACK, 100, &[0x5a; 4000]).packet();

    let injection =
        Injection { slot: PU, toward: Toward::Network, bytes: packet, gso_size: Some(1400), token };
    let report = plane.reinject(&mut vec![injection]);

    assert_eq!((report.sent, report.refused), (3, 0));
    for (seq, length) in [(100, 1400), (1500, 1400), (2900, 1200)] {
        let part = from_pu(ACK, seq, &vec![0x5a; length]);
        // The identification counts up, which the comparison leaves out.
        peer.expect(|frame| part.is(frame));
    }
}

#[test]
fn frame_on_the_injector_without_its_secret_is_dropped_and_counted() {
    let lab = Lab::new();
    let plane = lab.attached();
    // Whoever can put a frame on the far end's ingress: a redirect by the node's own traffic control.
    let links = run(&lab.node, "ip", "-o link show");
    let mut names = links.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim);
    let far = names.find(|name| name.starts_with("trj")).unwrap();
    run(&lab.node, "tc", "qdisc add dev up0 clsact");
    let wire = lab.peer_wire();
    let forged = run_redirect(&lab, far, &wire);

    let (_, none) = plane.counters().unwrap().pop().unwrap();
    assert_eq!(none.of(Counter::Forged), forged);
    assert_eq!(counter(&plane, Counter::Reinjected), 0);
}

/// Sends two frames, one too short for a trailer, through a redirect onto the ingress of `far`.
fn run_redirect(lab: &Lab, far: &str, wire: &Wire) -> u64 {
    run(
        &lab.node,
        "tc",
        &format!(
            "filter add dev up0 ingress protocol ip prio 1 u32 match u32 0 0 action mirred ingress redirect dev {far}"
        ),
    );
    wire.send(&to_pu(ACK, 1, b"sixteen bytes and more in here").packet());
    wire.send_raw(&[&[8, 0][..], &[0x45; 20]].concat());
    std::thread::sleep(std::time::Duration::from_millis(50));
    run(&lab.node, "tc", "filter del dev up0 ingress");
    2
}
