//! The compiled policy against the naive evaluator, on random policies and peers.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use trireme_identity::{Direction, Protocol, Tag, TagSet};
use trireme_policy::naive::{self, Other};
use trireme_policy::{
    Clause, CompiledPolicy, Decision, FlowPolicy, IpRule, Mode, Observe, Order, Peer, PuPolicy, Rule,
    RuleAction, Ruleset, Selector, Service, Services, TierDefault, Tiers, Values,
};

const TIERS: u8 = 3;

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "x", "xy", "xyz", "y", "é", "ée"])
}

fn values() -> impl Strategy<Value = Values> {
    (btree_set(value(), 0..3), btree_set(value(), 0..3), value()).prop_map(|(exact, prefixes, spare)| {
        let boxed = |set: std::collections::BTreeSet<&str>| set.into_iter().map(Box::from).collect();
        let mut values = Values { exact: boxed(exact), prefixes: boxed(prefixes) };
        if values.is_empty() {
            values.exact.insert(spare.into());
        }
        values
    })
}

fn clause() -> impl Strategy<Value = Clause> {
    use trireme_policy::Test;
    let test = prop_oneof![
        3 => values().prop_map(Test::AnyOf),
        2 => values().prop_map(Test::NoneOf),
        1 => Just(Test::Exists),
        1 => Just(Test::NotExists),
    ];
    (key(), test).prop_map(|(key, test)| Clause { key: key.into(), test })
}

fn flow() -> impl Strategy<Value = FlowPolicy> {
    let action = prop_oneof![1 => Just(RuleAction::Reject), 1 => Just(RuleAction::Pass), 3 => Just(RuleAction::Accept)];
    let observe =
        prop_oneof![4 => Just(Observe::None), 1 => Just(Observe::Continue), 1 => Just(Observe::Apply)];
    let name = || option::of(prop::sample::select(vec!["n1", "n2", "n3"]));
    (action, observe, name(), name(), any::<bool>()).prop_map(|(action, observe, policy, rule, log)| {
        FlowPolicy {
            action,
            observe: if action == RuleAction::Pass { Observe::None } else { observe },
            policy_id: policy.map(Into::into),
            rule_name: rule.map(Into::into),
            log,
            encrypt: false,
        }
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::TCP, Protocol::UDP])
}

fn services() -> impl Strategy<Value = Services> {
    let service = (protocol(), 0..6u16, 0..3u16)
        .prop_map(|(protocol, first, more)| Service::ports(protocol, first, first + more).unwrap());
    prop_oneof![Just(Services::Any), vec(service, 0..4).prop_map(Services::Only)]
}

fn order() -> impl Strategy<Value = Order> {
    (0..TIERS, 0..3u32).prop_map(|(tier, priority)| Order { tier, priority })
}

fn rules() -> impl Strategy<Value = Ruleset> {
    let selectors = vec(vec(clause(), 0..4).prop_map(Selector::new), 0..3);
    let rule = (order(), flow(), selectors, services()).prop_map(|(order, flow, selectors, services)| Rule {
        order,
        flow,
        selectors,
        services,
    });
    prop_oneof![1 => Just(Ruleset::Unrestricted), 6 => vec(rule, 0..12).prop_map(Ruleset::Rules)]
}

/// Few bits vary, so that networks overlap.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..4u8, 0..4u8).prop_map(|(low, high)| IpAddr::from([10, high, 0, low]));
    let v6 = (0..4u16, 0..4u16).prop_map(|(low, high)| IpAddr::from([0xfd00, high, 0, 0, 0, 0, 0, low]));
    prop_oneof![2 => v4, 1 => v6]
}

fn network() -> impl Strategy<Value = IpNet> {
    (address(), any::<prop::sample::Index>()).prop_map(|(address, index)| {
        let lens: &[u8] = if address.is_ipv4() {
            &[0, 8, 14, 15, 16, 30, 31, 32]
        } else {
            &[0, 8, 30, 31, 32, 126, 127, 128]
        };
        IpNet::new(address, *index.get(lens)).unwrap()
    })
}

fn acls() -> impl Strategy<Value = Ruleset<IpRule>> {
    let rule = (order(), flow(), vec(network(), 0..4), vec(network(), 0..2), services(), any::<bool>())
        .prop_map(|(order, flow, networks, except, services, any_peer)| IpRule {
            order,
            flow,
            networks,
            except,
            services,
            any_peer,
        });
    prop_oneof![1 => Just(Ruleset::Unrestricted), 4 => vec(rule, 0..12).prop_map(Ruleset::Rules)]
}

fn policy() -> impl Strategy<Value = PuPolicy> {
    let default = prop::sample::select(vec![TierDefault::Reject, TierDefault::Pass, TierDefault::Accept]);
    let tiers = vec(default, usize::from(TIERS));
    let complete = btree_set(key().prop_map(Box::from), 0..2);
    (tiers, rules(), acls(), complete).prop_map(|(tiers, rules, acls, complete_keys)| PuPolicy {
        mode: Mode::Enforce,
        tiers: Tiers { ingress: tiers.clone(), egress: tiers },
        ingress: rules.clone(),
        egress: rules,
        network_acls: acls.clone(),
        application_acls: acls,
        complete_keys,
    })
}

fn tag_list() -> impl Strategy<Value = Vec<Tag>> {
    let tag = prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Tag::new(key, value).unwrap()),
        1 => Just(Tag::new("@port", "1").unwrap()),
    ];
    vec(tag, 0..7)
}

/// What both evaluators tell: action, names and log of the rule, action and names of the observing rule.
type Told = (trireme_policy::Action, Option<(Name, Name, bool)>, Option<(Name, Name)>);
type Name = Option<String>;

fn told(decision: &Decision, has_rule: bool) -> Told {
    let owned = |name: &Option<std::sync::Arc<str>>| name.as_deref().map(str::to_owned);
    let rule = has_rule.then(|| (owned(&decision.policy_id), owned(&decision.rule_name), decision.log));
    let observed = decision.observed.as_ref().map(|seen| (owned(&seen.policy_id), owned(&seen.rule_name)));
    (decision.action, rule, observed)
}

fn told_naively(verdict: &naive::Verdict<'_>) -> Told {
    let owned = |name: &Option<std::sync::Arc<str>>| name.as_deref().map(str::to_owned);
    let rule = verdict.1.map(|hit| (owned(&hit.flow.policy_id), owned(&hit.flow.rule_name), hit.flow.log));
    let observed = verdict.2.map(|seen| (owned(&seen.flow.policy_id), owned(&seen.flow.rule_name)));
    (verdict.0, rule, observed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_policy_agrees_with_the_naive_evaluator(
        policy in policy(), list in tag_list(), partial: bool, at in option::of(address()), port in 0..8u16, protocol in protocol()
    ) {
        let compiled = CompiledPolicy::compile(&policy).unwrap();
        let tags: TagSet = list.into_iter().collect();
        let peer = Peer { tags: &tags, partial };
        for direction in [Direction::Ingress, Direction::Egress] {
            let decision = compiled.decide_at(direction, &peer, at, port, protocol);
            let verdict = naive::decide(&policy, direction, &Other::Peer(peer, at), port, protocol);
            prop_assert_eq!(told(&decision, decision.basis == trireme_policy::Basis::Rule), told_naively(&verdict));
        }
    }

    #[test]
    fn address_rules_agree_with_a_linear_scan(policy in policy(), at in address(), port in 0..8u16, protocol in protocol()) {
        let compiled = CompiledPolicy::compile(&policy).unwrap();
        let decision = compiled.decide_ip(Direction::Ingress, at, port, protocol);
        let verdict = naive::decide(&policy, Direction::Ingress, &Other::Address(at), port, protocol);
        prop_assert_eq!(told(&decision, decision.basis == trireme_policy::Basis::Rule), told_naively(&verdict));
    }

    #[test]
    fn the_order_of_insertion_means_nothing(
        policy in policy(), list in tag_list(), partial: bool, at in option::of(address()), port in 0..8u16, seed: u64
    ) {
        let mut turned = policy.clone();
        let mut shuffle = Shuffle(seed);
        for ruleset in [&mut turned.ingress, &mut turned.egress] {
            if let Ruleset::Rules(rules) = ruleset {
                for rule in rules.iter_mut() {
                    rule.selectors.iter_mut().for_each(|selector| shuffle.turn(&mut selector.clauses));
                    shuffle.turn(&mut rule.selectors);
                }
                shuffle.turn(rules);
            }
        }
        for ruleset in [&mut turned.network_acls, &mut turned.application_acls] {
            if let Ruleset::Rules(rules) = ruleset {
                rules.iter_mut().for_each(|rule| shuffle.turn(&mut rule.networks));
                shuffle.turn(rules);
            }
        }
        let tags: TagSet = list.iter().cloned().collect();
        let mut list = list;
        shuffle.turn(&mut list);
        let other_tags: TagSet = list.into_iter().collect();
        let (one, other) = (CompiledPolicy::compile(&policy).unwrap(), CompiledPolicy::compile(&turned).unwrap());
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(
            one.decide_at(Direction::Ingress, &Peer { tags: &tags, partial }, at, port, Protocol::TCP),
            other.decide_at(Direction::Ingress, &Peer { tags: &other_tags, partial }, at, port, Protocol::TCP)
        );
    }

    #[test]
    fn an_explanation_says_what_the_decision_says(policy in policy(), list in tag_list(), partial: bool, port in 0..8u16) {
        let compiled = CompiledPolicy::compile(&policy).unwrap();
        let tags: TagSet = list.into_iter().collect();
        let peer = Peer { tags: &tags, partial };
        let decision = compiled.decide(Direction::Ingress, &peer, port, Protocol::TCP);
        let explanation = compiled.explain(Direction::Ingress, &peer, port, Protocol::TCP);
        prop_assert_eq!((explanation.action, explanation.basis), (decision.action, decision.basis));
        let number = explanation.rule.as_ref().and_then(|rule| rule.rule_number);
        prop_assert_eq!(number, decision.rule_number);
        let observed = explanation.observed.and_then(|rule| rule.rule_number);
        prop_assert_eq!(observed, decision.observed.and_then(|rule| rule.rule_number));
        if let Some(closest) = explanation.closest {
            prop_assert!(!closest.failed.is_empty() || partial || !closest.matched.is_empty());
        }
    }
}

struct Shuffle(u64);

impl Shuffle {
    /// Fisher-Yates with a 64-bit linear congruential generator.
    fn turn<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = usize::try_from(self.0 >> 33).unwrap() % (last + 1);
            list.swap(last, pick);
        }
    }
}
