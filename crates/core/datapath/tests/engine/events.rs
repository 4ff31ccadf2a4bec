//! What the back end decided by itself, as flow records and counters.

use trireme_datapath::{BackendEvent, EngineConfig, Lesson, PeerPlace};
use trireme_flow::{Action, FlowEvent, FlowRecord, Reason, Traffic};
use trireme_identity::{Direction, Protocol};
use trireme_policy::PuPolicy;

use crate::support::*;

fn event(pair: &Pair, peer: PeerPlace) -> BackendEvent {
    BackendEvent {
        pu: SERVER,
        protocol: Protocol::TCP,
        direction: Direction::Ingress,
        peer,
        port: 80,
        reason: Reason::Accepted,
        rule: Some(1),
        local: server_end().addr,
        remote: client_end().addr,
        starts: 0,
        refused: 0,
        ends: 0,
        traffic: Traffic::default(),
        first: pair.now.wall.minus_secs(2),
        last: pair.now.wall,
    }
}

fn told(pair: &mut Pair, event: &BackendEvent) -> Vec<FlowRecord> {
    let mut effects = Vec::new();
    pair.server.engine.handle_event(event, pair.now, &mut effects);
    pair.server.records.clear();
    pair.server.carry_out(effects, pair.now, &mut Step::default());
    pair.server.records.clone()
}

fn known(node: &Node) -> PeerPlace {
    let place = node.lessons.iter().rev().find_map(|lesson| {
        let Lesson::Peer { slot, generation, .. } = lesson else { return None };
        Some(PeerPlace::Known(*slot, *generation))
    });
    place.unwrap()
}

#[test]
fn beginnings_and_ends_become_records_with_the_peer_and_the_rule() {
    let mut pair = Pair::new();
    pair.connect();
    let traffic = Traffic { packets_from: 3, bytes_from: 300, packets_to: 4, bytes_to: 400 };
    let known = known(&pair.server);
    let event = BackendEvent { starts: 5, ends: 2, traffic, ..event(&pair, known) };
    let before = pair.server.count(SERVER, Reason::Accepted);
    let [begun, ended] = &told(&mut pair, &event)[..] else { panic!("two records") };
    assert_eq!(pair.server.count(SERVER, Reason::Accepted), before + 5);
    for record in [begun, ended] {
        assert_eq!((record.action, record.reason), (Action::Accept, Reason::Accepted));
        assert_eq!((record.rule.as_deref(), record.rule_number), (Some("frontends"), Some(1)));
        assert_eq!(record.source.id.as_ref().unwrap().as_str(), "client");
        assert_eq!((record.source.address, record.source.port), (client_end().addr, 0));
        assert_eq!((record.destination.address, record.destination.port), (server_end().addr, 80));
        assert_eq!((record.first_seen, record.last_seen), (event.first, event.last));
    }
    assert_eq!((begun.event, begun.count, begun.traffic), (FlowEvent::Decision, 5, None));
    assert_eq!((ended.event, ended.count, ended.traffic), (FlowEvent::End, 2, Some(traffic)));
}

#[test]
fn refusals_are_counted_under_their_reason_and_explained() {
    let intruder = spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted());
    let mut pair = Pair::with(EngineConfig::default(), intruder, server_spec());
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire);
    let refused = pair.server.lessons.iter().find_map(|lesson| {
        let Lesson::Refusal { slot, generation, .. } = lesson else { return None };
        Some(PeerPlace::Refused(*slot, *generation))
    });
    let refused = refused.unwrap();
    let event =
        BackendEvent { refused: 7, reason: Reason::PolicyIngress, rule: None, ..event(&pair, refused) };
    let [record] = &told(&mut pair, &event)[..] else { panic!("one record") };
    assert_eq!((record.action, record.reason, record.count), (Action::Reject, Reason::PolicyIngress, 7));
    assert_eq!(record.source.id.as_ref().unwrap().as_str(), "client");
    assert!(record.explanation.as_deref().unwrap().contains("role"));
    assert_eq!(pair.server.count(SERVER, Reason::PolicyIngress), 8);
}

#[test]
fn late_traffic_counts_as_no_end_and_forgotten_peers_have_no_name() {
    let mut pair = Pair::new();
    let traffic = Traffic { packets_to: 1, bytes_to: 40, ..Traffic::default() };
    for peer in [PeerPlace::Known(5, 5), PeerPlace::Refused(5, 5), PeerPlace::None] {
        let event = BackendEvent { traffic, ..event(&pair, peer) };
        let [record] = &told(&mut pair, &event)[..] else { panic!("one record") };
        assert_eq!((record.event, record.count), (FlowEvent::End, 0));
        assert_eq!((record.source.id.as_ref(), record.rule_number), (None, Some(1)));
    }
    let gone = BackendEvent { pu: CLIENT, starts: 1, ..event(&pair, PeerPlace::None) };
    assert!(told(&mut pair, &gone).is_empty());
}
