//! From the file's words to the policy of one processing unit.

use trireme_identity::TagSet;
use trireme_policy::{
    Action, FlowPolicy, IpRule, IpRuleset, Observe, Order, PuPolicy, Rule, RuleAction, Ruleset, Services,
    Tiers,
};

use super::document::{AddressRule, Document, EgressRule, IngressRule, Policy, Unselected};
use super::words::{Name, Network, Port};

/// Joins the rules of every policy whose subject has these tags.
pub(super) fn policy_for(document: &Document, tags: &TagSet) -> PuPolicy {
    let selecting: Vec<&Policy> = document.selecting(tags).collect();
    let (ingress, network_acls) = direction(
        document.default,
        &selecting,
        |policy| {
            policy.ingress.as_ref().map(|rules| rules.iter().map(|rule| ingress_rule(policy, rule)).collect())
        },
        |policy| policy.network_acls.as_deref(),
    );
    let (egress, application_acls) = direction(
        document.default,
        &selecting,
        |policy| {
            policy.egress.as_ref().map(|rules| rules.iter().map(|rule| egress_rule(policy, rule)).collect())
        },
        |policy| policy.application_acls.as_deref(),
    );
    PuPolicy {
        mode: document.mode,
        tiers: Tiers::single(),
        ingress,
        egress,
        network_acls,
        application_acls,
        complete_keys: document.complete_keys.iter().map(|key| key.0.clone()).collect(),
    }
}

/// One direction: restricted as a whole as soon as one policy speaks about it, be it about tags or addresses.
fn direction(
    default: Unselected,
    policies: &[&Policy],
    rules: impl Fn(&Policy) -> Option<Vec<Rule>>,
    acls: impl Fn(&Policy) -> Option<&[AddressRule]>,
) -> (Ruleset, IpRuleset) {
    let tags: Vec<Vec<Rule>> = policies.iter().filter_map(|policy| rules(policy)).collect();
    let addresses: Vec<Vec<IpRule>> = policies
        .iter()
        .filter_map(|policy| Some(acls(policy)?.iter().map(|acl| address_rule(policy, acl)).collect()))
        .collect();
    if tags.is_empty() && addresses.is_empty() && default == Unselected::Allow {
        return (Ruleset::Unrestricted, Ruleset::Unrestricted);
    }
    (Ruleset::Rules(tags.concat()), Ruleset::Rules(addresses.concat()))
}

fn ingress_rule(policy: &Policy, rule: &IngressRule) -> Rule {
    let IngressRule { name, from, ports, action, observe, priority, log, encrypt } = rule;
    Rule {
        order: Order { tier: 0, priority: *priority },
        flow: flow(policy, name.as_ref(), *action, *observe, *log, *encrypt),
        selectors: from.value.iter().map(|peer| peer.selector().clone()).collect(),
        services: services(ports.as_deref()),
    }
}

fn egress_rule(policy: &Policy, rule: &EgressRule) -> Rule {
    let EgressRule { name, to, ports, action, observe, priority, log, encrypt } = rule;
    Rule {
        order: Order { tier: 0, priority: *priority },
        flow: flow(policy, name.as_ref(), *action, *observe, *log, *encrypt),
        selectors: to.value.iter().map(|peer| peer.selector().clone()).collect(),
        services: services(ports.as_deref()),
    }
}

fn address_rule(policy: &Policy, rule: &AddressRule) -> IpRule {
    let AddressRule { name, networks, except, ports, action, observe, priority, any_peer, log } = rule;
    IpRule {
        order: Order { tier: 0, priority: *priority },
        flow: flow(policy, name.as_ref(), *action, *observe, *log, false),
        networks: networks.value.iter().map(Network::net).collect(),
        except: except.iter().map(|network| network.value.net()).collect(),
        services: services(ports.as_deref()),
        any_peer: *any_peer,
    }
}

fn flow(
    policy: &Policy,
    name: Option<&Name>,
    action: Action,
    observe: Observe,
    log: bool,
    encrypt: bool,
) -> FlowPolicy {
    FlowPolicy {
        action: match action {
            Action::Accept => RuleAction::Accept,
            Action::Reject => RuleAction::Reject,
        },
        observe,
        policy_id: Some(policy.name.value.as_str().into()),
        rule_name: name.map(|name| name.as_str().into()),
        log,
        encrypt,
    }
}

fn services(ports: Option<&[Port]>) -> Services {
    ports.map_or(Services::Any, |ports| Services::Only(ports.iter().map(|port| port.0).collect()))
}
