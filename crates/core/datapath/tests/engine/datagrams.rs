//! Flows of other protocols than TCP, judged by address: one decision, one entry, both directions.

use std::time::Duration;

use trireme_datapath::{
    Block, EngineConfig, OnPolicyChange, OtherProtocols, PuSpec, Refusal, Strictness, TargetNetworks,
};
use trireme_flow::{Action, ConnectionClass, Reason};
use trireme_identity::{Direction, Protocol};
use trireme_policy::{FlowPolicy, IpRule, Mode, PuPolicy, Ruleset, Service, Services};
use trireme_token::Role;
use trireme_wire::build::{self, Unreachable};
use trireme_wire::icmp;

use crate::support::*;

const NET: &str = "10.0.0.0/24";

fn rules(net: &str, services: &[&str]) -> Ruleset<IpRule> {
    let services: Vec<Service> = services.iter().map(|text| text.parse().unwrap()).collect();
    let rule =
        IpRule::new([net.parse().unwrap()], Services::Only(services), FlowPolicy::accept().named("p", "r"));
    Ruleset::Rules(vec![rule])
}

/// Admits these services from the client's network; opens nothing.
fn server_with(services: &[&str]) -> PuSpec {
    let policy = PuPolicy {
        network_acls: rules(NET, services),
        application_acls: Ruleset::Rules(Vec::new()),
        ..frontends_only()
    };
    spec(SERVER, "server", &["role=backend"], &policy)
}

/// The same where nobody is expected to have an identity.
fn plain_server_with(services: &[&str]) -> PuSpec {
    let mut server = server_with(services);
    server.settings.target_networks = TargetNetworks { include: Vec::new(), exclude: Vec::new() };
    server
}

fn server_of(services: &[&str]) -> Pair {
    Pair::with(EngineConfig::default(), client_spec(), plain_server_with(services))
}

fn query() -> Vec<u8> {
    udp(client_end(), server_end(), b"query")
}

fn reply() -> Vec<u8> {
    udp(server_end(), client_end(), b"reply")
}

#[test]
fn a_datagram_is_judged_once_and_its_replies_pass_because_of_it() {
    let mut pair = server_of(&["80/udp"]);
    assert_eq!(pair.server_gets(&query()).got(), query());
    let key = server_key().over(Protocol::UDP);
    let entry = pair.server.table[&key];
    assert_eq!(
        (entry.class, entry.role, entry.epoch, entry.confirmed, entry.data_seen, entry.proof_seq),
        (ConnectionClass::Address, Role::Responder, 1, true, false, 0)
    );
    assert_eq!(pair.server_sends(&reply()).sent(), reply());
    assert_eq!(pair.server_gets(&query()).got(), query());
    assert_eq!(pair.server.writes.len(), 1, "later packets pass in the kernel");
    let record = pair.server.records.last().unwrap();
    assert_eq!(
        (record.protocol, record.action, record.reason, record.direction, record.rule.as_deref()),
        (Protocol::UDP, Action::Accept, Reason::Accepted, Direction::Ingress, Some("r"))
    );
    assert_eq!(pair.server.count(SERVER, Reason::Accepted), 1);
}

#[test]
fn who_sends_first_decides_the_direction() {
    let mut pair = server_of(&["80/udp"]);
    assert_eq!(pair.server_sends(&reply()).silence(), Reason::ApplicationAcl);
    assert!(pair.server.table.is_empty());
    let elsewhere = udp(client_end(), Endpoint::new(server_end().addr, 81), b"query");
    assert_eq!(pair.server_gets(&elsewhere).silence(), Reason::NetworkAcl);
    let record = pair.server.records.last().unwrap();
    assert_eq!((record.protocol, record.action), (Protocol::UDP, Action::Reject));
    assert!(record.explanation.is_some());
}

#[test]
fn packets_on_their_way_when_the_entry_is_written_count_as_the_same_flow() {
    let mut pair = server_of(&["80/udp"]);
    pair.server_gets(&query()).got();
    pair.server.table.clear();
    assert_eq!(pair.server_gets(&query()).got(), query());
    assert_eq!(pair.server_sends(&reply()).sent(), reply(), "the reply overtook the entry");
    assert_eq!(pair.server.count(SERVER, Reason::Accepted), 1);
    pair.wait(Duration::from_secs(2));
    assert_eq!(pair.server_sends(&reply()).silence(), Reason::ApplicationAcl, "the entry has expired");
}

#[test]
fn a_new_epoch_judges_a_flow_again() {
    for (services, on_change, goes_on) in [
        (&["80/udp"][..], OnPolicyChange::Cut, true),
        (&["81/udp"], OnPolicyChange::Cut, false),
        (&["81/udp"], OnPolicyChange::Keep, true),
    ] {
        let mut pair = server_of(&["80/udp"]);
        pair.server_gets(&query()).got();
        let mut changed = PuSpec { epoch: 2, ..plain_server_with(services) };
        changed.settings.on_policy_change = on_change;
        pair.server.upsert(changed, pair.now);
        let step = pair.server_sends(&reply());
        if goes_on {
            assert_eq!(step.sent(), reply());
            assert_eq!(pair.server.table[&server_key().over(Protocol::UDP)].epoch, 2);
            assert_eq!(pair.server.count(SERVER, Reason::Reauthorized), 1);
        } else {
            assert_eq!(step.silence(), Reason::PolicyChanged);
            assert!(pair.server.table.is_empty());
            assert_eq!(pair.server_sends(&reply()).silence(), Reason::ApplicationAcl);
        }
    }
}

#[test]
fn a_query_of_the_peer_is_no_reply_to_the_units_own() {
    let policy = PuPolicy {
        network_acls: Ruleset::Rules(Vec::new()),
        application_acls: rules(NET, &["icmp/8"]),
        ..frontends_only()
    };
    let server = spec(SERVER, "server", &["role=backend"], &policy);
    let mut pair = Pair::with(EngineConfig::default(), client_spec(), server);
    // The identifier is the number of the query's type: both ends' queries have the same name.
    let (ping, pong) = (echo(8, 0x0800, Way::Back), echo(0, 0x0800, Way::Forth));
    assert_eq!(pair.server_sends(&ping).sent(), ping);
    assert_eq!(pair.server_gets(&pong).got(), pong);
    assert_eq!(pair.server_gets(&echo(8, 0x0800, Way::Forth)).silence(), Reason::NetworkAcl);
    assert_eq!(pair.server_gets(&echo(0, 7, Way::Forth)).silence(), Reason::NetworkAcl, "nobody asked");
    assert_eq!(pair.server_gets(&pong).got(), pong);
}

#[test]
fn icmp_is_judged_by_type_and_code() {
    let mut pair = server_of(&["icmp/8"]);
    let (ping, pong) = (echo(8, 9, Way::Forth), echo(0, 9, Way::Back));
    assert_eq!(pair.server_gets(&ping).got(), ping);
    assert_eq!(pair.server_sends(&pong).sent(), pong);
    assert_eq!(pair.server_gets(&echo(13, 9, Way::Forth)).silence(), Reason::NetworkAcl, "a timestamp");
    assert_eq!(pair.server_sends(&echo(8, 10, Way::Back)).silence(), Reason::ApplicationAcl, "its own");
    let record = pair.server.records.first().unwrap();
    assert_eq!((record.protocol, record.reason), (Protocol::ICMP, Reason::Accepted), "nobody has identity");
    // A reply to a query that is forgotten has a rule of its own or none.
    let mut pair = server_of(&["icmp/0"]);
    assert_eq!(pair.server_gets(&echo(0, 9, Way::Forth)).got(), echo(0, 9, Way::Forth));
    assert!(pair.server.table.is_empty());
}

#[test]
fn sctp_and_udp_lite_are_judged_by_ports_and_others_by_number() {
    let mut pair = server_of(&["80/sctp", "80/udplite", "47"]);
    let with_ports = |protocol: Protocol, port: u16| {
        let [high, low] = port.to_be_bytes();
        raw(protocol, Way::Forth, &[0x9c, 0x40, high, low, 0, 8, 0, 0, 0, 0, 0, 0])
    };
    for protocol in [Protocol::SCTP, Protocol::UDP_LITE] {
        let good = with_ports(protocol, 80);
        assert_eq!(pair.server_gets(&good).got(), good, "{protocol}");
        assert_eq!(pair.server_gets(&with_ports(protocol, 81)).silence(), Reason::NetworkAcl);
    }
    let gre = raw(Protocol(47), Way::Forth, &[0; 8]);
    assert_eq!(pair.server_gets(&gre).got(), gre);
    assert_eq!(pair.server_sends(&raw(Protocol(47), Way::Back, &[0; 8])).sent().len(), gre.len());
    assert_eq!(pair.server_gets(&raw(Protocol(50), Way::Forth, &[0; 8])).silence(), Reason::ProtocolDenied);
}

#[test]
fn what_no_rule_speaks_about_follows_the_setting() {
    let unknown = raw(Protocol(50), Way::Forth, &[0; 8]);
    let step = |setting, spec: PuSpec, packet: &[u8]| {
        let mut server = spec;
        server.settings.other_protocols = setting;
        let mut pair = Pair::with(EngineConfig::default(), client_spec(), server);
        let dropped = pair.server_gets(packet).dropped;
        (dropped, pair.server.count(SERVER, Reason::Unjudged))
    };
    let open = || spec(SERVER, "server", &[], &PuPolicy::unrestricted());
    assert_eq!(step(OtherProtocols::Deny, open(), &unknown), (Some(Reason::ProtocolDenied), 0));
    assert_eq!(step(OtherProtocols::Allow, open(), &unknown), (None, 1));
    assert_eq!(step(OtherProtocols::Deny, open(), &query()), (None, 0), "a direction without rules");
    assert_eq!(step(OtherProtocols::Allow, server_with(&["80/tcp"]), &query()), (None, 1));
    assert_eq!(
        step(OtherProtocols::Allow, server_with(&["81/udp"]), &query()),
        (Some(Reason::NetworkAcl), 0)
    );
    assert_eq!(step(OtherProtocols::Deny, server_with(&["80/tcp"]), &query()), (Some(Reason::NetworkAcl), 0));
}

#[test]
fn a_back_end_need_not_ask_about_what_nobody_judges() {
    let judges = |spec: PuSpec, setting| {
        let mut spec = spec;
        spec.settings.other_protocols = setting;
        spec.judges_other_protocols()
    };
    let off = spec(SERVER, "server", &[], &PuPolicy { mode: Mode::Off, ..PuPolicy::deny_all() });
    assert!(judges(client_spec(), OtherProtocols::Deny));
    assert!(!judges(client_spec(), OtherProtocols::Allow));
    assert!(!judges(server_with(&["80/tcp"]), OtherProtocols::Allow));
    assert!(judges(server_with(&["80/udp"]), OtherProtocols::Allow));
    assert!(!judges(off, OtherProtocols::Deny));
}

#[test]
fn strict_identity_refuses_addresses_inside_the_target_networks() {
    let mut server = server_with(&["80/udp"]);
    server.settings.strictness = Strictness::StrictIdentity;
    let mut pair = Pair::with(EngineConfig::default(), client_spec(), server);
    assert_eq!(pair.server_gets(&query()).silence(), Reason::StrictIdentity);
}

#[test]
fn groups_are_a_matter_of_rules() {
    let policy =
        PuPolicy { application_acls: rules("224.0.0.251/32", &["5353/udp"]), ..PuPolicy::deny_all() };
    let client = spec(CLIENT, "client", &[], &policy);
    let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
    let to = |addr: &str| udp(client_end(), Endpoint::new(ip(addr), 5353), b"who");
    assert_eq!(pair.client_sends(&to("224.0.0.251")).sent(), to("224.0.0.251"));
    assert_eq!(pair.client_sends(&to("224.0.0.252")).silence(), Reason::ApplicationAcl);
    assert_eq!(pair.client_sends(&to("255.255.255.255")).silence(), Reason::ApplicationAcl);
}

#[test]
fn a_refused_flow_is_blocked_where_nothing_is_to_be_said_about_it() {
    let mut pair = server_of(&["81/udp"]);
    pair.server_gets(&query()).silence();
    let block = Block {
        role: Role::Responder,
        epoch: 1,
        reason: Reason::NetworkAcl,
        rule: None,
        lasts: Duration::from_secs(10),
    };
    assert_eq!(pair.server.blocked, [(server_key().over(Protocol::UDP), block)]);
    pair.server_gets(&echo(0, 9, Way::Forth)).silence();
    assert_eq!(pair.server.blocked.len(), 1, "the name of a reply is that of its query's flow");
}

#[test]
fn a_refusal_is_answered_as_the_settings_say() {
    for (refusal, why) in [(Refusal::Icmp, Unreachable::Prohibited), (Refusal::Rst, Unreachable::Port)] {
        let mut server = plain_server_with(&["81/udp"]);
        server.settings.refusal = refusal;
        let mut pair = Pair::with(EngineConfig::default(), client_spec(), server);
        let step = pair.server_gets(&query());
        assert_eq!(step.network, [build::icmp_unreachable(&query(), why).unwrap()]);
        assert!(pair.server.blocked.is_empty());
        assert!(pair.server_sends(&reply()).unit.len() == 1, "its own refusals the unit learns as well");
    }
}

#[test]
fn an_observed_unit_gets_everything_and_the_record_says_what_would_have_been() {
    let mut server = server_with(&["81/udp"]);
    let policy = PuPolicy { mode: Mode::Observe, ..server.policy.source().clone() };
    server.policy = spec(SERVER, "server", &[], &policy).policy;
    for strictness in [Strictness::Lenient, Strictness::StrictIdentity] {
        server.settings.strictness = strictness;
        let mut pair = Pair::with(EngineConfig::default(), client_spec(), server.clone());
        assert_eq!(pair.server_gets(&query()).got(), query());
        let record = pair.server.records.last().unwrap();
        assert_eq!((record.action, record.observed), (Action::Accept, Some(Action::Reject)));
        assert_eq!(pair.server.table.len(), 1, "one question, not one per packet");
    }
    let policy = PuPolicy { mode: Mode::Off, ..server.policy.source().clone() };
    server.policy = spec(SERVER, "server", &[], &policy).policy;
    let mut pair = Pair::with(EngineConfig::default(), client_spec(), server);
    assert_eq!(pair.server_gets(&query()).got(), query());
    assert!(pair.server.table.is_empty() && pair.server.records.is_empty());
}

#[test]
fn errors_about_a_known_flow_pass_and_others_do_not() {
    let mut pair = server_of(&["80/udp", "icmp/8"]);
    let about = |packet: &[u8]| build::icmp_unreachable(packet, Unreachable::Port).unwrap();
    assert_eq!(pair.server_gets(&about(&reply())).silence(), Reason::IcmpUnknown);
    pair.server_gets(&query()).got();
    assert_eq!(pair.server_gets(&about(&reply())).got(), about(&reply()), "the engine admitted it lately");
    assert_eq!(pair.server_sends(&about(&query())).sent(), about(&query()));
    let ping = echo(8, 9, Way::Forth);
    pair.server_gets(&ping).got();
    let pong = about(&echo(0, 9, Way::Back));
    assert_eq!(pair.server_gets(&pong).got(), pong);
    let mut bent = about(&reply());
    bent[30] ^= 1;
    assert!(!icmp::verify(&bent));
    assert_eq!(pair.server_gets(&bent).silence(), Reason::BadChecksum);
    let redirect = raw(Protocol::ICMP, Way::Forth, &[&[5, 1, 0, 0, 10, 0, 0, 9][..], &reply()].concat());
    assert_eq!(pair.server_gets(&redirect).silence(), Reason::NetworkAcl, "no error, and no rule for it");
}

#[test]
fn a_unit_that_takes_the_slot_inherits_no_flow() {
    let mut pair = server_of(&["80/udp"]);
    pair.server_gets(&query()).got();
    let mut effects = Vec::new();
    pair.server.engine.remove_pu(SERVER, pair.now, &mut effects);
    pair.server.table.clear();
    pair.server.upsert(server_with(&["81/udp"]), pair.now);
    assert_eq!(pair.server_gets(&query()).silence(), Reason::NetworkAcl);
    assert_eq!(pair.server.stats().flows, 0);
}
