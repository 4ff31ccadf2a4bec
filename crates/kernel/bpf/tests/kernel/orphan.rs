//! Handshakes without an agent that could go on with them: handed to one that is gone, or met by an older connection.

use std::time::Duration;

use trireme_bpf::{OwnTokenState, PairKeys, PeerState, Plane, PuState, PuntReason, Role};

use crate::lab::{GHOST_PEER, Lab, PU, from_pu, host_edge, state, take, to_pu};
use crate::wire::{ACK, RST, SYN, Segment};

const EPOCH: u32 = 1;
const TOKEN: [u8; 16] = [1; 16];
const NEWEST: OwnTokenState = own([11; 16], [12; 16]);
const KNOWN: OwnTokenState = own([21; 16], [22; 16]);
/// Longer than the programs wait for a sign of life.
const AWAY: Duration = Duration::from_millis(3300);

const fn own(token: [u8; 16], key: [u8; 16]) -> OwnTokenState {
    OwnTokenState { token, key, until_wall_nanos: u64::MAX }
}

/// The PU knows a peer, but not yet by its newest key: the first SYN is handed to the agent to show that.
fn handed_over(lab: &Lab) -> (Plane, Segment) {
    let mut plane = lab.open();
    let fast = PuState { fast: true, own: [Some(NEWEST), Some(KNOWN)], ..state(EPOCH) };
    plane.attach(&host_edge(), PU, fast).unwrap();
    for token in [NEWEST.token, KNOWN.token] {
        plane.own_token_insert(&token, &[1, 2, 3], &[]).unwrap();
    }
    let peer =
        PeerState { slot: 3, generation: 4, until_wall_nanos: u64::MAX, key: [6; 16], own_key: KNOWN.key };
    plane.peer_insert(&TOKEN, &peer).unwrap();
    let keys = PairKeys { initiator: [31; 16], responder: [32; 16] };
    plane.pair_insert(&KNOWN.key, &peer.key, Role::Initiator, &keys).unwrap();
    plane.destination_insert(PU, (GHOST_PEER.into(), 80), EPOCH, Some((TOKEN, KNOWN.token))).unwrap();
    let syn = from_pu(SYN, 1000, b"");
    lab.pu_wire().send(&syn.packet());
    assert_eq!(reasons(&mut plane), [PuntReason::Renewal]);
    (plane, syn)
}

fn reasons(plane: &mut Plane) -> Vec<PuntReason> {
    take(plane, 1).into_iter().map(|seen| seen.reason).collect()
}

/// The SYN with a message of the programs' behind it reaches the peer.
fn leaves_with_identity(lab: &Lab, syn: &Segment) {
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let bare = syn.packet();
    pu.send(&bare);
    peer.expect(|frame| frame.len() > 2 + bare.len() + 40 && frame[22..30] == bare[20..28]);
}

#[test]
fn a_repeated_syn_follows_the_first_to_the_agent_that_has_it() {
    let lab = Lab::new();
    let (mut plane, syn) = handed_over(&lab);
    for _ in 0..2 {
        lab.pu_wire().send(&syn.packet());
        assert_eq!(reasons(&mut plane), [PuntReason::Syn]);
    }
}

#[test]
fn a_repeated_syn_goes_on_without_an_agent_that_was_replaced() {
    let lab = Lab::new();
    let (plane, syn) = handed_over(&lab);
    drop(plane);
    let mut plane = lab.open();
    leaves_with_identity(&lab, &syn);
    assert_eq!(plane.drain(10, |_| {}), 0, "nothing is asked");
}

#[test]
fn a_repeated_syn_goes_on_without_an_agent_that_is_away() {
    let lab = Lab::new();
    let (mut plane, syn) = handed_over(&lab);
    std::thread::sleep(AWAY);
    leaves_with_identity(&lab, &syn);
    assert_eq!(plane.drain(10, |_| {}), 0, "nothing is asked");
}

#[test]
fn an_older_connection_of_the_peer_is_cleared_without_an_agent() {
    let lab = Lab::new();
    let (plane, syn) = handed_over(&lab);
    drop(plane);
    let mut plane = lab.open();
    leaves_with_identity(&lab, &syn);
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());

    // What acknowledges the SYN is none of an older connection, and what carries data is nothing for the unit.
    for odd in [Segment { ack: 1001, ..to_pu(ACK, 70, b"") }, Segment { ack: 77, ..to_pu(ACK, 70, b"data") }]
    {
        peer.send(&odd.packet());
        assert_eq!(reasons(&mut plane).len(), 1);
        pu.expect_nothing(|frame| odd.is(frame));
        leaves_with_identity(&lab, &syn);
    }
    let challenge = Segment { ack: 77, ..to_pu(ACK, 70, b"") };
    peer.send(&challenge.packet());
    pu.expect(|frame| challenge.is(frame));
    let reset = from_pu(RST, 77, b"");
    pu.send(&reset.packet());
    peer.expect(|frame| reset.is(frame));
    assert_eq!(plane.drain(10, |_| {}), 0, "nothing is asked");
}

#[test]
fn what_has_waited_for_a_second_is_not_judged_any_more() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    lab.pu_wire().send(&from_pu(SYN, 1000, b"").packet());
    std::thread::sleep(Duration::from_millis(1100));
    plane.beat().unwrap();
    assert_eq!((reasons(&mut plane), plane.stale()), (Vec::new(), 1));
}
