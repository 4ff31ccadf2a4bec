//! The meaning of a policy in the fewest lines: asks every rule, in no hurry. For tests to compare with.

use std::cmp::Ordering;
use std::net::IpAddr;

use trireme_identity::{Direction, Protocol, TagSet};

use crate::{
    Action, Clause, FlowPolicy, IpRule, Observe, Order, Peer, PuPolicy, Rule, RuleAction, Selector, Test,
    TierDefault,
};

/// A rule that matched: its place, its prefix if it is about addresses, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'a> {
    order: Order,
    prefix_len: Option<u8>,
    /// What the rule says and what it is called.
    pub flow: &'a FlowPolicy,
}

/// The verdict, the rule it rests on, and the observing rule that would have acted.
pub type Verdict<'a> = (Action, Option<Match<'a>>, Option<Match<'a>>);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Other<'a> {
    /// A peer with identity, and its address if that is known.
    Peer(Peer<'a>, Option<IpAddr>),
    /// A peer without identity.
    Address(IpAddr),
}

/// Judges a connection as [`Mode::Enforce`](crate::Mode::Enforce) would.
#[must_use]
pub fn decide<'a>(
    policy: &'a PuPolicy,
    direction: Direction,
    other: &Other<'_>,
    port: u16,
    protocol: Protocol,
) -> Verdict<'a> {
    let (tags, addresses, tiers) = match direction {
        Direction::Ingress => (&policy.ingress, &policy.network_acls, &policy.tiers.ingress),
        Direction::Egress => (&policy.egress, &policy.application_acls, &policy.tiers.egress),
    };
    let restricted =
        tags.is_restricted() || (addresses.is_restricted() && matches!(other, Other::Address(_)));
    let (mut observed, mut provisional) = (None, None);
    for (tier, default) in (0..).zip(tiers) {
        // What matches in this tier, when a doubtful Pass counts as a match and when it does not.
        let find = |observe: Observe, doubtful_pass: bool| {
            let about = |order: Order, flow: &FlowPolicy| order.tier == tier && flow.observe == observe;
            let by_tags = tags
                .rules()
                .iter()
                .filter(|rule| about(rule.order, &rule.flow))
                .filter_map(|rule| match_tags(policy, rule, other, port, protocol, doubtful_pass));
            let by_address = addresses.rules().iter().filter(|rule| about(rule.order, &rule.flow));
            let by_address = by_address.filter_map(|rule| match_address(rule, other, port, protocol));
            by_tags.min_by(compare).into_iter().chain(by_address.min_by(compare)).min_by(compare)
        };
        let (acting, hasty) = (find(Observe::None, false), find(Observe::None, true));
        let doubtful = acting != hasty;
        let before = |seen: &Match<'_>| acting.is_none_or(|acting| place(seen, &acting).is_le());
        observed = observed.or_else(|| find(Observe::Continue, false).filter(before));
        let fallback = if acting.is_none() { find(Observe::Apply, false) } else { None };
        observed = observed.or(fallback);
        let hit = acting.or(fallback);
        let says = hit.map_or_else(
            || if restricted { *default } else { TierDefault::Pass },
            |hit| match hit.flow.action {
                RuleAction::Reject => TierDefault::Reject,
                RuleAction::Pass => TierDefault::Pass,
                RuleAction::Accept => TierDefault::Accept,
            },
        );
        match says {
            TierDefault::Reject => return (Action::Reject, hit, observed),
            TierDefault::Accept if doubtful => provisional = provisional.or(Some(hit)),
            TierDefault::Accept => return (Action::Accept, provisional.unwrap_or(hit), observed),
            TierDefault::Pass => {}
        }
    }
    if restricted {
        (Action::Reject, None, observed)
    } else {
        (Action::Accept, provisional.flatten(), observed)
    }
}

fn match_tags<'a>(
    policy: &PuPolicy,
    rule: &'a Rule,
    other: &Other<'_>,
    port: u16,
    protocol: Protocol,
    doubtful_pass: bool,
) -> Option<Match<'a>> {
    let Other::Peer(peer, _) = other else { return None };
    // Against the peer: what is unknown holds for a reject and does not for an accept.
    let unknown = match rule.flow.action {
        RuleAction::Reject => true,
        RuleAction::Accept => false,
        RuleAction::Pass => doubtful_pass,
    };
    let holds = |clause: &Clause| {
        let hidden = peer.partial && !policy.complete_keys.contains(&clause.key);
        if hidden && is_negative(clause) && !peer.tags.contains_key(&clause.key) {
            unknown
        } else {
            fulfils(clause, peer.tags)
        }
    };
    let selected = |selector: &Selector| selector.clauses.iter().all(holds);
    let matches = rule.services.contain(port, protocol) && rule.selectors.iter().any(selected);
    matches.then_some(Match { order: rule.order, prefix_len: None, flow: &rule.flow })
}

fn match_address<'a>(
    rule: &'a IpRule,
    other: &Other<'_>,
    port: u16,
    protocol: Protocol,
) -> Option<Match<'a>> {
    let address = match other {
        Other::Address(address) => *address,
        Other::Peer(_, address) if rule.any_peer => (*address)?,
        Other::Peer(..) => return None,
    };
    let matches =
        rule.services.contain(port, protocol) && !rule.except.iter().any(|net| net.contains(&address));
    let longest =
        rule.networks.iter().filter(|net| net.contains(&address)).map(|net| net.prefix_len()).max()?;
    matches.then_some(Match { order: rule.order, prefix_len: Some(longest), flow: &rule.flow })
}

const fn is_negative(clause: &Clause) -> bool {
    matches!(clause.test, Test::NoneOf(_) | Test::NotExists)
}

fn fulfils(clause: &Clause, tags: &TagSet) -> bool {
    match &clause.test {
        Test::AnyOf(wanted) => tags.values(&clause.key).any(|value| wanted.contain(value)),
        Test::NoneOf(unwanted) => !tags.values(&clause.key).any(|value| unwanted.contain(value)),
        Test::Exists => tags.contains_key(&clause.key),
        Test::NotExists => !tags.contains_key(&clause.key),
    }
}

/// The place of a match: (tier, priority), the longer prefix between two addresses, then reject, pass, accept.
fn place(one: &Match<'_>, other: &Match<'_>) -> Ordering {
    let longest = match (one.prefix_len, other.prefix_len) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_) | None, _) => Ordering::Equal,
    };
    one.order.cmp(&other.order).then(longest).then(one.flow.action.cmp(&other.flow.action))
}

fn compare(one: &Match<'_>, other: &Match<'_>) -> Ordering {
    place(one, other).then_with(|| one.flow.cmp(other.flow))
}
