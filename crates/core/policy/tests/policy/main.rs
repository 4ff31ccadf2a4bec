//! The meaning of policies, from the outside.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod addresses;
mod defects;
mod explanations;
mod meaning;
mod partial;
mod properties;
mod services;
mod tiers;

use trireme_identity::{Direction, Protocol, TagSet};
use trireme_policy::{
    Action, Clause, CompiledPolicy, Decision, FlowPolicy, Peer, PuPolicy, Rule, RuleAction, Ruleset,
    Selector, Services,
};

/// A policy with these rules for ingress and nothing else.
fn ingress(rules: impl IntoIterator<Item = Rule>) -> PuPolicy {
    PuPolicy {
        ingress: Ruleset::Rules(rules.into_iter().collect()),
        network_acls: Ruleset::Rules(Vec::new()),
        ..PuPolicy::unrestricted()
    }
}

/// A rule of one selector for every port.
fn rule(name: &str, action: RuleAction, clauses: impl IntoIterator<Item = Clause>) -> Rule {
    Rule::new([Selector::new(clauses)], Services::Any, FlowPolicy::new(action).named("p", name))
}

fn accept(name: &str, clauses: impl IntoIterator<Item = Clause>) -> Rule {
    rule(name, RuleAction::Accept, clauses)
}

fn reject(name: &str, clauses: impl IntoIterator<Item = Clause>) -> Rule {
    rule(name, RuleAction::Reject, clauses)
}

fn tags(list: &[&str]) -> TagSet {
    TagSet::parse(list.iter().copied()).unwrap()
}

fn decide(policy: &PuPolicy, list: &[&str]) -> Decision {
    let peer = tags(list);
    CompiledPolicy::compile(policy).unwrap().decide(
        Direction::Ingress,
        &Peer { tags: &peer, partial: false },
        80,
        Protocol::TCP,
    )
}

fn decide_partial(policy: &PuPolicy, list: &[&str]) -> Decision {
    let peer = tags(list);
    CompiledPolicy::compile(policy).unwrap().decide(
        Direction::Ingress,
        &Peer { tags: &peer, partial: true },
        80,
        Protocol::TCP,
    )
}

/// The verdict and the name of the rule it rests on.
fn verdict(decision: &Decision) -> (Action, Option<&str>) {
    (decision.action, decision.rule_name.as_deref())
}
