//! Identities over UDP: the exchange, what waits for it, what repeats and what ends.

use std::time::Duration;

use trireme_datapath::{EngineConfig, OnPolicyChange, PuSpec, Strictness};
use trireme_flow::{Action, ConnectionClass, Reason};
use trireme_identity::Protocol;
use trireme_policy::{Clause, FlowPolicy, IpRule, PuPolicy, Rule, Ruleset, Selector, Service, Services};
use trireme_token::Role;
use trireme_wire::build::{self, Unreachable};
use trireme_wire::tap::{Body, Flags as TapFlags, Kind};

use crate::support::*;

const WAIT: Duration = Duration::from_millis(200);

fn tagged(role: &str) -> Ruleset {
    let selector = Selector::new([Clause::equal("role", [role])]);
    let services = Services::Only(vec![Service::udp(80)]);
    Ruleset::Rules(vec![Rule::new([selector], services, FlowPolicy::accept().named("dns", role))])
}

/// Calls `role=backend` on port 80 over UDP, and nobody without an identity.
pub(crate) fn caller() -> PuSpec {
    let policy = PuPolicy { egress: tagged("backend"), ..PuPolicy::unrestricted() };
    spec(CLIENT, "client", &["role=frontend"], &policy)
}

/// Admits `role=frontend` on port 80 over UDP, and nobody without an identity; opens nothing.
pub(crate) fn called() -> PuSpec {
    let policy = PuPolicy {
        ingress: tagged("frontend"),
        egress: Ruleset::Rules(Vec::new()),
        ..PuPolicy::unrestricted()
    };
    spec(SERVER, "server", &["role=backend"], &policy)
}

pub(crate) fn pair() -> Pair {
    Pair::with(EngineConfig::default(), caller(), called())
}

/// Admits every address of the network on port 80 over UDP as well.
fn by_address(spec: PuSpec) -> PuSpec {
    let services = Services::Only(vec![Service::udp(80)]);
    let rule = IpRule::new(["10.0.0.0/24".parse().unwrap()], services, FlowPolicy::accept());
    let acls = Ruleset::Rules(vec![rule]);
    let policy =
        PuPolicy { network_acls: acls.clone(), application_acls: acls, ..spec.policy.source().clone() };
    let compiled = crate::support::spec(spec.slot, "x", &[], &policy).policy;
    PuSpec { policy: compiled, ..spec }
}

pub(crate) fn query(data: &[u8]) -> Vec<u8> {
    udp(client_end(), server_end(), data)
}

pub(crate) fn reply(data: &[u8]) -> Vec<u8> {
    udp(server_end(), client_end(), data)
}

/// The one message that went out, and nothing else.
pub(crate) fn message(step: Step) -> Vec<u8> {
    assert_eq!((step.network.len(), step.unit.len()), (1, 0), "{step:?}");
    step.network.into_iter().next().unwrap()
}

/// Kinds 1 and 2 with the datagram that led to them; returns both and what the client's node does then.
pub(crate) fn until_proof(pair: &mut Pair, data: &[u8]) -> (Vec<u8>, Vec<u8>, Step) {
    let opening = message(pair.client_sends(&query(data)));
    let answer = message(pair.server_gets(&opening));
    let step = pair.client_gets(&answer);
    (opening, answer, step)
}

/// A whole exchange; returns its four messages.
pub(crate) fn exchange(pair: &mut Pair, data: &[u8]) -> [Vec<u8>; 4] {
    let (opening, answer, step) = until_proof(pair, data);
    assert_eq!(step.network.len(), 2, "the proof and what waited");
    assert_eq!(step.network[1], query(data));
    let proof = step.network[0].clone();
    let confirmation = message(pair.server_gets(&proof));
    assert_eq!(pair.server_gets(&query(data)).got(), query(data));
    assert_eq!(pair.client_gets(&confirmation).silence(), Reason::Consumed);
    [opening, answer, proof, confirmation]
}

fn assert_flowing(pair: &mut Pair) {
    let (asked, told) = (query(b"again"), reply(b"told"));
    assert_eq!(pair.client_sends(&asked).sent(), asked);
    assert_eq!(pair.server_gets(&asked).got(), asked);
    assert_eq!(pair.server_sends(&told).sent(), told);
    assert_eq!(pair.client_gets(&told).got(), told);
}

#[test]
fn first_datagrams_wait_for_the_identities_of_both_ends() {
    let mut pair = pair();
    let [opening, answer, proof, confirmation] = exchange(&mut pair, b"query");
    let kinds = [&opening, &answer, &proof, &confirmation].map(|bytes| message_of(bytes).kind());
    assert_eq!(kinds, [Kind::Syn, Kind::SynAck, Kind::Ack, Kind::Ack]);
    for bytes in [&opening, &answer, &proof, &confirmation] {
        assert_eq!(message_of(bytes).protocol(), Protocol::UDP);
    }
    assert!(!message_of(&opening).has_mac() && message_of(&opening).flags.contains(TapFlags::TOKEN));
    for (node, key, role) in
        [(&pair.client, client_key(), Role::Initiator), (&pair.server, server_key(), Role::Responder)]
    {
        let entry = node.table[&key.over(Protocol::UDP)];
        assert_eq!(
            (entry.role, entry.class, entry.confirmed, entry.data_seen),
            (role, ConnectionClass::Identity, true, false)
        );
        let record = node.records.last().unwrap();
        assert_eq!(
            (record.protocol, record.action, record.reason, record.policy.as_deref()),
            (Protocol::UDP, Action::Accept, Reason::Accepted, Some("dns"))
        );
        assert!(record.source.tags.iter().any(|tag| tag.to_string() == "role=frontend"));
    }
    assert_flowing(&mut pair);
    assert_eq!((pair.client.writes.len(), pair.server.writes.len()), (1, 1));
    assert_eq!(pair.client.timeout(pair.now), Step::default());
}

#[test]
fn a_known_peer_costs_neither_token_nor_signature() {
    let mut pair = pair();
    exchange(&mut pair, b"query");
    let other = |data: &[u8]| udp(Endpoint::new(client_end().addr, 40_001), server_end(), data);
    let opening = message(pair.client_sends(&other(b"more")));
    let header = message_of(&opening);
    assert!(header.has_mac() && !header.flags.contains(TapFlags::TOKEN));
    let answer = message(pair.server_gets(&opening));
    assert!(!message_of(&answer).flags.contains(TapFlags::TOKEN));
    let step = pair.client_gets(&answer);
    assert_eq!(step.network[1], other(b"more"));
}

#[test]
fn data_that_overtakes_the_proof_waits_for_it() {
    let mut pair = pair();
    let (_, _, step) = until_proof(&mut pair, b"query");
    assert_eq!(pair.server_gets(&query(b"query")), Step::default());
    assert_eq!(pair.server_gets(&query(b"next")), Step::default());
    let step = pair.server_gets(&step.network[0]);
    assert_eq!(step.unit, [query(b"query"), query(b"next")]);
    assert_eq!(step.network.len(), 1, "the confirmation");
}

#[test]
fn every_message_may_be_lost_once() {
    for lost in 0..4 {
        let mut pair = pair();
        let opening = message(pair.client_sends(&query(b"query")));
        let opening = if lost == 0 {
            pair.wait(WAIT);
            let again = message(pair.client.timeout(pair.now));
            assert_eq!(message_of(&again).nonce, message_of(&opening).nonce);
            again
        } else {
            opening
        };
        let mut answer = message(pair.server_gets(&opening));
        if lost == 1 {
            pair.wait(WAIT);
            let again = message(pair.client.timeout(pair.now));
            let same = message_of(&answer).nonce;
            answer = message(pair.server_gets(&again));
            assert_eq!(message_of(&answer).nonce, same);
        }
        let step = pair.client_gets(&answer);
        assert_eq!(step.network[1], query(b"query"));
        let mut proof = step.network[0].clone();
        if lost == 2 {
            assert_eq!(pair.server_gets(&query(b"query")), Step::default(), "held");
            pair.wait(WAIT);
            let again = message(pair.client.timeout(pair.now));
            assert_eq!(again, proof);
            proof = again;
        }
        let step = pair.server_gets(&proof);
        let mut confirmation = step.network[0].clone();
        assert_eq!(step.unit.len(), usize::from(lost == 2));
        if lost == 3 {
            pair.wait(WAIT);
            let again = message(pair.client.timeout(pair.now));
            assert_eq!(again, proof);
            assert_eq!(message(pair.server_gets(&again)), confirmation);
            confirmation = message(pair.server_gets(&again));
        }
        assert_eq!(pair.client_gets(&confirmation).silence(), Reason::Consumed);
        pair.wait(Duration::from_secs(2));
        assert_eq!(pair.client.timeout(pair.now), Step::default(), "nothing is repeated any more: {lost}");
        assert_flowing(&mut pair);
    }
}

#[test]
fn three_kinds_1_without_an_answer_and_the_address_rules_decide() {
    let mut pair = Pair::with(EngineConfig::default(), caller(), called());
    let opening = message(pair.client_sends(&query(b"query")));
    let mut sent = 1;
    for pause in [200, 400, 800] {
        pair.wait(Duration::from_millis(pause - 1));
        assert_eq!(pair.client.timeout(pair.now), Step::default(), "{pause}");
        pair.wait(Duration::from_millis(1));
        sent += pair.client.timeout(pair.now).network.len();
    }
    assert_eq!(sent, 3);
    assert_eq!(pair.client.count(CLIENT, Reason::NoAnswer), 1);
    assert_eq!(pair.client.count(CLIENT, Reason::ApplicationAcl), 1);
    assert_eq!(pair.client.stats().waiting, 0);
    assert_eq!(pair.client_sends(&query(b"query")).silence(), Reason::ApplicationAcl, "not asked again yet");
    pair.wait(Duration::from_secs(5));
    let again = message(pair.client_sends(&query(b"query")));
    assert_ne!(message_of(&again).nonce, message_of(&opening).nonce);
    let answer = message(pair.server_gets(&again));
    assert_eq!(pair.client_gets(&answer).network.len(), 2, "somebody is there now");
}

#[test]
fn what_an_address_rule_admits_goes_at_once_and_the_exchange_beside_it() {
    let mut pair = Pair::with(EngineConfig::default(), by_address(caller()), called());
    let step = pair.client_sends(&query(b"query"));
    assert_eq!(step.network[1], query(b"query"), "behind kind 1");
    let key = client_key().over(Protocol::UDP);
    assert_eq!(pair.client.table[&key].class, ConnectionClass::Address);
    assert!(pair.client.records.is_empty(), "it has not come out yet who is there");
    assert_eq!(pair.server_gets(&query(b"query")).silence(), Reason::NetworkAcl, "it overtook kind 1");
    let answer = message(pair.server_gets(&step.network[0]));
    assert_eq!(pair.server_gets(&query(b"more")), Step::default(), "it waits for the proof");
    let proof = message(pair.client_gets(&answer));
    assert_eq!(pair.client.table[&key].class, ConnectionClass::Identity);
    assert_eq!(pair.client.count(CLIENT, Reason::Downgraded), 0);
    assert_eq!(pair.server_gets(&proof).unit, [query(b"more")]);

    let mut pair = Pair::with(EngineConfig::default(), by_address(caller()), called());
    pair.client_sends(&query(b"query"));
    for pause in [200, 400, 800] {
        pair.wait(Duration::from_millis(pause));
        pair.client.timeout(pair.now);
    }
    assert_eq!(pair.client.count(CLIENT, Reason::Downgraded), 1);
    assert_eq!(pair.client_sends(&query(b"more")).sent(), query(b"more"));
}

#[test]
fn an_answer_that_is_no_tap_ends_the_exchange() {
    let mut pair = pair();
    pair.client_sends(&query(b"query"));
    assert_eq!(pair.client_gets(&reply(b"what?")).silence(), Reason::Stray);
    assert_eq!(pair.client.count(CLIENT, Reason::NoAnswer), 1);
    assert_eq!(pair.client_sends(&query(b"query")).silence(), Reason::ApplicationAcl);
}

#[test]
fn an_error_ends_the_exchange_and_is_for_the_unit_if_its_datagram_led_to_it() {
    for admitted in [false, true] {
        let client = if admitted { by_address(caller()) } else { caller() };
        let mut pair = Pair::with(EngineConfig::default(), client, called());
        let opening = pair.client_sends(&query(b"query")).network.remove(0);
        let error = build::icmp_unreachable(&opening, Unreachable::Port).unwrap();
        let step = pair.client_gets(&error);
        assert_eq!(step.unit.len(), usize::from(admitted));
        assert_eq!(pair.client.count(CLIENT, Reason::NoAnswer), 1);
        assert_eq!(pair.client_gets(&error).dropped.is_some(), !admitted);
    }
}

#[test]
fn peers_that_policy_refuses_learn_nothing_and_send_nothing() {
    let stranger = || spec(CLIENT, "client", &["role=other"], caller().policy.source());
    let mut pair = Pair::with(EngineConfig::default(), stranger(), called());
    let opening = message(pair.client_sends(&query(b"query")));
    assert_eq!(pair.server_gets(&opening).silence(), Reason::PolicyIngress);
    assert_eq!(pair.server.records.last().unwrap().protocol, Protocol::UDP);

    let impostor = spec(SERVER, "server", &["role=other"], called().policy.source());
    let mut pair = Pair::with(EngineConfig::default(), by_address(caller()), impostor);
    let opening = pair.client_sends(&query(b"query")).network.remove(0);
    let answer = message(pair.server_gets(&opening));
    assert_eq!(pair.client_gets(&answer).silence(), Reason::PolicyEgress);
    assert!(pair.client.table.is_empty(), "what its address was allowed, its identity is not");
    let step = pair.client_sends(&query(b"more"));
    assert_eq!(step.network.len(), 1, "no datagram ahead of the answer there: {step:?}");
}

#[test]
fn a_unit_without_any_rule_for_udp_opens_nothing() {
    let policy = PuPolicy { egress: Ruleset::Rules(Vec::new()), ..PuPolicy::unrestricted() };
    let mut pair = Pair::with(EngineConfig::default(), spec(CLIENT, "client", &[], &policy), called());
    assert_eq!(pair.client_sends(&query(b"query")).silence(), Reason::PolicyNoEgress);
}

#[test]
fn a_peer_without_an_enforcer_is_judged_by_address_or_refused_where_identity_is_a_must() {
    let mut pair = Pair::with(EngineConfig::default(), caller(), by_address(called()));
    assert_eq!(pair.server_gets(&query(b"plain")).got(), query(b"plain"));
    assert_eq!(pair.server.count(SERVER, Reason::Downgraded), 1);
    let mut strict = by_address(called());
    strict.settings.strictness = Strictness::StrictIdentity;
    let mut pair = Pair::with(EngineConfig::default(), caller(), strict);
    assert_eq!(pair.server_gets(&query(b"plain")).silence(), Reason::StrictIdentity);
    exchange(&mut pair, b"with identity");
}

#[test]
fn a_change_of_policy_cuts_a_flow() {
    for (on_change, goes_on) in [(OnPolicyChange::Cut, false), (OnPolicyChange::Keep, true)] {
        let mut pair = pair();
        exchange(&mut pair, b"query");
        let mut changed = spec(SERVER, "server", &["role=backend"], &PuPolicy::deny_all());
        (changed.epoch, changed.settings.on_policy_change) = (2, on_change);
        pair.server.upsert(changed, pair.now);
        let step = pair.server_gets(&query(b"again"));
        if goes_on {
            assert_eq!(step.got(), query(b"again"));
        } else {
            assert_eq!(step.silence(), Reason::PolicyChanged);
            assert!(pair.server.table.is_empty());
            assert_eq!(pair.server_sends(&reply(b"late")).silence(), Reason::PolicyNoEgress);
        }
    }
}

#[test]
fn a_responder_that_forgot_the_flow_has_it_begin_again_without_loss() {
    let mut pair = pair();
    exchange(&mut pair, b"query");
    pair.wait(Duration::from_secs(400));
    pair.server.timeout(pair.now);
    pair.client.timeout(pair.now);
    pair.server.table.clear();
    let late = query(b"late");
    assert_eq!(pair.client_sends(&late).sent(), late, "here the flow is alive");
    let invitation = message(pair.server_gets(&late));
    let header = message_of(&invitation);
    assert!(matches!(header.body, Body::TokenRequest { echo: [0, ..], .. }) && header.has_mac());
    assert_eq!(pair.server_gets(&query(b"later")), Step::default(), "asked already");
    let opening = message(pair.client_gets(&invitation));
    assert_eq!(pair.client_sends(&query(b"meanwhile")).sent(), query(b"meanwhile"));
    let answer = message(pair.server_gets(&opening));
    let proof = message(pair.client_gets(&answer));
    let step = pair.server_gets(&proof);
    assert_eq!(step.unit, [late, query(b"later")]);
    assert_flowing(&mut pair);
}

#[test]
fn a_flow_that_both_ends_forgot_begins_again_without_loss() {
    let mut pair = pair();
    exchange(&mut pair, b"query");
    pair.wait(Duration::from_secs(600));
    for node in [&mut pair.client, &mut pair.server] {
        node.table.clear();
    }
    pair.client.timeout(pair.now);
    pair.server.timeout(pair.now);
    exchange(&mut pair, b"query again");
}

#[test]
fn a_proof_that_is_never_confirmed_begins_anew() {
    let mut pair = pair();
    until_proof(&mut pair, b"query");
    let mut proofs = 1;
    for pause in [200, 400, 800] {
        pair.wait(Duration::from_millis(pause));
        proofs += pair.client.timeout(pair.now).network.len();
    }
    assert_eq!((proofs, pair.client.count(CLIENT, Reason::ProofUnconfirmed)), (3, 1));
    assert!(pair.client.table.is_empty());
    pair.wait(Duration::from_secs(2));
    pair.server.timeout(pair.now);
    exchange(&mut pair, b"once more");
}

#[test]
fn both_ends_may_begin_at_once_and_agree_who_did() {
    let open = |spec: PuSpec| {
        let policy = PuPolicy {
            ingress: Ruleset::Unrestricted,
            egress: Ruleset::Unrestricted,
            ..PuPolicy::unrestricted()
        };
        let restricted = PuPolicy {
            network_acls: Ruleset::Rules(Vec::new()),
            application_acls: Ruleset::Rules(Vec::new()),
            ..policy
        };
        PuSpec { policy: crate::support::spec(spec.slot, "x", &[], &restricted).policy, ..spec }
    };
    for order in 0..4 {
        let mut pair = Pair::with(EngineConfig::default(), open(caller()), open(called()));
        let (from_client, from_server) =
            (message(pair.client_sends(&query(b"ask"))), message(pair.server_sends(&reply(b"tell"))));
        let (mut to_server, mut to_client) = (vec![from_client], vec![from_server]);
        let (mut asked, mut told) = (0, 0);
        for turn in 0..20 {
            let servers_turn = (turn + order) % 2 == 0;
            let (queue, other) = if servers_turn {
                (&mut to_server, &mut to_client)
            } else {
                (&mut to_client, &mut to_server)
            };
            if queue.is_empty() {
                continue;
            }
            let packet = if order < 2 { queue.remove(0) } else { queue.pop().unwrap() };
            let step = if servers_turn { pair.server_gets(&packet) } else { pair.client_gets(&packet) };
            other.extend(step.network);
            for packet in step.unit {
                asked += usize::from(packet == query(b"ask"));
                told += usize::from(packet == reply(b"tell"));
            }
        }
        assert_eq!((asked, told), (1, 1), "order {order}");
        let client = pair.client.table[&client_key().over(Protocol::UDP)];
        let server = pair.server.table[&server_key().over(Protocol::UDP)];
        assert_ne!(client.role, server.role, "order {order}");
        assert_flowing(&mut pair);
    }
}

#[test]
fn the_queue_is_bounded() {
    let mut pair = pair();
    message(pair.client_sends(&query(b"0")));
    for _ in 1..32 {
        assert_eq!(pair.client_sends(&query(b"more")), Step::default());
    }
    assert_eq!(pair.client_sends(&query(b"one too many")).silence(), Reason::HeldFull);
    let mut wide = self::pair();
    message(wide.client_sends(&query(&[0; 40_000])));
    assert_eq!(wide.client_sends(&query(&[0; 30_000])).silence(), Reason::HeldFull);
}

#[test]
fn the_fragments_of_the_largest_datagram_wait_together() {
    let mut pair = pair();
    let whole = query(&vec![7; 65_507]);
    let fragments: Vec<Vec<u8>> = whole[20..]
        .chunks(1480)
        .enumerate()
        .map(|(index, chunk)| {
            let mut packet = raw(Protocol::UDP, Way::Forth, chunk);
            let more = if index * 1480 + chunk.len() == whole.len() - 20 { 0 } else { 0x2000 };
            let field = u16::try_from(index * 185).unwrap() | more;
            packet[4..8].copy_from_slice(&[0, 9, field.to_be_bytes()[0], field.to_be_bytes()[1]]);
            packet
        })
        .collect();
    let opening = message(pair.client_sends(&fragments[0]));
    for fragment in &fragments[1..] {
        assert_eq!(pair.client_sends(fragment), Step::default());
    }
    let answer = message(pair.server_gets(&opening));
    let step = pair.client_gets(&answer);
    assert_eq!(step.network[1..], fragments);
    let mut got = Vec::new();
    for packet in &step.network {
        got.extend(pair.server_gets(packet).unit);
    }
    assert_eq!(got, fragments);
}

#[test]
fn a_removed_unit_leaves_nothing_behind() {
    let mut pair = pair();
    pair.client_sends(&query(b"query"));
    let mut effects = Vec::new();
    pair.client.engine.remove_pu(CLIENT, pair.now, &mut effects);
    pair.wait(Duration::from_secs(10));
    assert_eq!(pair.client.timeout(pair.now), Step::default());
    let stats = pair.client.stats();
    assert_eq!((stats.half_open, stats.waiting, stats.flows), (0, 0, 0));
}
