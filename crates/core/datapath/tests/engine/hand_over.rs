//! Handshakes that a back end began by what it was taught, and hands over.

use std::sync::Arc;

use trireme_datapath::{HalfOpenEntry, Lesson, OwnAttachment, Party, SynHeader};
use trireme_flow::{ConnectionClass, ConnectionEntry, Reason};
use trireme_handshake::message::{self, Seal, Sender};
use trireme_identity::Protocol;
use trireme_policy::{PuPolicy, Ruleset};
use trireme_token::{Nonce, PairKeys, Role, TokenId};
use trireme_wire::ip::Family;
use trireme_wire::tap::{Attested, Flags as TapFlags, Kind};
use trireme_wire::tcp::{Flags, Segment};

use crate::support::*;

const ISN: u32 = 1000;
const NI: Nonce = Nonce([0x11; 16]);
const NR: Nonce = Nonce([0x22; 16]);

/// What the back ends of both nodes have learned.
struct Facts {
    client: OwnAttachment,
    server: OwnAttachment,
    client_keys: Arc<PairKeys>,
    server_keys: Arc<PairKeys>,
}

fn own(node: &Node) -> OwnAttachment {
    let told = node.lessons.iter().rev().find_map(|lesson| {
        let Lesson::OwnTokens { tokens, .. } = lesson else { return None };
        tokens.first().cloned()
    });
    told.unwrap()
}

fn keys(node: &Node, of: Role) -> Arc<PairKeys> {
    let told = node.lessons.iter().rev().find_map(|lesson| {
        let Lesson::Pair { role, keys, .. } = lesson else { return None };
        (*role == of).then(|| Arc::clone(keys))
    });
    told.unwrap()
}

fn acquainted() -> (Pair, Facts) {
    let mut pair = Pair::new();
    pair.connect();
    // The connection ends; its handshakes are remembered no longer.
    pair.client.table.clear();
    pair.server.table.clear();
    pair.wait(std::time::Duration::from_secs(100));
    pair.client.timeout(pair.now);
    pair.server.timeout(pair.now);
    let facts = Facts {
        client: own(&pair.client),
        server: own(&pair.server),
        client_keys: keys(&pair.client, Role::Initiator),
        server_keys: keys(&pair.server, Role::Responder),
    };
    (pair, facts)
}

impl Facts {
    fn initiator(&self) -> Sender {
        Sender { token: self.client.id, nonce: NI }
    }

    fn responder(&self) -> Sender {
        Sender { token: self.server.id, nonce: NR }
    }

    /// The kernel's SYN.
    fn syn(&self) -> Vec<u8> {
        let seal = Seal::Mac(&self.client_keys.initiator, self.server.id);
        with_payload(
            &syn_with(ISN),
            &message::syn(Protocol::TCP, self.initiator(), Family::V4, seal, None).unwrap(),
        )
    }

    /// The kernel's SYN-ACK.
    fn syn_ack(&self) -> Vec<u8> {
        let (addr, port) = server_end().into();
        let end = Attested { protocol: Protocol::TCP, port, addr };
        let key = &self.server_keys.responder;
        let payload = message::syn_ack(self.responder(), end, key, self.initiator(), None).unwrap();
        with_payload(&syn_ack_with(SERVER_ISN, ISN), &payload)
    }

    fn proof(&self) -> Vec<u8> {
        message::ack(Protocol::TCP, self.initiator(), &self.client_keys.initiator, self.responder()).unwrap()
    }

    fn opening(&self, syns: u8) -> HalfOpenEntry {
        let syn = syn_with(ISN);
        let syn = SynHeader { hop_limit: 64, traffic_class: 0, tcp: syn[20..].to_vec() };
        HalfOpenEntry::Opening { isn: ISN, epoch: 1, syns, own: party(self.initiator()), peer: None, syn }
    }

    fn proving(&self) -> HalfOpenEntry {
        let HalfOpenEntry::Opening { isn, epoch, syns, own, syn, .. } = self.opening(1) else { panic!() };
        HalfOpenEntry::Opening { isn, epoch, syns, own, peer: Some(party(self.responder())), syn }
    }

    fn answering(&self, syn_ack: Option<u32>) -> HalfOpenEntry {
        HalfOpenEntry::Answering {
            isn: ISN,
            epoch: 1,
            own: party(self.responder()),
            peer: party(self.initiator()),
            holds: true,
            syn_ack,
        }
    }

    /// The entry that the kernel made when the SYN-ACK came.
    fn connection(&self, pair: &mut Pair) -> ConnectionEntry {
        let (slot, generation) = place(&pair.client, self.server.id);
        let entry = ConnectionEntry {
            role: Role::Initiator,
            epoch: 1,
            peer_token: self.server.id,
            peer_slot: slot,
            peer_generation: generation,
            attested: Some(server_end().into()),
            proof_seq: ISN + 1,
            proof_mac: self.proof()[40..56].try_into().unwrap(),
            confirmed: false,
            data_seen: true,
            class: ConnectionClass::Identity,
            syn_ack: 0,
        };
        pair.client.table.insert(client_key(), entry);
        entry
    }
}

fn place(node: &Node, of: TokenId) -> (u32, u32) {
    let told = node.lessons.iter().rev().find_map(|lesson| {
        let Lesson::Peer { token, slot, generation, .. } = lesson else { return None };
        (*token == of).then_some((*slot, *generation))
    });
    told.unwrap()
}

fn party(sender: Sender) -> Party {
    Party { token: sender.token, nonce: sender.nonce }
}

fn ack_of(isn: u32) -> Vec<u8> {
    segment(&from_client(isn + 1, SERVER_ISN + 1, Flags::ACK))
}

fn data_of(isn: u32, payload: &[u8]) -> Vec<u8> {
    segment(&trireme_wire::build::TcpSpec { payload, ..from_client(isn + 1, SERVER_ISN + 1, PSH_ACK) })
}

#[test]
fn a_third_syn_keeps_the_nonce_and_later_ones_may_leave_without_identity() {
    let (mut pair, facts) = acquainted();
    pair.client.hand_over = Some(facts.opening(2));
    let wire = pair.client_sends(&syn_with(ISN)).sent();
    assert_eq!((tap(&wire).nonce, tap(&wire).token_id), (NI.0, facts.client.id.0));
    assert!(tap(&wire).flags.contains(TapFlags::TOKEN) && tap(&wire).has_mac());
    let plain = pair.client_sends(&syn_with(ISN)).sent();
    assert!(payload(&plain).is_empty());
    assert_eq!(pair.client.stats().half_open, 1);
}

#[test]
fn a_syn_ack_completes_a_handshake_that_is_handed_over() {
    let (mut pair, facts) = acquainted();
    pair.server_gets(&facts.syn()).got();
    let wire = pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent();
    pair.client.hand_over = Some(facts.opening(1));
    assert_eq!(pair.client_gets(&wire).got(), syn_ack_with(SERVER_ISN, ISN));
    let proof = pair.client_sends(&ack_of(ISN)).sent();
    assert_eq!(pair.server_gets(&proof).got(), ack_of(ISN));
}

#[test]
fn a_syn_ack_that_took_the_payload_for_data_is_noticed() {
    let (mut pair, facts) = acquainted();
    for len in [80, 80 + facts.client.token.len() + facts.client.credential.len()] {
        let beyond = ISN + 1 + u32::try_from(len).unwrap();
        pair.client.hand_over = Some(facts.opening(1));
        let answer = segment(&from_server(SERVER_ISN, beyond, Flags::SYN_ACK));
        assert_eq!(pair.client_gets(&answer).silence(), Reason::HostilePath);
    }
}

#[test]
fn data_before_any_acknowledgement_gets_the_proof_in_front() {
    let (mut pair, facts) = acquainted();
    let entry = facts.connection(&mut pair);
    pair.client.hand_over = Some(facts.proving());
    let step = pair.client_sends(&data_of(ISN, b"GET"));
    assert_eq!(step.network.len(), 2);
    assert_eq!(payload(&step.network[0]), facts.proof());
    assert_eq!(payload(&step.network[1]), b"GET");
    assert_eq!(pair.client.stats().half_open, 1);
    // From here on the engine's own.
    let again = pair.client_sends(&ack_of(ISN)).sent();
    assert_eq!(tap(&again).mac, entry.proof_mac);
    assert!(!pair.client.table[&client_key()].data_seen);
}

#[test]
fn a_repeated_syn_ack_is_answered_for_a_unit_that_was_heard() {
    let (mut pair, facts) = acquainted();
    facts.connection(&mut pair);
    pair.client.hand_over = Some(facts.proving());
    pair.client_sends(&ack_of(ISN)).sent();
    let step = pair.client_gets(&facts.syn_ack());
    assert_eq!(step.unit, [syn_ack_with(SERVER_ISN, ISN)]);
    assert_eq!(payload(&step.network[0]), facts.proof());
}

#[test]
fn the_unit_answers_an_initiator_that_was_handed_over() {
    let (mut pair, facts) = acquainted();
    pair.server.hand_over = Some(facts.answering(None));
    let wire = pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent();
    assert_eq!((tap(&wire).kind(), tap(&wire).nonce), (Kind::SynAck, NR.0));
    assert!(!tap(&wire).flags.contains(TapFlags::TOKEN), "the initiator holds it");
    pair.client.hand_over = Some(facts.opening(1));
    pair.client_gets(&wire).got();
    let proof = pair.client_sends(&ack_of(ISN)).sent();
    assert_eq!(pair.server_gets(&proof).got(), ack_of(ISN));
}

#[test]
fn a_proof_completes_a_handshake_that_is_handed_over() {
    let (mut pair, facts) = acquainted();
    pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
    let proof = with_payload(&ack_of(ISN), &facts.proof());
    assert_eq!(pair.server_gets(&proof).got(), ack_of(ISN));
    let entry = pair.server.table[&server_key()];
    assert_eq!((entry.peer_token, entry.proof_seq), (facts.client.id, ISN + 1));
    assert!(pair.server.records.last().unwrap().rule.is_some(), "the policy was asked again");
}

#[test]
fn neither_a_forged_proof_nor_a_damaged_segment_ends_what_was_handed_over() {
    let (mut pair, facts) = acquainted();
    let right = with_payload(&ack_of(ISN), &facts.proof());
    let mut forged = facts.proof();
    forged[41] ^= 1;
    let forged = with_payload(&ack_of(ISN), &forged);
    let mut damaged = right.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (wrong, reason) in [(forged, Reason::MacInvalid), (damaged, Reason::BadChecksum)] {
        pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
        assert_eq!(pair.server_gets(&wrong).silence(), reason);
        assert_eq!(pair.server.stats().half_open, 1);
    }
    assert_eq!(pair.server_gets(&right).got(), ack_of(ISN));
}

#[test]
fn data_in_front_of_the_proof_waits_for_it() {
    let (mut pair, facts) = acquainted();
    pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
    let step = pair.server_gets(&data_of(ISN, b"GET"));
    assert_eq!((step.unit.len(), step.dropped), (0, None));
    let step = pair.server_gets(&with_payload(&ack_of(ISN), &facts.proof()));
    assert_eq!(step.unit, [ack_of(ISN), data_of(ISN, b"GET")]);
}

#[test]
fn another_nonce_for_the_same_syn_is_dropped_and_the_handshake_goes_on() {
    let (mut pair, facts) = acquainted();
    let other = Sender { nonce: Nonce([9; 16]), ..facts.initiator() };
    let seal = Seal::Mac(&facts.client_keys.initiator, facts.server.id);
    let wrong =
        with_payload(&syn_with(ISN), &message::syn(Protocol::TCP, other, Family::V4, seal, None).unwrap());
    pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
    assert_eq!(pair.server_gets(&wrong).silence(), Reason::NonceMismatch);
    let proof = with_payload(&ack_of(ISN), &facts.proof());
    assert_eq!(pair.server_gets(&proof).got(), ack_of(ISN));
}

#[test]
fn a_policy_that_refuses_by_now_refuses_what_is_handed_over() {
    let (mut pair, facts) = acquainted();
    let closed = PuPolicy { ingress: Ruleset::Rules(Vec::new()), ..PuPolicy::unrestricted() };
    let mut server = spec(SERVER, "server", &["role=backend"], &closed);
    server.epoch = 2;
    pair.server.upsert(server, pair.now);
    pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
    let proof = with_payload(&ack_of(ISN), &facts.proof());
    assert_eq!(pair.server_gets(&proof).silence(), Reason::PolicyIngress);
    assert_eq!((pair.server.stats().half_open, pair.server.table.len()), (0, 0));
}

#[test]
fn what_cannot_be_rebuilt_is_refused_and_nothing_is_kept() {
    let (_, facts) = acquainted();
    // Engines that know neither the tokens nor each other.
    let mut pair = Pair::with(
        trireme_datapath::EngineConfig::default(),
        spec(CLIENT, "client", &["role=frontend", "n=2"], &PuPolicy::unrestricted()),
        spec(SERVER, "server", &["role=backend", "n=2"], &PuPolicy::unrestricted()),
    );
    pair.client.hand_over = Some(facts.opening(1));
    assert_eq!(pair.client_gets(&facts.syn_ack()).silence(), Reason::Stray);
    pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
    let proof = with_payload(&ack_of(ISN), &facts.proof());
    assert_eq!(pair.server_gets(&proof).silence(), Reason::Stray);
    let stranger = HalfOpenEntry::Answering {
        isn: ISN,
        epoch: 1,
        own: Party { token: own(&pair.server).id, nonce: NR },
        peer: party(facts.initiator()),
        holds: false,
        syn_ack: None,
    };
    pair.server.hand_over = Some(stranger);
    assert_eq!(pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).silence(), Reason::Stray);
    assert_eq!((pair.client.stats().half_open, pair.server.stats().half_open), (0, 0));
}

#[test]
fn the_engine_s_own_handshake_wins_unless_the_message_answers_the_other() {
    let (mut pair, facts) = acquainted();
    let own_nonce = tap(&pair.client_sends(&syn_with(ISN)).sent()).nonce;
    pair.client.hand_over = Some(facts.opening(1));
    let again = pair.client_sends(&syn_with(ISN)).sent();
    assert_eq!(tap(&again).nonce, own_nonce);
    pair.client.hand_over = Some(facts.opening(1));
    assert_eq!(pair.client_gets(&facts.syn_ack()).got(), syn_ack_with(SERVER_ISN, ISN));
    let proof = pair.client_sends(&ack_of(ISN)).sent();
    assert_eq!(tap(&proof).nonce, NI.0);
}

#[test]
fn a_token_request_repeats_the_syn_as_the_unit_made_it() {
    let (mut pair, facts) = acquainted();
    let request = message::token_request(Protocol::TCP, facts.server.id, NI, Seal::Open).unwrap();
    let request =
        segment(&trireme_wire::build::TcpSpec { payload: &request, ..from_server(0, ISN + 1, Flags::ACK) });
    pair.client.hand_over = Some(facts.opening(1));
    let step = pair.client_gets(&request);
    let wire = &step.network[0];
    assert!(tap(wire).flags.contains(TapFlags::TOKEN));
    let mut bare = wire.clone();
    trireme_wire::edit::strip_payload(&mut bare, 0).unwrap();
    assert_eq!(bare, syn_with(ISN));
    assert!(pair.client.lessons.iter().any(|l| matches!(l, Lesson::ForgetDestination { .. })));
}

#[test]
fn a_syn_ack_behind_an_established_handshake_leaves_and_arrives_bare() {
    let (mut pair, facts) = acquainted();
    let mut entry = facts.connection(&mut pair);
    for wire in [facts.syn_ack(), syn_ack_with(SERVER_ISN, ISN)] {
        assert_eq!(pair.client_gets(&wire).got(), syn_ack_with(SERVER_ISN, ISN));
        assert_eq!(pair.client.table[&client_key()], entry, "nothing changes");
    }
    (entry.role, entry.confirmed, entry.syn_ack) = (Role::Responder, true, SERVER_ISN);
    pair.server.table.insert(server_key(), entry);
    let wire = pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent();
    assert!(payload(&wire).is_empty());
    assert_eq!(pair.server.table[&server_key()], entry);
    assert_eq!(pair.server_sends(&syn_ack_with(SERVER_ISN + 1, ISN)).silence(), Reason::Stray);
    let parsed = Segment::parse(&wire).unwrap();
    assert_eq!(parsed.ack, ISN + 1);
}

/// The engine has the SYN; by the time of its repetition the back end knows the initiator and begins for itself.
#[test]
fn of_two_handshakes_for_one_syn_the_one_counts_that_the_initiator_took() {
    for (taken, nonce) in [("the engine's", None), ("the back end's", Some(NR))] {
        let (mut pair, facts) = acquainted();
        pair.server_gets(&facts.syn()).got();
        let answer = pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent();
        pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
        assert!(pair.server_gets(&data_of(ISN, b"GET")).unit.is_empty());
        let nr = nonce.unwrap_or_else(|| Nonce(tap(&answer).nonce));
        let responder = Sender { nonce: nr, ..facts.responder() };
        let proof =
            message::ack(Protocol::TCP, facts.initiator(), &facts.client_keys.initiator, responder).unwrap();
        let step = pair.server_gets(&with_payload(&ack_of(ISN), &proof));
        assert_eq!(step.unit, [ack_of(ISN), data_of(ISN, b"GET")], "{taken}");
    }
}

#[test]
fn a_completed_handshake_does_not_speak_for_later_connections_of_the_back_end() {
    for (wait, passes) in [(0, true), (2, false)] {
        let mut pair = Pair::new();
        pair.connect();
        pair.server.table.clear();
        pair.client.table.clear();
        pair.wait(std::time::Duration::from_secs(wait));
        for step in [pair.server_gets(&data(b"x")), pair.server_sends(&server_data(b"x"))] {
            assert_eq!(step.dropped, (!passes).then_some(Reason::Stray));
        }
        assert_eq!(pair.client_sends(&data(b"x")).dropped, (!passes).then_some(Reason::Stray));
    }
    let mut pair = Pair::new();
    pair.connect();
    pair.server.table.clear();
    let far = segment(&trireme_wire::build::TcpSpec {
        payload: b"x",
        ..from_client(next().wrapping_add(1 << 21), SERVER_ISN + 1, PSH_ACK)
    });
    assert_eq!(pair.server_gets(&far).silence(), Reason::Stray);
}

#[test]
fn repeated_syn_acks_speak_for_both_handshakes_of_one_syn_in_turn() {
    let (mut pair, facts) = acquainted();
    pair.server_gets(&facts.syn()).got();
    let first = tap(&pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent()).nonce;
    pair.server.hand_over = Some(facts.answering(Some(SERVER_ISN)));
    let nonces: Vec<_> =
        (0..4).map(|_| tap(&pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent()).nonce).collect();
    assert_eq!(nonces, [NR.0, first, NR.0, first]);
    pair.server_gets(&with_payload(&ack_of(ISN), &facts.proof())).got();
    assert_eq!(tap(&pair.server_sends(&syn_ack_with(SERVER_ISN, ISN)).sent()).nonce, NR.0, "it has chosen");
}
