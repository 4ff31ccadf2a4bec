//! The proof: repeated until confirmed, in front of data, never too late.

use std::time::Duration;

use trireme_flow::Reason;
use trireme_wire::build::TcpSpec;
use trireme_wire::tap::Kind;
use trireme_wire::tcp::{Flags, Segment};

use crate::support::*;

const FIN_ACK: Flags = Flags(0x11);

#[test]
fn the_proof_repeats_on_every_empty_ack_until_the_responder_is_heard() {
    let mut pair = Pair::new();
    pair.open();
    let first = pair.client_sends(&ack()).sent();
    for _ in 0..3 {
        assert_eq!(pair.client_sends(&ack()).sent(), first, "lost");
    }
    pair.server_gets(&first).got();
    let reply = server_data(b"220 hello");
    let wire = pair.server_sends(&reply).sent();
    assert_eq!(pair.client_gets(&wire).got(), reply);
    assert_eq!(pair.client_sends(&ack()).sent(), ack(), "confirmed: nothing attached any more");
}

#[test]
fn an_empty_ack_behind_data_gets_the_proof_in_front_at_its_own_place() {
    let mut pair = Pair::new();
    pair.open();
    let later = segment(&from_client(next().wrapping_add(4), SERVER_ISN + 1, Flags::ACK));
    let step = pair.client_sends(&later);
    assert_eq!((step.network.len(), &step.network[1]), (2, &later));
    let proof = Segment::parse(&step.network[0]).unwrap();
    assert_eq!((proof.seq, tap(&step.network[0]).kind()), (next(), Kind::Ack));
}

#[test]
fn first_data_without_an_ack_before_it_gets_the_proof_in_front() {
    let mut pair = Pair::new();
    pair.open();
    let options = [1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6];
    let spec =
        TcpSpec { options: &options, payload: b"GET /", ..from_client(next(), SERVER_ISN + 1, PSH_ACK) };
    let request = segment(&spec);
    let step = pair.client_sends(&request);
    let [proof, wire] = step.network.as_slice() else { panic!("{step:?}") };
    assert_eq!(wire, &request);
    let sent = Segment::parse(proof).unwrap();
    assert_eq!((sent.seq, sent.ack, sent.flags), (next(), SERVER_ISN + 1, Flags::ACK));
    assert_eq!(sent.options(proof).as_bytes(), options, "the timestamp and nothing else");
    pair.server_gets(proof).got();
    assert_eq!(pair.server_gets(wire).got(), request);
}

#[test]
fn data_seen_a_second_time_before_confirmation_gets_the_proof_again() {
    let mut pair = Pair::new();
    pair.open();
    pair.client_sends(&ack()).sent();
    assert_eq!(pair.client_sends(&data(b"x")).sent(), data(b"x"), "the proof left with the ACK");
    let step = pair.client_sends(&data(b"x"));
    assert_eq!((step.network.len(), tap(&step.network[0]).kind()), (2, Kind::Ack));
    pair.server_gets(&step.network[0]).got();
    assert_eq!(pair.server_gets(&step.network[1]).got(), data(b"x"));
}

#[test]
fn fin_counts_as_data() {
    let mut pair = Pair::new();
    pair.open();
    let fin = segment(&from_client(next(), SERVER_ISN + 1, FIN_ACK));
    let step = pair.client_sends(&fin);
    assert_eq!((step.network.len(), tap(&step.network[0]).kind()), (2, Kind::Ack));
    pair.server_gets(&step.network[0]).got();
    assert_eq!(pair.server_gets(&step.network[1]).got(), fin);
}

#[test]
fn a_retransmitted_syn_ack_is_answered_with_the_proof_though_the_stack_has_moved_on() {
    let mut pair = Pair::new();
    pair.open();
    pair.client_sends(&ack()).sent();
    pair.client_sends(&segment(&from_client(next(), SERVER_ISN + 1, FIN_ACK))).sent();
    let again = pair.server_sends(&syn_ack()).sent();
    let step = pair.client_gets(&again);
    assert_eq!(step.unit, [syn_ack()]);
    let proof = Segment::parse(&step.network[0]).unwrap();
    assert_eq!((proof.seq, proof.ack, proof.window), (next(), SERVER_ISN + 1, 64_240 >> 7));
    assert_eq!(pair.server_gets(&step.network[0]).unit.len(), 1);
    assert_eq!(pair.server.count(SERVER, Reason::Accepted), 1);
}

#[test]
fn data_before_the_proof_is_held_and_released_behind_it() {
    let mut pair = Pair::new();
    pair.open();
    let proof = pair.client_sends(&ack()).sent();
    let first = pair.client_sends(&data(b"one")).sent();
    let second =
        segment(&TcpSpec { payload: b"two", ..from_client(next().wrapping_add(3), SERVER_ISN + 1, PSH_ACK) });
    assert_eq!(pair.server_gets(&first), Step::default());
    assert_eq!(pair.server_gets(&second), Step::default());
    assert_eq!((pair.server.stats().held_packets, pair.server.table.len()), (2, 0));
    let step = pair.server_gets(&proof);
    assert_eq!((step.unit, step.dropped), (vec![ack(), data(b"one"), second], None));
    assert_eq!(pair.server.stats().held_bytes, 0);
}

#[test]
fn data_whose_proof_does_not_follow_is_dropped_with_a_reason() {
    let mut pair = Pair::new();
    pair.open();
    assert_eq!(pair.server_gets(&data(b"one")), Step::default());
    pair.wait(Duration::from_millis(49));
    assert_eq!(pair.server.timeout(pair.now), Step::default());
    assert_eq!(pair.server.count(SERVER, Reason::ProofMissing), 0);
    pair.wait(Duration::from_millis(1));
    pair.server.timeout(pair.now);
    assert_eq!(pair.server.count(SERVER, Reason::ProofMissing), 1);
    assert_eq!(pair.server.stats().held_packets, 0);
    let record = pair.server.records.last().unwrap();
    assert_eq!(
        (record.reason, record.source.tags.to_string()),
        (Reason::ProofMissing, "role=frontend".into())
    );
}

#[test]
fn held_data_is_bounded_per_flow() {
    let mut pair = Pair::new();
    pair.open();
    for _ in 0..32 {
        assert_eq!(pair.server_gets(&data(b"x")), Step::default());
    }
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::HeldFull);
}

#[test]
fn an_ack_without_proof_opens_nothing() {
    let mut pair = Pair::new();
    pair.open();
    assert_eq!(pair.server_gets(&ack()).silence(), Reason::ProofMissing);
    assert!(pair.server.table.is_empty());
}

#[test]
fn a_late_duplicate_of_the_proof_is_stripped() {
    let mut pair = Pair::new();
    let [.., proof] = pair.connect();
    pair.assert_talking();
    assert_eq!(pair.server_gets(&proof).got(), ack());
    pair.server.table.clear();
    assert_eq!(pair.server_gets(&proof).got(), ack(), "the entry had not reached the kernel yet");
    assert_eq!(pair.server.count(SERVER, Reason::Accepted), 1);
}

#[test]
fn a_stream_that_begins_with_the_magic_passes_unharmed() {
    let mut pair = Pair::new();
    let [.., proof] = pair.connect();
    let mut stream = payload(&proof).to_vec();
    stream[50] ^= 1;
    let wire = pair.client_sends(&data(&stream)).sent();
    assert_eq!(pair.server_gets(&wire).got(), data(&stream));
    pair.server.table.clear();
    assert_eq!(pair.server_gets(&wire).got(), data(&stream));
}

#[test]
fn a_segment_merged_behind_the_proof_is_dropped_and_comes_again() {
    let mut pair = Pair::new();
    pair.open();
    let proof = pair.client_sends(&ack()).sent();
    let mut merged = payload(&proof).to_vec();
    merged.extend_from_slice(b"GET /");
    assert_eq!(pair.server_gets(&with_payload(&proof, &merged)).silence(), Reason::TapMalformed);
    pair.server_gets(&proof).got();
}

#[test]
fn a_proof_at_another_place_opens_nothing() {
    let mut pair = Pair::new();
    pair.open();
    let proof = pair.client_sends(&ack()).sent();
    let elsewhere = segment(&TcpSpec {
        payload: payload(&proof),
        ..from_client(next().wrapping_add(1), SERVER_ISN + 1, Flags::ACK)
    });
    assert_eq!(pair.server_gets(&elsewhere), Step::default(), "held like any data");
    assert!(pair.server.table.is_empty());
}

#[test]
fn with_multipath_tcp_a_proof_of_the_enforcer_is_consumed() {
    let mut pair = Pair::new();
    let options = [30, 4, 1, 0];
    let syn = segment(&TcpSpec { options: &options, ..from_client(CLIENT_ISN, 0, Flags::SYN) });
    let wire = pair.client_sends(&syn).sent();
    pair.server_gets(&wire).got();
    let wire = pair.server_sends(&syn_ack()).sent();
    pair.client_gets(&wire).got();
    let step = pair.client_sends(&data(b"x"));
    let proof = pair.server_gets(&step.network[0]);
    assert_eq!((proof.unit.len(), proof.dropped), (0, Some(Reason::Consumed)));
    assert_eq!(pair.server_gets(&step.network[1]).got(), data(b"x"));
}

#[test]
fn a_proof_that_stays_unconfirmed_frees_the_conntrack_entry_once() {
    let mut pair = Pair::new();
    pair.open();
    for sent in 1..=6 {
        pair.client_sends(&ack()).sent();
        assert_eq!(pair.client.forgotten.len(), usize::from(sent >= 3), "after {sent}");
    }
    assert_eq!((pair.client.forgotten[0].src, pair.client.forgotten[0].dst), (client_end(), server_end()));
}

#[test]
fn the_initiators_reset_passes_before_confirmation() {
    let mut pair = Pair::new();
    pair.open();
    let reset = segment(&from_client(next(), 0, Flags::RST));
    assert_eq!(pair.client_sends(&reset).sent(), reset);
    assert_eq!(pair.server_gets(&reset).got(), reset, "the handshake is known");
}
