//! The straight line, and the refusals by policy.

use trireme_datapath::{Authorize, EngineConfig, Refusal};
use trireme_flow::{Action, ConnectionClass, Reason};
use trireme_identity::Direction;
use trireme_policy::{Clause, FlowPolicy, PuPolicy, Rule, Ruleset, Selector, Services};
use trireme_token::Role;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::tap::{Body, Flags as TapFlags, Kind};
use trireme_wire::tcp::Segment;

use crate::support::*;

#[test]
fn an_allowed_connection_is_admitted_at_both_ends_and_recorded() {
    let mut pair = Pair::new();
    let [syn, syn_ack, ack] = pair.connect();
    let kinds = [&syn, &syn_ack, &ack].map(|bytes| tap(bytes).kind());
    assert_eq!(kinds, [Kind::Syn, Kind::SynAck, Kind::Ack]);
    for bytes in [&syn, &syn_ack, &ack] {
        assert_eq!(checksum::verify(bytes, &Segment::parse(bytes).unwrap()), Checksum::Valid);
    }
    let Body::SynAck { endpoint, .. } = tap(&syn_ack).body else { panic!("kind 2") };
    assert_eq!((endpoint.addr, endpoint.port), server_end().into());
    pair.assert_talking();

    let entry = pair.client.table[&client_key()];
    assert_eq!(
        (entry.role, entry.class, entry.confirmed),
        (Role::Initiator, ConnectionClass::Identity, true)
    );
    assert_eq!((entry.proof_seq, entry.proof_mac), (next(), tap(&ack).mac));
    assert_eq!(entry.attested, Some(server_end().into()));
    let entry = pair.server.table[&server_key()];
    assert_eq!(
        (entry.role, entry.class, entry.confirmed),
        (Role::Responder, ConnectionClass::Identity, true)
    );
    assert_eq!((entry.proof_seq, entry.proof_mac, entry.attested), (next(), tap(&ack).mac, None));

    for (node, pu, direction) in
        [(&pair.client, "client", Direction::Egress), (&pair.server, "server", Direction::Ingress)]
    {
        let [record] = node.records.as_slice() else { panic!("{:?}", node.records) };
        assert_eq!((record.pu.as_str(), record.direction), (pu, direction));
        assert_eq!((record.action, record.reason, record.count), (Action::Accept, Reason::Accepted, 1));
        assert_eq!(record.source.id.as_ref().unwrap().as_str(), "client");
        assert_eq!(record.destination.id.as_ref().unwrap().as_str(), "server");
        assert_eq!(record.source.tags.to_string(), "role=frontend");
        assert_eq!((record.destination.address, record.destination.port), server_end().into());
    }
    assert_eq!(pair.server.records[0].policy.as_deref(), Some("web"));
    assert_eq!(pair.server.records[0].rule.as_deref(), Some("frontends"));
    assert_eq!(pair.server.records[0].source.node.as_ref().unwrap().as_str(), "node-a");
}

#[test]
fn a_refused_initiator_never_reaches_the_unit_and_the_record_says_what_it_lacks() {
    let intruder = spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted());
    let mut pair = Pair::with(EngineConfig::default(), intruder, server_spec());
    let wire = pair.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::PolicyIngress);
    assert_eq!(pair.server.stats().half_open, 0);
    let [record] = pair.server.records.as_slice() else { panic!("one record") };
    assert_eq!((record.action, record.reason), (Action::Reject, Reason::PolicyIngress));
    assert_eq!(record.source.tags.to_string(), "role=external");
    let text = record.explanation.as_deref().unwrap();
    assert!(text.contains("role=external") && text.contains("frontend"), "{text}");
}

#[test]
fn equal_refusals_become_one_record_with_their_count() {
    let intruder = spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted());
    let mut pair = Pair::with(EngineConfig::default(), intruder, server_spec());
    for isn in 0..5 {
        let wire = pair.client_sends(&syn_with(isn)).sent();
        assert_eq!(pair.server_gets(&wire).silence(), Reason::PolicyIngress);
    }
    pair.wait(std::time::Duration::from_secs(1));
    pair.server.timeout(pair.now);
    assert_eq!(pair.server.records.iter().map(|record| record.count).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(pair.server.count(SERVER, Reason::PolicyIngress), 5);
}

/// A client that talks only to databases.
fn databases_only() -> PuPolicy {
    let selector = Selector::new([Clause::equal("role", ["database"])]);
    let rule = Rule::new([selector], Services::Any, FlowPolicy::accept());
    PuPolicy { egress: Ruleset::Rules(vec![rule]), ..PuPolicy::unrestricted() }
}

#[test]
fn in_mutual_mode_the_initiator_refuses_the_responder() {
    let client = spec(CLIENT, "client", &["role=frontend"], &databases_only());
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let wire = pair.server_sends(&syn_ack()).sent();
    assert_eq!(pair.client_gets(&wire).silence(), Reason::PolicyEgress);
    assert!(pair.client.table.is_empty());
    assert_eq!(pair.client.records[0].destination.tags.to_string(), "role=backend");
}

#[test]
fn in_receiver_only_mode_the_initiator_authenticates_but_does_not_authorize() {
    let mut client = spec(CLIENT, "client", &["role=frontend"], &databases_only());
    client.settings.authorize = Authorize::ReceiverOnly;
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let wire = pair.server_sends(&syn_ack()).sent();
    let mut forged = payload(&wire).to_vec();
    forged[24] ^= 1;
    assert_eq!(pair.client_gets(&with_payload(&wire, &forged)).silence(), Reason::MacInvalid);
    assert_eq!(pair.client_gets(&wire).got(), syn_ack());
}

#[test]
fn an_initiator_without_any_egress_rule_refuses_at_the_syn() {
    let policy = PuPolicy { egress: Ruleset::Rules(Vec::new()), ..PuPolicy::unrestricted() };
    let mut client = spec(CLIENT, "client", &["role=frontend"], &policy);
    client.settings.refusal = Refusal::Rst;
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    let step = pair.client_sends(&syn());
    assert_eq!(step.dropped, Some(Reason::PolicyNoEgress));
    assert!(step.network.is_empty());
    let reset = Segment::parse(&step.unit[0]).unwrap();
    assert_eq!((reset.ack, reset.tuple().src), (next(), server_end()));
}

#[test]
fn a_refused_syn_is_answered_as_the_settings_say() {
    let intruder = spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted());
    for refusal in [Refusal::Silent, Refusal::Rst, Refusal::Icmp] {
        let mut server = server_spec();
        server.settings.refusal = refusal;
        let mut pair = Pair::with(EngineConfig::default(), intruder.clone(), server);
        let wire = pair.client_sends(&syn()).sent();
        let step = pair.server_gets(&wire);
        assert_eq!((step.dropped, step.unit.len()), (Some(Reason::PolicyIngress), 0));
        match refusal {
            Refusal::Silent => assert!(step.network.is_empty()),
            Refusal::Rst => {
                let reset = Segment::parse(&step.network[0]).unwrap();
                assert_eq!((reset.seq, reset.ack), (0, next()));
            }
            Refusal::Icmp => {
                let quoted = trireme_wire::icmp::embedded(&step.network[0]).unwrap();
                assert_eq!((quoted.icmp_type, quoted.icmp_code), (3, 13));
                assert_eq!(quoted.tuple.src, client_end());
            }
        }
    }
}

#[test]
fn an_initiator_that_refuses_the_responder_can_tell_its_unit_at_once() {
    let mut client = spec(CLIENT, "client", &["role=frontend"], &databases_only());
    client.settings.refusal = Refusal::Rst;
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let wire = pair.server_sends(&syn_ack()).sent();
    let step = pair.client_gets(&wire);
    assert_eq!((step.dropped, step.network.len()), (Some(Reason::PolicyEgress), 0));
    let reset = Segment::parse(&step.unit[0]).unwrap();
    assert_eq!((reset.ack, reset.tuple().src), (next(), server_end()));
}

#[test]
fn a_retransmitted_syn_keeps_its_nonce_and_carries_the_whole_token() {
    let mut pair = Pair::new();
    let first = tap(&pair.client_sends(&syn()).sent());
    for _ in 0..2 {
        let again = tap(&pair.client_sends(&syn()).sent());
        assert_eq!((again.nonce, again.token_id), (first.nonce, first.token_id));
        assert!(again.flags.contains(TapFlags::TOKEN));
    }
    assert_eq!(pair.client.stats().half_open, 1);
}

#[test]
fn syn_with_other_isn_starts_a_new_handshake() {
    let mut pair = Pair::new();
    let first = pair.client_sends(&syn()).sent();
    pair.server_gets(&first).got();
    let second = pair.client_sends(&syn_with(99)).sent();
    assert_ne!(tap(&first).nonce, tap(&second).nonce);
    assert_eq!(pair.client.stats().half_open, 1, "the unit gave the first one up");
    pair.server_gets(&second).got();
    assert_eq!(pair.server.stats().half_open, 2, "the server cannot know");
    let stale = pair.server_sends(&syn_ack()).sent();
    // The unit's stack answers it with a reset, which clears it at the server.
    assert_eq!(pair.client_gets(&stale).got(), syn_ack());
    let answer = pair.server_sends(&syn_ack_with(SERVER_ISN, 99)).sent();
    assert_eq!(pair.client_gets(&answer).got(), syn_ack_with(SERVER_ISN, 99));
}

#[test]
fn syn_cookies_may_answer_one_syn_with_several_sequence_numbers() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let first = pair.server_sends(&syn_ack_with(1, CLIENT_ISN)).sent();
    let second = pair.server_sends(&syn_ack_with(2, CLIENT_ISN)).sent();
    assert_eq!(tap(&first).nonce, tap(&second).nonce);
    pair.client_gets(&second).got();
    let ack = segment(&from_client(next(), 3, trireme_wire::tcp::Flags::ACK));
    let wire = pair.client_sends(&ack).sent();
    assert_eq!(pair.server_gets(&wire).got(), ack);
}

#[test]
fn a_closed_port_is_reported_to_an_allowed_initiator_at_once() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let reset = segment(&from_server(0, next(), RST_ACK));
    let wire = pair.server_sends(&reset).sent();
    assert_eq!(tap(&wire).kind(), Kind::SynAck);
    assert_eq!(pair.client_gets(&wire).got(), reset);
}

#[test]
fn an_initiator_whose_egress_is_denied_cannot_tell_closed_from_filtered() {
    let client = spec(CLIENT, "client", &["role=frontend"], &databases_only());
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    let reset = segment(&from_server(0, next(), RST_ACK));
    let wire = pair.server_sends(&reset).sent();
    assert_eq!(pair.client_gets(&wire).silence(), Reason::PolicyEgress);
}

const RST_ACK: trireme_wire::tcp::Flags = trireme_wire::tcp::Flags(0x14);
