//! What the engine teaches a back end that completes handshakes by itself.

use std::time::Duration;

use trireme_datapath::{
    Authorize, EngineConfig, KeyName, Lesson, NotifyPeer, OnPolicyChange, OwnAttachment, PuSpec, Refusal,
};
use trireme_flow::{PuSlot, Reason};
use trireme_identity::Direction;
use trireme_policy::{
    FlowPolicy, IpRule, Mode, Observe, PuPolicy, Rule, RuleAction, Ruleset, Selector, Services,
};
use trireme_token::{Role, TokenId};

use crate::support::*;

/// A second connection between the two, whose SYN carries a MAC.
fn again(pair: &mut Pair, isn: u32) {
    let wire = pair.client_sends(&syn_with(isn)).sent();
    pair.server_gets(&wire).got();
    let wire = pair.server_sends(&syn_ack_with(SERVER_ISN, isn)).sent();
    pair.client_gets(&wire).got();
}

fn own(node: &Node, pu: PuSlot) -> Vec<OwnAttachment> {
    let told = node.lessons.iter().rev().find_map(|lesson| {
        let Lesson::OwnTokens { pu: whose, tokens } = lesson else { return None };
        (*whose == pu).then(|| tokens.clone())
    });
    told.unwrap()
}

/// Token, place, generation, our key.
fn peers(node: &Node) -> Vec<(TokenId, u32, u32, KeyName)> {
    let told = node.lessons.iter().filter_map(|lesson| {
        let Lesson::Peer { token, slot, generation, own_key, .. } = lesson else { return None };
        Some((*token, *slot, *generation, *own_key))
    });
    told.collect()
}

/// Place, generation, direction, port, epoch, reason.
fn verdicts(node: &Node) -> Vec<(u32, u32, Direction, u16, u32, Reason)> {
    let told = node.lessons.iter().filter_map(|lesson| {
        let Lesson::Verdict { peer_slot, generation, direction, port, epoch, reason, .. } = lesson else {
            return None;
        };
        Some((*peer_slot, *generation, *direction, *port, *epoch, *reason))
    });
    told.collect()
}

fn refusals(node: &Node) -> Vec<(TokenId, u16, Reason)> {
    let told = node.lessons.iter().filter_map(|lesson| {
        let Lesson::Refusal { token, port, reason, .. } = lesson else { return None };
        Some((*token, *port, *reason))
    });
    told.collect()
}

fn destinations(node: &Node) -> Vec<Option<(TokenId, TokenId)>> {
    let told = node.lessons.iter().filter_map(|lesson| {
        let Lesson::Destination { remote, peer, .. } = lesson else { return None };
        assert_eq!(*remote, server_end().into());
        Some(*peer)
    });
    told.collect()
}

fn pairs(node: &Node) -> Vec<(KeyName, KeyName, Role)> {
    let told = node.lessons.iter().filter_map(|lesson| {
        let Lesson::Pair { own, peer, role, .. } = lesson else { return None };
        Some((*own, *peer, *role))
    });
    told.collect()
}

#[test]
fn both_ends_learn_each_other_when_a_mac_has_verified() {
    let mut pair = Pair::new();
    let (client, server) = (own(&pair.client, CLIENT), own(&pair.server, SERVER));
    assert_eq!((client.len(), server.len()), (1, 1));
    let (client, server) = (&client[0], &server[0]);
    pair.client_sends(&syn()).sent();
    assert_eq!(destinations(&pair.client), [None], "its identity is shown there");
    pair.connect();
    let (place, generation) = (peers(&pair.client)[0].1, peers(&pair.client)[0].2);
    assert_eq!(peers(&pair.client), [(server.id, place, generation, client.key)]);
    assert_eq!(verdicts(&pair.client), [(place, generation, Direction::Egress, 80, 1, Reason::Accepted)]);
    assert_eq!(pairs(&pair.client), [(client.key, server.key, Role::Initiator)]);
    assert_eq!(destinations(&pair.client).last(), Some(&Some((server.id, client.id))));
    let (place, generation) = (peers(&pair.server)[0].1, peers(&pair.server)[0].2);
    assert_eq!(peers(&pair.server), [(client.id, place, generation, server.key)]);
    assert_eq!(verdicts(&pair.server), [(place, generation, Direction::Ingress, 80, 1, Reason::Accepted)]);
    assert_eq!(pairs(&pair.server), [(server.key, client.key, Role::Responder)]);
}

#[test]
fn a_peer_is_taught_no_sooner_than_it_has_proven_itself() {
    let mut pair = Pair::new();
    pair.open();
    assert!(peers(&pair.server).is_empty() && verdicts(&pair.server).is_empty());
    let proof = pair.client_sends(&ack()).sent();
    pair.server_gets(&proof).got();
    assert_eq!((peers(&pair.server).len(), verdicts(&pair.server).len()), (1, 1));
    pair.server.lessons.clear();
    again(&mut pair, 1000);
    assert_eq!((peers(&pair.server).len(), verdicts(&pair.server).len()), (1, 1), "by the SYN's MAC");
}

fn intruder() -> PuSpec {
    spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted())
}

#[test]
fn an_initiator_that_showed_only_a_token_can_only_be_refused() {
    let mut pair = Pair::with(EngineConfig::default(), intruder(), server_spec());
    let wire = pair.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::PolicyIngress);
    let client = own(&pair.client, CLIENT)[0].id;
    assert_eq!(refusals(&pair.server), [(client, 80, Reason::PolicyIngress)]);
    assert!(peers(&pair.server).is_empty() && verdicts(&pair.server).is_empty());
}

#[test]
fn a_refusal_that_is_answered_is_not_taught() {
    for (refusal, notify_peer) in [
        (Refusal::Rst, NotifyPeer::Never),
        (Refusal::Icmp, NotifyPeer::Never),
        (Refusal::Silent, NotifyPeer::WithReason),
    ] {
        let mut server = server_spec();
        (server.settings.refusal, server.settings.notify_peer) = (refusal, notify_peer);
        let mut pair = Pair::with(EngineConfig::default(), intruder(), server);
        let wire = pair.client_sends(&syn()).sent();
        pair.server_gets(&wire);
        assert!(refusals(&pair.server).is_empty(), "{refusal:?} {notify_peer:?}");
    }
}

#[test]
fn a_proven_peer_that_is_refused_gets_a_refusing_verdict() {
    let mut pair = Pair::new();
    pair.connect();
    let mut closed = server_spec();
    closed.epoch = 2;
    closed.policy = std::sync::Arc::new(
        trireme_policy::CompiledPolicy::compile(&PuPolicy {
            ingress: Ruleset::Rules(Vec::new()),
            ..PuPolicy::unrestricted()
        })
        .unwrap(),
    );
    pair.server.upsert(closed, pair.now);
    pair.server.lessons.clear();
    let wire = pair.client_sends(&syn_with(1000)).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::PolicyIngress);
    let [(.., epoch, reason)] = verdicts(&pair.server)[..] else { panic!("one verdict") };
    assert_eq!((epoch, reason), (2, Reason::PolicyIngress));
    assert!(refusals(&pair.server).is_empty());
}

fn server_with(policy: &PuPolicy) -> PuSpec {
    spec(SERVER, "server", &["role=backend"], policy)
}

fn rule(flow: FlowPolicy) -> Rule {
    Rule::new([Selector::new([])], Services::Any, flow)
}

/// Policies whose verdicts hold for one address, or ask for more than to let pass.
#[test]
fn verdicts_that_depend_on_more_than_the_peer_are_not_taught() {
    let mut every_peer =
        IpRule::new(["10.9.0.0/16".parse().unwrap()], Services::Any, FlowPolicy::new(RuleAction::Reject));
    every_peer.any_peer = true;
    let by_address = PuPolicy { network_acls: Ruleset::Rules(vec![every_peer]), ..PuPolicy::unrestricted() };
    let observing = PuPolicy { mode: Mode::Observe, ..PuPolicy::unrestricted() };
    let watched = FlowPolicy { observe: Observe::Continue, ..FlowPolicy::reject() };
    let watching = PuPolicy {
        ingress: Ruleset::Rules(vec![rule(watched), rule(FlowPolicy::accept())]),
        ..PuPolicy::unrestricted()
    };
    let with = |flow| PuPolicy { ingress: Ruleset::Rules(vec![rule(flow)]), ..PuPolicy::unrestricted() };
    let logged = with(FlowPolicy { log: true, ..FlowPolicy::accept() });
    let encrypted = with(FlowPolicy { encrypt: true, ..FlowPolicy::accept() });
    for policy in [by_address, observing, watching, logged, encrypted] {
        let mut pair = Pair::with(EngineConfig::default(), client_spec(), server_with(&policy));
        pair.connect();
        again(&mut pair, 1000);
        assert_eq!(peers(&pair.server).len(), 2, "{policy:?}");
        assert!(verdicts(&pair.server).is_empty(), "{policy:?}");
    }
    let mut pair =
        Pair::with(EngineConfig::default(), client_spec(), server_with(&with(FlowPolicy::accept())));
    pair.connect();
    assert_eq!(verdicts(&pair.server).len(), 1);
}

#[test]
fn an_initiator_that_leaves_authorization_to_the_receiver_accepts_every_peer() {
    let mut client = client_spec();
    client.settings.authorize = Authorize::ReceiverOnly;
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    pair.connect();
    let [(.., reason)] = verdicts(&pair.client)[..] else { panic!("one verdict") };
    assert_eq!(reason, Reason::Accepted);
}

#[test]
fn a_unit_that_is_only_observed_is_taught_no_destination() {
    let policy = PuPolicy { mode: Mode::Observe, ..PuPolicy::unrestricted() };
    let client = spec(CLIENT, "client", &["role=frontend"], &policy);
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    pair.connect();
    assert!(destinations(&pair.client).is_empty() && verdicts(&pair.client).is_empty());
}

#[test]
fn a_connection_that_is_judged_again_teaches_the_verdict() {
    for (policy, on_change, reason) in [
        (frontends_only(), OnPolicyChange::Cut, Reason::Accepted),
        (frontends_only(), OnPolicyChange::Keep, Reason::Accepted),
        (
            PuPolicy { ingress: Ruleset::Rules(Vec::new()), ..PuPolicy::unrestricted() },
            OnPolicyChange::Cut,
            Reason::PolicyIngress,
        ),
    ] {
        let mut pair = Pair::new();
        pair.connect();
        let mut changed = server_with(&policy);
        (changed.epoch, changed.settings.on_policy_change) = (2, on_change);
        pair.server.upsert(changed, pair.now);
        pair.server.lessons.clear();
        pair.server_gets(&data(b"x"));
        let [(.., epoch, taught)] = verdicts(&pair.server)[..] else { panic!("one verdict") };
        assert_eq!((epoch, taught), (2, reason));
    }
}

#[test]
fn a_hostile_path_takes_the_destination_back() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    let beyond = next().wrapping_add(u32::try_from(payload(&wire).len()).unwrap());
    let answer = segment(&from_server(SERVER_ISN, beyond, trireme_wire::tcp::Flags::SYN_ACK));
    assert_eq!(pair.client_gets(&answer).silence(), Reason::HostilePath);
    assert!(matches!(
        pair.client.lessons.last(),
        Some(Lesson::ForgetDestination { pu: CLIENT, remote }) if *remote == server_end().into()
    ));
}

#[test]
fn own_tokens_are_taught_newest_first_and_older_ones_while_they_hold() {
    let mut pair = Pair::new();
    let first = own(&pair.client, CLIENT)[0].clone();
    assert_eq!(first.until, pair.now.wall.plus_secs(600));
    pair.wait(Duration::from_secs(301));
    pair.client.timeout(pair.now);
    let told = own(&pair.client, CLIENT);
    assert_eq!((told.len(), told[1].id, told[1].until), (2, first.id, first.until));
    assert_ne!((told[0].id, told[0].key), (first.id, first.key));
    let mut changed = spec(CLIENT, "client", &["role=other"], &PuPolicy::unrestricted());
    changed.epoch = 2;
    pair.client.upsert(changed, pair.now);
    let tags = own(&pair.client, CLIENT);
    assert_eq!((tags.len(), tags[0].key), (1, told[0].key), "a token of other tags is not shown again");
    let secrets = psk_secrets("node-a", "Zc8nBm4QhTy2UiLk7JdF");
    let mut effects = Vec::new();
    pair.client.engine.set_secrets(secrets, pair.now, &mut effects).unwrap();
    pair.client.carry_out(effects, pair.now, &mut Step::default());
    let anew = own(&pair.client, CLIENT);
    assert_eq!(anew.len(), 1);
    assert_ne!(anew[0].key, tags[0].key);
    assert!(!format!("{anew:?}").contains(&format!("{:?}", anew[0].token)), "debug output shows no token");
}

#[test]
fn a_peer_that_makes_room_is_forgotten_by_the_back_end_too() {
    let config = EngineConfig { peers: 1, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    pair.connect();
    let first = own(&pair.client, CLIENT)[0].id;
    let mut changed = spec(CLIENT, "client", &["role=frontend", "n=2"], &PuPolicy::unrestricted());
    changed.epoch = 2;
    pair.client.upsert(changed, pair.now);
    again(&mut pair, 1000);
    let proof = segment(&from_client(1001, SERVER_ISN + 1, trireme_wire::tcp::Flags::ACK));
    let wire = pair.client_sends(&proof).sent();
    pair.server_gets(&wire).got();
    let forgotten = pair.server.lessons.iter().any(|l| matches!(l, Lesson::ForgetPeer(id) if *id == first));
    assert!(forgotten);
    let told = peers(&pair.server);
    let ((_, place, before, _), (_, same, after, _)) = (told[0], told[told.len() - 1]);
    assert_eq!(place, same);
    assert_ne!(before, after);
}
