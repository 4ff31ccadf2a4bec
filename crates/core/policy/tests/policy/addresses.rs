//! Rules about addresses.

use std::net::IpAddr;

use trireme_identity::{Direction, Protocol};
use trireme_policy::Action::{Accept, Reject};
use trireme_policy::{
    Clause, CompiledPolicy, Decision, FlowPolicy, IpRule, Order, Peer, PuPolicy, RuleAction, Ruleset,
    Service, Services,
};

use crate::{accept, ingress, tags, verdict};

fn acl(name: &str, action: RuleAction, networks: &[&str], except: &[&str]) -> IpRule {
    let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let mut rule = IpRule::new(parse(networks), Services::Any, FlowPolicy::new(action).named("p", name));
    rule.except = parse(except);
    rule
}

fn network(rules: impl IntoIterator<Item = IpRule>) -> PuPolicy {
    PuPolicy { network_acls: Ruleset::Rules(rules.into_iter().collect()), ..PuPolicy::unrestricted() }
}

fn from(policy: &PuPolicy, address: &str) -> Decision {
    let address: IpAddr = address.parse().unwrap();
    CompiledPolicy::compile(policy).unwrap().decide_ip(Direction::Ingress, address, 80, Protocol::TCP)
}

#[test]
fn the_longest_prefix_wins_whatever_its_action() {
    let policy = network([
        acl("wide", RuleAction::Reject, &["10.0.0.0/8"], &[]),
        acl("narrow", RuleAction::Accept, &["10.1.0.0/16"], &[]),
        acl("host", RuleAction::Reject, &["10.1.2.3/32"], &[]),
        acl("six", RuleAction::Accept, &["fd00::/8"], &[]),
    ]);
    assert_eq!(verdict(&from(&policy, "10.2.0.1")), (Reject, Some("wide")));
    assert_eq!(verdict(&from(&policy, "10.1.0.1")), (Accept, Some("narrow")));
    assert_eq!(verdict(&from(&policy, "10.1.2.3")), (Reject, Some("host")));
    assert_eq!(verdict(&from(&policy, "fd00::1")), (Accept, Some("six")));
    assert_eq!(verdict(&from(&policy, "192.0.2.1")), (Reject, None));
}

#[test]
fn equal_prefixes_reject_first_and_priority_comes_before_length() {
    let same = network([
        acl("yes", RuleAction::Accept, &["10.0.0.0/8"], &[]),
        acl("no", RuleAction::Reject, &["10.9.9.9/8"], &[]),
    ]);
    assert_eq!(verdict(&from(&same, "10.0.0.1")), (Reject, Some("no")));
    let mut narrow = acl("narrow", RuleAction::Reject, &["10.0.0.0/24"], &[]);
    narrow.order = Order { tier: 0, priority: 1 };
    let policy = network([acl("wide", RuleAction::Accept, &["10.0.0.0/8"], &[]), narrow]);
    assert_eq!(verdict(&from(&policy, "10.0.0.1")), (Accept, Some("wide")));
}

#[test]
fn an_exception_takes_addresses_out_of_its_own_rule_only() {
    let policy = network([
        acl("net", RuleAction::Accept, &["10.0.0.0/8"], &["10.1.0.0/16"]),
        acl("all", RuleAction::Accept, &["0.0.0.0/0"], &["10.2.0.0/16"]),
    ]);
    assert_eq!(verdict(&from(&policy, "10.0.0.1")), (Accept, Some("net")));
    assert_eq!(verdict(&from(&policy, "10.1.0.1")), (Accept, Some("all")));
    assert_eq!(verdict(&from(&policy, "10.2.0.1")), (Accept, Some("net")));
}

#[test]
fn a_longer_prefix_about_another_port_does_not_hide_a_shorter_one() {
    let mut host = acl("host", RuleAction::Reject, &["10.0.0.1/32"], &[]);
    host.services = Services::Only(vec![Service::tcp(22)]);
    let policy = network([acl("net", RuleAction::Accept, &["10.0.0.0/8"], &[]), host]);
    assert_eq!(verdict(&from(&policy, "10.0.0.1")), (Accept, Some("net")));
}

#[test]
fn icmp_types_and_codes_are_told_apart() {
    let mut echo = acl("echo", RuleAction::Accept, &["0.0.0.0/0"], &[]);
    echo.services = Services::Only(vec![
        Service::icmp(Protocol::ICMP, 8, None).unwrap(),
        Service::icmp(Protocol::ICMP, 3, Some(4)).unwrap(),
    ]);
    let compiled = CompiledPolicy::compile(&network([echo])).unwrap();
    let action = |kind: u8, code: u8| {
        let port = u16::from_be_bytes([kind, code]);
        compiled.decide_ip(Direction::Ingress, "192.0.2.1".parse().unwrap(), port, Protocol::ICMP).action
    };
    assert_eq!(
        [(8, 0), (8, 9), (3, 4), (3, 3), (0, 0)].map(|(kind, code)| action(kind, code)),
        [Accept, Accept, Accept, Reject, Reject]
    );
}

#[test]
fn hiding_the_identity_gains_nothing_where_only_tag_rules_exist() {
    let policy = PuPolicy {
        network_acls: Ruleset::Unrestricted,
        ..ingress([accept("web", [Clause::exists("tier")])])
    };
    assert_eq!(verdict(&from(&policy, "10.0.0.1")), (Reject, None));
    assert_eq!(verdict(&from(&PuPolicy::unrestricted(), "10.0.0.1")), (Accept, None));
}

#[test]
fn a_rule_for_any_peer_judges_peers_with_identity_too() {
    let mut block = acl("block", RuleAction::Reject, &["10.1.0.0/16"], &[]);
    block.any_peer = true;
    let mut admit = acl("admit", RuleAction::Accept, &["10.2.0.0/16"], &[]);
    admit.any_peer = true;
    let plain = acl("plain", RuleAction::Accept, &["10.3.0.0/16"], &[]);
    let mut policy = ingress([accept("web", [Clause::equal("tier", ["web"])])]);
    policy.network_acls = Ruleset::Rules(vec![block, admit, plain]);
    let compiled = CompiledPolicy::compile(&policy).unwrap();
    let decide = |list: &[&str], address: Option<&str>| {
        let tags = tags(list);
        let address = address.map(|text| text.parse().unwrap());
        let peer = Peer { tags: &tags, partial: false };
        compiled.decide_at(Direction::Ingress, &peer, address, 80, Protocol::TCP)
    };
    assert_eq!(verdict(&decide(&["tier=web"], Some("10.1.0.1"))), (Reject, Some("block")));
    assert_eq!(verdict(&decide(&["tier=web"], Some("10.2.0.1"))), (Accept, Some("admit")));
    assert_eq!(verdict(&decide(&["tier=db"], Some("10.2.0.1"))), (Accept, Some("admit")));
    assert_eq!(verdict(&decide(&["tier=db"], Some("10.3.0.1"))), (Reject, None));
    assert_eq!(verdict(&decide(&["tier=web"], None)), (Accept, Some("web")));
}

#[test]
fn a_rule_for_any_peer_also_acts_where_tags_are_unrestricted() {
    let mut block = acl("block", RuleAction::Reject, &["10.1.0.0/16"], &[]);
    block.any_peer = true;
    let compiled = CompiledPolicy::compile(&network([block])).unwrap();
    let nobody = tags(&[]);
    let decide = |address: &str| {
        let peer = Peer { tags: &nobody, partial: false };
        compiled.decide_at(Direction::Ingress, &peer, address.parse().ok(), 80, Protocol::TCP).action
    };
    assert_eq!(["10.1.0.1", "10.2.0.1"].map(decide), [Reject, Accept]);
}

#[test]
fn only_address_rules_for_every_peer_make_verdicts_depend_on_the_address() {
    let judges = |policy: &PuPolicy| {
        let policy = CompiledPolicy::compile(policy).unwrap();
        (policy.judges_by_address(Direction::Ingress), policy.judges_by_address(Direction::Egress))
    };
    let mut rule = acl("net", RuleAction::Reject, &["10.0.0.0/8"], &[]);
    assert_eq!(judges(&network([rule.clone()])), (false, false));
    rule.any_peer = true;
    assert_eq!(judges(&network([rule.clone()])), (true, false));
    rule.flow.observe = trireme_policy::Observe::Continue;
    assert_eq!(judges(&network([rule])), (true, false));
}
