//! What the engine says is in the maps as the programs read it, and goes with its PU.

use std::net::IpAddr;
use std::time::Duration;

use trireme_bpf::{
    Direction, FailMode, OwnTokenState, PairKeys, PeerState, Plane, PlaneError, PuState, RefusalState, Role,
    Slot, VerdictState,
};
use trireme_bpf_abi as abi;
use zerocopy::IntoBytes as _;

use crate::lab::{Lab, PU, entry, ghost_key, host_edge, state};

const PEER: PeerState =
    PeerState { slot: 3, generation: 4, until_wall_nanos: 5, key: [6; 16], own_key: [7; 16] };

fn read<K: zerocopy::FromBytes, V: zerocopy::FromBytes>(plane: &Plane, map: &str) -> Vec<(K, V)> {
    let entries = plane.dump(map).unwrap();
    entries.iter().map(|(k, v)| (K::read_from_bytes(k).unwrap(), V::read_from_bytes(v).unwrap())).collect()
}

fn teach(plane: &mut Plane, slot: Slot) {
    let remote: (IpAddr, u16) = ([10, 8, 0, 77].into(), 443);
    let verdict = VerdictState {
        slot,
        peer_slot: 3,
        generation: 4,
        direction: Direction::Egress,
        port: 443,
        epoch: 8,
        rule: 9,
        reason: 10,
    };
    plane.verdict_insert(&verdict).unwrap();
    plane.destination_insert(slot, remote, 8, Some(([1; 16], [2; 16]))).unwrap();
    let refusal = RefusalState {
        slot,
        port: 80,
        token: [3; 16],
        epoch: 8,
        rule: 9,
        reason: 10,
        until_wall_nanos: 11,
        peer_slot: 12,
        peer_generation: 13,
    };
    plane.refusal_insert(&refusal).unwrap();
    plane.set_reason(slot, 405, 99).unwrap();
}

#[test]
fn facts_are_laid_out_as_the_programs_read_them() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    teach(&mut plane, PU);
    plane.own_token_insert(&[1; 16], &[1, 2, 3], &[4]).unwrap();
    let keys = PairKeys { initiator: [21; 16], responder: [22; 16] };
    plane.pair_insert(&[1; 16], &[2; 16], Role::Responder, &keys).unwrap();

    let verdicts = read::<abi::VerdictKey, abi::Verdict>(&plane, "verdicts");
    let key =
        abi::VerdictKey { slot: 5, peer_slot: 3, port: 443_u16.to_be_bytes(), direction: 1, protocol: 6 };
    assert_eq!(verdicts, [(key, abi::Verdict { epoch: 8, generation: 4, rule: 9, reason: 10 })]);
    let destinations = read::<abi::DestinationKey, abi::Destination>(&plane, "destinations");
    assert_eq!(destinations[0].0.port, 443_u16.to_be_bytes());
    assert_eq!(destinations[0].0.address[10..], [255, 255, 10, 8, 0, 77]);
    let expected = abi::Destination { epoch: 8, pad: 0, peer: [1; 16], own_token: [2; 16] };
    assert_eq!(destinations[0].1, expected);
    let refusals = read::<abi::RefusalKey, abi::Refusal>(&plane, "refusals");
    assert_eq!(
        refusals[0].0,
        abi::RefusalKey { slot: 5, port: 80_u16.to_be_bytes(), pad: 0, token: [3; 16] }
    );
    assert_eq!((refusals[0].1.until, refusals[0].1.peer_generation), (11, 13));
    let tokens = read::<[u8; 16], abi::OwnToken>(&plane, "own_tokens");
    assert_eq!((tokens[0].0, tokens[0].1.len, tokens[0].1.token_len), ([1; 16], 4, 3));
    let pairs = read::<abi::PairKey, abi::Pair>(&plane, "pair_keys");
    assert_eq!(pairs[0].0, abi::PairKey { own: [1; 16], peer: [2; 16], role: 1, pad: 0 });
    assert_eq!((pairs[0].1.initiator, pairs[0].1.responder), ([21; 16], [22; 16]));
    let limits = read::<u32, abi::Limit>(&plane, "limits");
    assert_eq!(limits.iter().find(|(key, _)| *key == 5 * 4 + 3).unwrap().1.max, 1342);
    let quotas = read::<u32, abi::Quota>(&plane, "quotas");
    let ours: Vec<u32> = quotas.iter().filter(|(_, quota)| quota.max == 4096).map(|(key, _)| *key).collect();
    assert_eq!(ours, [10, 11]);

    assert!(plane.destination_remove(PU, ([10, 8, 0, 77].into(), 443)).unwrap());
    assert!(!plane.destination_remove(PU, ([10, 8, 0, 77].into(), 443)).unwrap());
    assert_eq!(plane.own_tokens().unwrap(), [[1; 16]]);
    assert!(plane.own_token_remove(&[1; 16]).unwrap());
    let long = plane.own_token_insert(&[1; 16], &[0; 1080], &[0]);
    assert!(matches!(long, Err(PlaneError::TooLong { length: 1081, .. })), "{long:?}");
}

#[test]
fn peer_keeps_the_renewal_that_was_tried_and_outlives_the_agent() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    plane.peer_insert(&[1; 16], &PEER).unwrap();
    let pin = format!("/sys/fs/bpf/trireme/{}/v{}/peers", lab.instance, abi::ABI_VERSION);
    let tried =
        abi::Peer { slot: 3, generation: 4, until: 5, key: [6; 16], own_key: [7; 16], tried_key: [8; 16] };
    let bytes: Vec<String> = tried.as_bytes().iter().map(u8::to_string).collect();
    let key = ["1"; 16].join(" ");
    crate::lab::run(
        &lab.node,
        "bpftool",
        &format!("map update pinned {pin} key {key} value {}", bytes.join(" ")),
    );

    plane.peer_insert(&[1; 16], &PeerState { generation: 9, ..PEER }).unwrap();

    let peers = read::<[u8; 16], abi::Peer>(&plane, "peers");
    assert_eq!((peers[0].1.generation, peers[0].1.tried_key), (9, [8; 16]));
    drop(plane);
    let mut plane = lab.open();
    assert_eq!(plane.peers().unwrap(), [([1; 16], PeerState { generation: 9, ..PEER })]);
    assert!(plane.peer_remove(&[1; 16]).unwrap());
    assert!(!plane.peer_remove(&[1; 16]).unwrap());
}

#[test]
fn full_table_of_peers_says_so() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.sizes.peers = 2;
    let mut plane = lab.open_with(config);
    plane.peer_insert(&[1; 16], &PEER).unwrap();
    plane.peer_insert(&[2; 16], &PEER).unwrap();

    let third = plane.peer_insert(&[3; 16], &PEER);

    assert!(matches!(third, Err(PlaneError::Full { map: "peers" })), "{third:?}");
}

#[test]
fn detached_pu_takes_everything_about_it_along_and_nothing_else() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    let other = Slot(6);
    for slot in [PU, other] {
        teach(&mut plane, slot);
        let key = trireme_bpf::FlowKey { slot, ..ghost_key(4000, 80) };
        plane.connection_insert(&key, &entry(1)).unwrap();
    }

    plane.detach(PU).unwrap();

    assert_eq!(plane.reasons().unwrap(), [(other, 405, 99)]);
    for map in ["verdicts", "destinations", "refusals", "connections"] {
        let keys = plane.dump(map).unwrap();
        assert_eq!(keys.len(), 1, "{map}");
        assert_eq!(keys[0].0[..3], 6_u32.to_ne_bytes()[..3], "{map}");
    }
    for map in ["pus", "edges"] {
        assert_eq!(plane.dump(map).unwrap(), [], "{map}");
    }
}

#[test]
fn state_and_reasons_are_found_again_by_the_next_agent() {
    let lab = Lab::new();
    let mut plane = lab.open();
    let own = OwnTokenState { token: [1; 16], key: [2; 16], until_wall_nanos: u64::MAX };
    let whole = PuState {
        fast: true,
        keep: true,
        fail: FailMode::LastKnown(Duration::from_secs(600)),
        own: [Some(own), None],
        ..state(3)
    };
    plane.attach(&host_edge(), PU, whole).unwrap();
    plane.set_reason(PU, 1, 2).unwrap();
    drop(plane);

    let plane = lab.open();

    assert_eq!(plane.edges()[0].state, whole);
    assert_eq!(plane.reasons().unwrap(), [(PU, 1, 2)]);
}
