//! The processing units of a scenario: identities, policies, settings.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use trireme_datapath::{PuSettings, PuSpec};
use trireme_flow::PuSlot;
use trireme_identity::{PuId, Tag, TagSet};
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, IpRule, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};

use super::scenario::{Group, OUTSIDE, Scenario};
use super::world::name;

/// The unit on host `host`, as its node's engine is told about it.
pub(super) fn unit(scenario: &Scenario, host: usize) -> PuSpec {
    let policy = CompiledPolicy::compile(&policy(scenario, host)).expect("plain rules compile");
    PuSpec {
        slot: slot(host),
        id: PuId::from_str(name(host)).expect("host names are valid ids"),
        tags: tags(host),
        policy: Arc::new(policy),
        epoch: 1,
        settings: PuSettings {
            authorize: scenario.authorize,
            strictness: scenario.strictness,
            refusal: scenario.refusal,
            notify_peer: scenario.notify_peer,
            ..PuSettings::default()
        },
    }
}

/// The slot of the unit on host `host`; zero stays unused.
pub(super) fn slot(host: usize) -> PuSlot {
    PuSlot(u32::try_from(host).unwrap_or(u32::MAX - 1) + 1)
}

fn tags(host: usize) -> TagSet {
    let mut tags = TagSet::default();
    for (key, value) in [("host", name(host)), ("environment", "simulation"), ("tier", "any")] {
        tags.insert(Tag::new(key, value).expect("a valid tag"));
    }
    tags
}

/// One rule per conversation that the scenario lets this unit take part in, and nothing else.
fn policy(scenario: &Scenario, host: usize) -> PuPolicy {
    let ingress = || scenario.groups.iter().filter(|group| group.server == host && group.ingress_rule);
    let egress = || scenario.groups.iter().filter(|group| group.client == host && group.egress_rule);
    let outside = scenario.hosts[OUTSIDE].addr;
    PuPolicy {
        ingress: Ruleset::Rules(
            ingress()
                .filter(|group| group.client != OUTSIDE)
                .map(|group| rule(group.client, group))
                .collect(),
        ),
        egress: Ruleset::Rules(
            egress().filter(|group| group.server != OUTSIDE).map(|group| rule(group.server, group)).collect(),
        ),
        network_acls: Ruleset::Rules(
            ingress()
                .filter(|group| group.client == OUTSIDE)
                .map(|group| ip_rule(outside, group.port))
                .collect(),
        ),
        application_acls: Ruleset::Rules(
            egress()
                .filter(|group| group.server == OUTSIDE)
                .map(|group| ip_rule(group.target.ip(), group.target.port()))
                .collect(),
        ),
        ..PuPolicy::unrestricted()
    }
}

fn rule(peer: usize, group: &Group) -> Rule {
    let selector = Selector::new([Clause::equal("host", [name(peer)])]);
    Rule::new([selector], Services::Only(vec![Service::tcp(group.port)]), FlowPolicy::accept())
}

fn ip_rule(peer: IpAddr, port: u16) -> IpRule {
    let prefix = if peer.is_ipv4() { 32 } else { 128 };
    let network = format!("{peer}/{prefix}").parse().expect("an address is a network");
    IpRule::new([network], Services::Only(vec![Service::tcp(port)]), FlowPolicy::accept())
}
