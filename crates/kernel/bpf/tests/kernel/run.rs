//! Programs run on single frames.

use trireme_bpf::{Counter, Hook};

use crate::lab::{Lab, entry, from_pu, ghost_key, take};
use crate::wire::{ACK, SYN};

#[test]
fn frame_is_judged_as_if_it_had_come_along() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    plane.connection_insert(&ghost_key(4000, 80), &entry(1)).unwrap();
    let ifindex = plane.edges()[0].ifindex;
    let frame = |flags| {
        let ethernet =
            [[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0].as_slice(), &from_pu(flags, 1, b"x").packet()];
        ethernet.concat()
    };

    let passed = plane.test_run(Hook::FromPu, ifindex, &frame(ACK)).unwrap();
    assert_eq!(passed, (-1, frame(ACK)));
    assert_eq!(plane.connection(&ghost_key(4000, 80)).unwrap().unwrap().1.packets_from, 1);

    let (consumed, _) = plane.test_run(Hook::FromPu, ifindex, &frame(SYN)).unwrap();
    assert_eq!(consumed, 7);
    assert_eq!(take(&mut plane, 1).len(), 1);

    let (dropped, _) = plane.test_run(Hook::FromPu, 1, &frame(ACK)).unwrap();
    assert_eq!(dropped, 2);
    assert_eq!(plane.counters().unwrap().last().unwrap().1.of(Counter::NoOwner), 1);
    assert!(plane.test_run(Hook::FromPu, 999, &frame(ACK)).is_err());
}
