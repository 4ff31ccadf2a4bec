use trireme_bpf::{Class, Slot};

use super::*;

fn report() -> EventReport {
    EventReport {
        slot: Slot(4),
        peer: EventPeer::Refused(5, 6),
        direction: trireme_bpf::Direction::Ingress,
        port: 80,
        reason: Reason::PolicyIngress.code(),
        rule: 0,
        local: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 2].into(),
        starts: 1,
        refused: 2,
        ends: 3,
        packets_from: 4,
        bytes_from: 5,
        packets_to: 6,
        bytes_to: 7,
        first_wall_nanos: 8_999_999_999,
        last_wall_nanos: 9_000_000_000,
    }
}

#[test]
fn an_event_means_the_same_to_the_engine() {
    let told = event(&report()).unwrap();
    assert_eq!((told.pu, told.peer, told.port), (PuSlot(4), PeerPlace::Refused(5, 6), 80));
    assert_eq!((told.direction, told.reason, told.rule), (Direction::Ingress, Reason::PolicyIngress, None));
    assert_eq!((told.starts, told.refused, told.ends), (1, 2, 3));
    assert_eq!(told.traffic, Traffic { packets_from: 4, bytes_from: 5, packets_to: 6, bytes_to: 7 });
    assert_eq!((told.first, told.last), (WallTime(8), WallTime(9)));
    assert_eq!(event(&EventReport { reason: 9, ..report() }), None);
    let ruled = event(&EventReport { rule: 3, peer: EventPeer::None, ..report() }).unwrap();
    assert_eq!((ruled.rule, ruled.peer), (Some(3), PeerPlace::None));
}

#[test]
fn a_silent_connection_ends_at_the_port_that_policy_judged() {
    let key =
        FlowKey { slot: Slot(1), local: ([10, 0, 0, 1].into(), 40_000), remote: ([10, 0, 0, 2].into(), 443) };
    let connection = Connection {
        role: Role::Initiator,
        class: Class::Identity,
        epoch: 1,
        peer_token: [1; 16],
        peer_slot: 2,
        peer_generation: 3,
        attested: Some(([10, 0, 1, 9].into(), 8443)),
        proof_seq: 0,
        proof_mac: [0; 16],
        confirmed: true,
        data_seen: false,
        syn_ack: 0,
    };
    let activity = Activity { bytes_to: 9, ..Activity::default() };
    let end = fell_silent(&key, &connection, &activity, WallTime(7));
    assert_eq!((end.direction, end.port, end.peer), (Direction::Egress, 8443, PeerPlace::Known(2, 3)));
    assert_eq!((end.ends, end.traffic.bytes_to, end.last), (1, 9, WallTime(7)));
    let plain = Connection {
        role: Role::Responder,
        peer_slot: trireme_flow::NO_PEER_SLOT,
        attested: None,
        ..connection
    };
    let end = fell_silent(&key, &plain, &activity, WallTime(7));
    assert_eq!((end.direction, end.port, end.peer), (Direction::Ingress, 40_000, PeerPlace::None));
}

#[test]
fn times_reach_the_kernel_in_nanoseconds() {
    let attachment = OwnAttachment {
        id: TokenId([1; 16]),
        key: KeyName([2; 16]),
        until: WallTime(3),
        token: Vec::new().into(),
        credential: Vec::new().into(),
    };
    assert_eq!(own_token(&attachment).until_wall_nanos, 3_000_000_000);
    let state = peer((1, 2), WallTime(u64::MAX), KeyName([3; 16]), KeyName([4; 16]));
    assert_eq!((state.slot, state.generation, state.until_wall_nanos), (1, 2, u64::MAX));
    assert_eq!((state.key, state.own_key), ([3; 16], [4; 16]));
}
