//! Replayed, reflected and spoofed segments.

use std::time::Duration;

use trireme_flow::Reason;
use trireme_wire::build::TcpSpec;
use trireme_wire::edit;
use trireme_wire::tcp::Flags;

use crate::support::*;

#[test]
fn replayed_syn_ack_is_dropped() {
    let mut pair = Pair::new();
    let [_, old, _] = pair.connect();
    pair.wait(Duration::from_secs(120));
    pair.client.timeout(pair.now);
    pair.client_sends(&syn()).sent();
    assert_eq!(pair.client_gets(&old).silence(), Reason::MacInvalid);
    assert!(pair.client.table.is_empty());
}

#[test]
fn replayed_syn_and_proof_admit_nothing() {
    let mut pair = Pair::new();
    let [syn_wire, _, proof] = pair.connect();
    pair.wait(Duration::from_secs(120));
    pair.server.timeout(pair.now);
    pair.server.table.clear();
    assert_eq!(pair.server_gets(&syn_wire).got(), syn(), "costs one half-open handshake");
    pair.server_sends(&syn_ack()).sent();
    assert_eq!(pair.server_gets(&proof).silence(), Reason::NonceMismatch);
    assert!(pair.server.table.is_empty());
}

#[test]
fn a_replayed_syn_makes_nobody_prove_a_connection_that_its_unit_never_opened() {
    let mut pair = Pair::new();
    let [syn_wire, ..] = pair.connect();
    // Both units have closed; the enforcers still remember the handshake.
    pair.server_gets(&syn_wire).got();
    let answer = pair.server_sends(&syn_ack_with(777, CLIENT_ISN)).sent();
    assert_eq!(pair.client_gets(&answer).silence(), Reason::NonceMismatch);

    let mut pair = Pair::new();
    let syn_wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&syn_wire).got();
    let answer = pair.server_sends(&syn_ack()).sent();
    for _ in 0..3 {
        let step = pair.client_gets(&answer);
        assert_eq!((step.unit.len(), step.network.len()), (1, 0), "the unit has not taken it");
    }
}

#[test]
fn a_stale_established_entry_and_a_replayed_syn_admit_no_data() {
    let mut pair = Pair::new();
    let [syn_wire, _, proof] = pair.connect();
    // The unit's stack has forgotten the connection, the kernel's table has not.
    assert_eq!(pair.server_gets(&syn_wire).got(), syn());
    assert_eq!(pair.server.table.len(), 1, "an arriving SYN ends nothing");
    let answer = pair.server_sends(&syn_ack_with(777, CLIENT_ISN)).sent();
    assert!(pair.server.table.is_empty(), "the leaving SYN-ACK ends it");
    assert_eq!(pair.server_gets(&proof).silence(), Reason::NonceMismatch);
    assert_eq!(pair.server_gets(&data(b"evil")), Step::default());
    pair.wait(Duration::from_millis(50));
    assert_eq!(pair.server.timeout(pair.now).unit, Vec::<Vec<u8>>::new());
    assert!(tap(&answer).nonce != [0; 16]);
}

#[test]
fn a_retransmitted_syn_ack_of_the_same_connection_does_not_end_it() {
    let mut pair = Pair::new();
    let [_, syn_ack_wire, _] = pair.connect();
    assert_eq!(tap(&pair.server_sends(&syn_ack()).sent()).nonce, tap(&syn_ack_wire).nonce);
    assert_eq!(pair.server.table.len(), 1);
}

#[test]
fn a_leaving_syn_ends_the_tuples_entry() {
    let mut pair = Pair::new();
    pair.connect();
    pair.client_sends(&syn_with(1234)).sent();
    assert!(pair.client.table.is_empty());
    assert_eq!(pair.client.writes.last(), Some(&Write::Remove(client_key())));
}

#[test]
fn an_arriving_syn_never_ends_an_entry() {
    let mut pair = Pair::new();
    pair.connect();
    let other = Pair::new().client_sends(&syn_with(1234)).sent();
    pair.server_gets(&other);
    assert_eq!(pair.server.table.len(), 1);
    pair.assert_talking();
}

#[test]
fn spoofed_syn_never_evicts_a_live_half_open() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    // Same tuple and sequence number, another nonce; other sequence numbers.
    let same = Pair::with(trireme_datapath::EngineConfig::default(), other_client(), server_spec())
        .client_sends(&syn())
        .sent();
    assert_eq!(pair.server_gets(&same).silence(), Reason::NonceMismatch);
    for isn in 0..100 {
        let mut spoofed = wire.clone();
        edit::set_seq(&mut spoofed, isn).unwrap();
        pair.server_gets(&spoofed);
    }
    let wire = pair.server_sends(&syn_ack()).sent();
    pair.client_gets(&wire).got();
    let wire = pair.client_sends(&ack()).sent();
    assert_eq!(pair.server_gets(&wire).got(), ack());
}

fn other_client() -> trireme_datapath::PuSpec {
    spec(CLIENT, "other", &["role=frontend", "n=2"], &trireme_policy::PuPolicy::unrestricted())
}

#[test]
fn blind_rst_does_not_remove_state() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let blind = segment(&from_client(12_345, 0, Flags::RST));
    assert_eq!(pair.server_gets(&blind).silence(), Reason::ResetUnproven);
    let wire = pair.server_sends(&syn_ack()).sent();
    assert_eq!(pair.server_gets(&blind).silence(), Reason::ResetUnproven);
    let towards_client = segment(&from_server(0, 4242, Flags(0x14)));
    assert_eq!(pair.client_gets(&towards_client).silence(), Reason::ResetUnproven);
    pair.client_gets(&wire).got();
    let wire = pair.client_sends(&ack()).sent();
    pair.server_gets(&wire).got();
    assert_eq!(pair.server_gets(&blind).got(), blind, "established: the stack judges it");
    assert_eq!(pair.server.table.len(), 1);
    pair.assert_talking();
}

#[test]
fn a_responder_left_in_an_older_connection_is_reset_by_the_units_stack() {
    let mut pair = Pair::new();
    pair.connect();
    pair.client_sends(&syn_with(900)).sent();
    // The responder goes on with the old connection; no data of it reaches a unit that waits for a SYN-ACK.
    let old = server_data(b"old");
    let got = pair.client_gets(&old).got();
    assert_eq!((payload(&got), got.len()), (&b""[..], old.len() - 3));
    let reset = segment(&from_client(next(), 0, Flags::RST));
    assert_eq!(pair.client_sends(&reset).sent(), reset);
    let right = segment(&TcpSpec { payload: b"new", ..from_server(1, 901, PSH_ACK) });
    assert_eq!(pair.client_gets(&right).silence(), Reason::Stray);
}

#[test]
fn a_reflected_message_is_of_no_use() {
    let mut pair = Pair::new();
    let syn_wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&syn_wire).got();
    let syn_ack_wire = pair.server_sends(&syn_ack()).sent();
    let reflected = with_payload(&syn_ack(), payload(&syn_wire));
    assert_eq!(pair.client_gets(&reflected).silence(), Reason::TapUnexpected);
    let moved = with_payload(&ack(), payload(&syn_ack_wire));
    assert_eq!(pair.server_gets(&moved).silence(), Reason::TapUnexpected);
}

#[test]
fn a_stolen_token_makes_no_answer() {
    let mut pair = Pair::new();
    pair.connect();
    let stolen = pair.server_sends(&syn_ack()).sent();
    pair.wait(Duration::from_secs(120));
    pair.client.timeout(pair.now);
    pair.client_sends(&syn_with(7)).sent();
    let forged = with_payload(&syn_ack_with(SERVER_ISN, 7), payload(&stolen));
    assert_eq!(pair.client_gets(&forged).silence(), Reason::MacInvalid);
}

#[test]
fn stripping_identity_from_the_answer_of_an_authenticated_responder_is_refused() {
    let mut pair = Pair::new();
    pair.open();
    assert_eq!(pair.client_gets(&syn_ack()).silence(), Reason::IdentityStripped);
}

#[test]
fn stray_data_and_ack_scans_are_dropped_with_a_reason() {
    let mut pair = Pair::new();
    for flags in [Flags::ACK, PSH_ACK, Flags(0x11), Flags::RST, Flags(0x14)] {
        let stray = segment(&from_client(1, 2, flags));
        assert_eq!(pair.server_gets(&stray).silence(), Reason::Stray, "{flags}");
        assert_eq!(pair.client_sends(&stray).silence(), Reason::Stray, "{flags}");
    }
    assert_eq!(pair.client_gets(&syn_ack()).silence(), Reason::Stray);
    assert_eq!(pair.server_sends(&syn_ack()).silence(), Reason::Stray);
    assert_eq!(pair.server.count(SERVER, Reason::Stray), 6);
    assert!(pair.server.records.iter().all(|record| record.reason == Reason::Stray));
}
