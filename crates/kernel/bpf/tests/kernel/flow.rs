//! The connection table, segment by segment.

use trireme_bpf::{Class, Connection, FlowKey, Hook, Plane, PuntReason, Role, SweepLimits};

use crate::lab::{Lab, PU, Seen, entry, from_pu, ghost_key, state, take, to_pu};
use crate::wire::{ACK, FIN, RST, SYN, Segment, Wire};

struct Bench {
    plane: Plane,
    pu: Wire,
    peer: Wire,
    /// Last: it removes what the plane leaves.
    _lab: Lab,
}

impl Bench {
    fn new() -> Self {
        let lab = Lab::new();
        let plane = lab.attached();
        let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
        Self { plane, pu, peer, _lab: lab }
    }

    fn with(entry: Connection) -> Self {
        let mut bench = Self::new();
        bench.plane.connection_insert(&key(), &entry).unwrap();
        bench
    }

    fn send(&self, segment: &Segment) {
        let wire = if segment.to.1 == 80 { &self.pu } else { &self.peer };
        wire.send(&segment.packet());
    }

    /// The segment reaches the other side without user space.
    #[track_caller]
    fn passes(&mut self, segment: &Segment) {
        self.send(segment);
        let wire = if segment.to.1 == 80 { &self.peer } else { &self.pu };
        wire.expect(|frame| segment.is(frame));
        assert_eq!(self.plane.drain(10, |_| {}), 0);
    }

    /// The segment goes to user space and nowhere else.
    #[track_caller]
    fn punts(&mut self, segment: &Segment, reason: PuntReason) -> Seen {
        self.send(segment);
        let mut seen = take(&mut self.plane, 1);
        assert_eq!(seen.len(), 1);
        let seen = seen.remove(0);
        assert_eq!(seen.reason, reason);
        assert_eq!(seen.hook, if segment.to.1 == 80 { Hook::FromPu } else { Hook::ToPu });
        assert_eq!(seen.bytes[12..], segment.packet()[12..]);
        let wire = if segment.to.1 == 80 { &self.peer } else { &self.pu };
        wire.expect_nothing(|frame| segment.is(frame));
        seen
    }

    fn count(&self) -> usize {
        self.plane.count_connections().unwrap()
    }
}

fn key() -> FlowKey {
    ghost_key(4000, 80)
}

fn initiator() -> Connection {
    Connection { role: Role::Initiator, confirmed: false, ..entry(1) }
}

/// A proof as it stands on the wire.
fn proof(mac: [u8; 16]) -> Vec<u8> {
    let mut payload = vec![0x54, 0x41, 0x50, 1, 3, 2, 0, 80];
    payload.resize(40, 0x11);
    payload.extend(mac);
    payload.resize(72, 0x22);
    payload.resize(80, 0);
    payload
}

#[test]
fn every_segment_without_an_entry_goes_to_user_space() {
    let mut bench = Bench::new();
    for flags in 0..=255 {
        bench.send(&from_pu(flags, 1, b"x"));
        bench.send(&to_pu(flags, 1, b""));
    }

    let seen = take(&mut bench.plane, 512);

    assert_eq!(seen.len(), 512);
    assert_eq!(seen.iter().filter(|punt| punt.hook == Hook::FromPu).count(), 256);
    for punt in &seen {
        let expected = if punt.bytes[33] & SYN != 0 { PuntReason::Syn } else { PuntReason::Miss };
        assert_eq!((punt.reason, punt.connection), (expected, None));
    }
    bench.peer.expect_nothing(|frame| frame[2] == 0x45 && frame[11] == 6);
    bench.pu.expect_nothing(|frame| frame[2] == 0x45 && frame[11] == 6);
}

#[test]
fn established_segments_pass_and_are_counted() {
    let mut bench = Bench::with(entry(1));

    bench.passes(&from_pu(ACK, 1, b"hello"));
    bench.passes(&to_pu(ACK, 1, b""));
    bench.passes(&to_pu(ACK, 1, b"hi"));

    let (found, activity) = bench.plane.connection(&key()).unwrap().unwrap();
    assert_eq!(found, entry(1));
    assert_eq!((activity.packets_from, activity.bytes_from), (1, 45));
    assert_eq!((activity.packets_to, activity.bytes_to), (2, 82));
    assert_eq!(bench.plane.connections().unwrap(), [(key(), found, activity)]);
    bench.punts(&Segment { from: (crate::lab::GHOST_PU, 4001), ..from_pu(ACK, 1, b"") }, PuntReason::Miss);
}

#[test]
fn syn_goes_to_user_space_whatever_the_table_says() {
    let mut bench = Bench::with(entry(1));
    for flags in [SYN, SYN | ACK] {
        assert_eq!(bench.punts(&from_pu(flags, 7, b""), PuntReason::Syn).connection, Some(entry(1)));
        assert_eq!(bench.punts(&to_pu(flags, 7, b""), PuntReason::Syn).connection, Some(entry(1)));
    }
    bench.punts(&from_pu(0, 7, b""), PuntReason::OddFlags);
    assert_eq!(bench.count(), 1);
}

#[test]
fn entry_of_another_epoch_goes_to_user_space_until_it_is_renewed() {
    let mut bench = Bench::with(entry(1));
    bench.plane.update(PU, state(2)).unwrap();

    let seen = bench.punts(&to_pu(ACK, 1, b"x"), PuntReason::StaleEpoch);
    assert_eq!(seen.connection, Some(entry(1)));
    bench.punts(&from_pu(FIN | ACK, 1, b""), PuntReason::StaleEpoch);

    bench.plane.connection_insert(&key(), &entry(2)).unwrap();
    bench.passes(&to_pu(ACK, 1, b"x"));
}

#[test]
fn duplicate_proof_is_taken_off_and_no_other_payload_is() {
    let mut bench = Bench::with(entry(1));

    bench.send(&to_pu(ACK, 1000, &proof([9; 16])));
    bench.pu.expect(|frame| to_pu(ACK, 1000, b"").is(frame));
    let mut merged = proof([9; 16]).to_vec();
    merged.extend(b"data that GRO has put behind it");
    bench.punts(&to_pu(ACK, 1000, &merged), PuntReason::ProofDuplicate);

    bench.passes(&to_pu(ACK, 1000, &proof([8; 16])));
    bench.passes(&to_pu(ACK, 1001, &proof([9; 16])));
    bench.passes(&to_pu(ACK, 1000, &proof([9; 16])[..79]));
    bench.passes(&from_pu(ACK, 1000, &proof([9; 16])));
    let mut other = proof([9; 16]);
    other[4] = 1;
    bench.passes(&to_pu(ACK, 1000, &other));
    let plain = Connection { class: Class::Address, ..entry(1) };
    bench.plane.connection_insert(&key(), &plain).unwrap();
    bench.passes(&to_pu(ACK, 1000, &proof([9; 16])));
}

#[test]
fn unconfirmed_initiator_proves_itself_until_the_responder_speaks() {
    let mut bench = Bench::with(initiator());

    bench.punts(&from_pu(ACK, 1000, b""), PuntReason::Unconfirmed);
    bench.passes(&from_pu(ACK, 1000, b"request"));
    let again = bench.punts(&from_pu(ACK, 1000, b"request"), PuntReason::Unconfirmed);
    assert_eq!(again.connection, Some(Connection { data_seen: true, ..initiator() }));
    bench.passes(&from_pu(ACK, 1007, b"more"));
    bench.punts(&from_pu(ACK, 1011, b""), PuntReason::Unconfirmed);

    bench.passes(&to_pu(ACK, 1, b""));

    assert!(bench.plane.connection(&key()).unwrap().unwrap().0.confirmed);
    bench.passes(&from_pu(ACK, 1011, b""));
    bench.passes(&from_pu(ACK, 1000, b"request"));
}

#[test]
fn fin_of_an_unconfirmed_initiator_passes_once_and_then_asks_for_the_proof() {
    let mut bench = Bench::with(initiator());

    bench.passes(&from_pu(FIN | ACK, 1000, b""));
    let again = bench.punts(&from_pu(FIN | ACK, 1000, b""), PuntReason::Unconfirmed);

    assert!(!again.closing);
    bench.passes(&to_pu(ACK, 1, b""));
    bench.passes(&from_pu(FIN | ACK, 1000, b""));
}

#[test]
fn blind_rst_cuts_nothing() {
    let mut bench = Bench::with(entry(1));

    bench.passes(&to_pu(RST, 99, b""));
    assert_eq!(bench.count(), 0);
    bench.passes(&to_pu(ACK, 1, b"goes on"));
    assert_eq!(bench.count(), 0);
    bench.passes(&from_pu(ACK, 1, b""));

    assert_eq!(bench.count(), 1);
    // The reset was told as the connection's end; what came behind it counts anew.
    assert_eq!(bench.plane.connection(&key()).unwrap().unwrap().1.packets_to, 1);
}

#[test]
fn blind_fin_cuts_nothing_and_a_half_closed_connection_stays_live() {
    let mut bench = Bench::with(entry(1));

    bench.passes(&to_pu(FIN | ACK, 50_000, b""));
    assert_eq!(bench.count(), 1);
    bench.passes(&from_pu(ACK, 1, b"goes on"));
    bench.passes(&from_pu(FIN | ACK, 8, b""));
    assert_eq!(bench.count(), 0);
    // Does not acknowledge the blind FIN: the PU still receives.
    bench.passes(&to_pu(ACK, 1, b"answer"));
    bench.passes(&from_pu(ACK, 9, b""));

    assert_eq!(bench.count(), 1);
}

#[test]
fn connection_closed_from_both_ends_stays_in_the_closing_table() {
    let mut bench = Bench::with(entry(1));

    bench.passes(&from_pu(FIN | ACK, 1, b""));
    assert_eq!(bench.count(), 1);
    bench.passes(&to_pu(FIN | ACK, 20, b"bye"));
    let last = Segment { ack: 24, ..from_pu(ACK, 2, b"") };
    bench.passes(&last);
    assert_eq!(bench.count(), 0);
    bench.passes(&to_pu(FIN | ACK, 20, b"bye"));
    bench.passes(&last);

    let seen = bench.punts(&from_pu(SYN, 1, b""), PuntReason::Syn);
    assert!(seen.closing);
    // The SYN has ended what was left of it.
    assert!(!bench.punts(&to_pu(FIN | ACK, 20, b"bye"), PuntReason::Miss).closing);
}

#[test]
fn closing_table_is_bounded_and_never_costs_an_established_connection() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.sizes.handshakes = 128;
    let plane = lab.attached_with(config);
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let mut bench = Bench { plane, pu, peer, _lab: lab };
    bench.plane.connection_insert(&key(), &entry(1)).unwrap();
    for port in 10_000..10_400 {
        bench.plane.connection_insert(&ghost_key(port, 80), &entry(1)).unwrap();
        let mut rst = from_pu(RST, 1, b"");
        rst.from.1 = port;
        bench.passes(&rst);
    }

    assert_eq!(bench.count(), 1);
    for port in 10_000..10_400 {
        let mut late = to_pu(ACK, 1, b"late");
        late.to.1 = port;
        bench.peer.send(&late.packet());
    }
    let known = 400 - take(&mut bench.plane, 400 - 128).len();
    assert!((1..=128).contains(&known), "{known}");
    bench.passes(&to_pu(ACK, 1, b"still here"));
}

#[test]
fn sweep_removes_what_is_silent() {
    let mut bench = Bench::with(entry(1));

    let nothing = bench.plane.sweep(&SweepLimits::default()).unwrap();
    assert_eq!((nothing.established, nothing.removed), (1, 0));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let limits = SweepLimits { idle: std::time::Duration::from_millis(1) };
    assert_eq!(bench.plane.sweep(&limits).unwrap().removed, 1);
    assert_eq!(bench.count(), 0);
}

#[test]
fn full_table_is_an_error_that_says_so() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.sizes.connections = 4;
    let mut plane = lab.attached_with(config);

    let results: Vec<_> =
        (0..200).map(|port| plane.connection_insert(&ghost_key(port, 80), &entry(1))).collect();

    let full = results.iter().find_map(|result| result.as_ref().err()).unwrap();
    assert_eq!(full.to_string(), "map connections is full: raise its size");
}
