//! The sign of life, and flow events.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use trireme_bpf::{Counter, Direction, EventPeer, EventReport, FailMode, PuState};

use crate::lab::{GHOST_PEER, GHOST_PU, Lab, PU, entry, from_pu, ghost_key, state, take, to_pu};
use crate::wire::{ACK, RST, SYN};

#[test]
fn silent_agent_counts_as_away_and_its_sign_of_life_brings_it_back() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let syn = from_pu(SYN, 1, b"");
    pu.send(&syn.packet());
    assert_eq!(take(&mut plane, 1).len(), 1);

    std::thread::sleep(Duration::from_millis(3100));
    pu.send(&syn.packet());
    peer.expect_nothing(|frame| syn.is(frame));
    assert_eq!(plane.drain(10, |_| {}), 0);
    assert_eq!(plane.counters().unwrap()[0].1.of(Counter::AgentDown), 1);
    plane.update(PU, PuState { fail: FailMode::Open, ..state(1) }).unwrap();
    pu.send(&syn.packet());
    peer.expect(|frame| syn.is(frame));

    plane.beat().unwrap();
    pu.send(&syn.packet());
    assert_eq!(take(&mut plane, 1).len(), 1);
}

#[test]
fn end_of_a_connection_is_told_once_with_its_traffic() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    plane.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    let (data, reset) = (to_pu(ACK, 1, b"data"), from_pu(RST, 1, b""));
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    peer.send(&data.packet());
    pu.expect(|frame| data.is(frame));
    pu.send(&reset.packet());
    peer.expect(|frame| reset.is(frame));

    let mut told = Vec::new();
    // The map that is written to is not read yet.
    assert!(!plane.take_events(|event| told.push(event)).unwrap());
    assert_eq!(told, []);
    assert!(!plane.take_events(|event| told.push(event)).unwrap());
    plane.take_events(|event| told.push(event)).unwrap();
    plane.take_events(|event| told.push(event)).unwrap();

    assert_eq!(told.len(), 1, "{told:?}");
    let first = u128::from(told[0].first_wall_nanos);
    assert!(first > before - 1_000_000_000 && first < before + 60_000_000_000, "{first} {before}");
    let expected = EventReport {
        slot: PU,
        peer: EventPeer::Known(3, 1),
        direction: Direction::Ingress,
        port: 4000,
        reason: 0,
        rule: told[0].rule,
        local: IpAddr::from(GHOST_PU),
        remote: IpAddr::from(GHOST_PEER),
        starts: 0,
        refused: 0,
        ends: 1,
        packets_from: 1,
        bytes_from: 40,
        packets_to: 1,
        bytes_to: 44,
        first_wall_nanos: told[0].first_wall_nanos,
        last_wall_nanos: told[0].last_wall_nanos,
    };
    assert_eq!(told[0], expected);
}

#[test]
fn many_events_are_told_in_turns_and_none_is_lost() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let pu = lab.pu_wire();
    for port in 1000..3000 {
        let key = trireme_bpf::FlowKey { local: (GHOST_PU.into(), port), ..ghost_key(0, 80) };
        plane.connection_insert(&key, &entry(1)).unwrap();
        let reset = crate::wire::Segment { from: (GHOST_PU, port), ..from_pu(RST, 1, b"") };
        pu.send(&reset.packet());
    }
    while plane.count_connections().unwrap() != 0 {
        std::thread::sleep(Duration::from_millis(1));
    }

    let (mut ends, mut ports, mut rounds) = (0, std::collections::BTreeSet::new(), 0);
    while rounds < 3 {
        let more = plane
            .take_events(|event| {
                ends += event.ends;
                ports.insert(event.port);
            })
            .unwrap();
        rounds += usize::from(!more);
    }

    let lost = plane.counters().unwrap()[0].1.of(Counter::FlowLost);
    assert_eq!((ends, ports.len(), lost), (2000, 2000, 0));
}
