//! Why a decision is what it is, in words an operator can act on.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use trireme_identity::{Direction, Protocol, TagSet};

use crate::clause::Truth;
use crate::index::{Probe, Who};
use crate::{
    Action, Basis, CompiledPolicy, FlowPolicy, Mode, Observe, RuleAction, Selector, Service, Services,
};

/// A condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedCondition {
    /// What the rule asks for.
    pub wanted: String,
    /// What the connection offers instead.
    pub found: String,
}

/// The rule a decision rests on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchedRule {
    /// Its policy.
    pub policy_id: Option<String>,
    /// Its name.
    pub rule_name: Option<String>,
    /// Its number among the rules of its direction, from 1.
    pub rule_number: Option<u16>,
    /// The conditions that held.
    pub matched: Vec<String>,
}

/// The accepting rule that came closest to admitting a refused connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosestRule {
    /// Its policy.
    pub policy_id: Option<String>,
    /// Its name.
    pub rule_name: Option<String>,
    /// Its number among the rules of its direction, from 1.
    pub rule_number: Option<u16>,
    /// The conditions that held.
    pub matched: Vec<String>,
    /// The conditions that did not.
    pub failed: Vec<FailedCondition>,
}

/// A decision with its grounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The direction as the processing unit sees it.
    pub direction: Direction,
    /// What the rules say; what happens to the packet also depends on `mode`.
    pub action: Action,
    /// What that rests on.
    pub basis: Basis,
    /// Whether the verdict is carried out.
    pub mode: Mode,
    /// The deciding rule, if one matched.
    pub rule: Option<MatchedRule>,
    /// For a refusal that no rule asked for: the accepting rule with the fewest failed conditions.
    pub closest: Option<ClosestRule>,
    /// An observing rule that would have decided otherwise or earlier, had it acted.
    pub observed: Option<MatchedRule>,
}

impl CompiledPolicy {
    /// Explains what [`decide`](Self::decide) says.
    #[must_use]
    pub fn explain(
        &self,
        direction: Direction,
        peer: &crate::Peer<'_>,
        port: u16,
        protocol: Protocol,
    ) -> Explanation {
        self.explain_at(direction, peer, None, port, protocol)
    }

    /// Explains what [`decide_at`](Self::decide_at) says.
    #[must_use]
    pub fn explain_at(
        &self,
        direction: Direction,
        peer: &crate::Peer<'_>,
        address: Option<IpAddr>,
        port: u16,
        protocol: Protocol,
    ) -> Explanation {
        let who = Who::Peer { tags: peer.tags, partial: peer.partial, address };
        self.explain_probe(direction, &Probe { who, port, protocol, complete: &self.source().complete_keys })
    }

    /// Explains what [`decide_ip`](Self::decide_ip) says.
    #[must_use]
    pub fn explain_ip(
        &self,
        direction: Direction,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Explanation {
        let who = Who::Address(address);
        self.explain_probe(direction, &Probe { who, port, protocol, complete: &self.source().complete_keys })
    }

    fn explain_probe(&self, direction: Direction, probe: &Probe<'_>) -> Explanation {
        let decision = self.side(direction).judge(probe);
        let candidates = self.candidates(direction, probe);
        let matched = |number: Option<u16>| {
            let candidate = candidates
                .iter()
                .find(|candidate| candidate.number == number && candidate.failed.is_empty())?;
            Some(MatchedRule {
                policy_id: candidate.flow.policy_id.as_deref().map(str::to_owned),
                rule_name: candidate.flow.rule_name.as_deref().map(str::to_owned),
                rule_number: number,
                matched: candidate.matched.clone(),
            })
        };
        let refused = decision.action == Action::Reject && decision.basis == Basis::Default;
        Explanation {
            direction,
            action: decision.action,
            basis: decision.basis,
            mode: self.mode(),
            rule: if decision.basis == Basis::Rule { matched(decision.rule_number) } else { None },
            closest: if refused { closest(&candidates) } else { None },
            observed: decision.observed.and_then(|observed| matched(observed.rule_number)),
        }
    }

    /// Every rule that speaks about this kind of peer, once for each of its selectors, with what held and what did not.
    fn candidates(&self, direction: Direction, probe: &Probe<'_>) -> Vec<Candidate<'_>> {
        let (rules, acls) = match direction {
            Direction::Ingress => (self.source().ingress.rules(), self.source().network_acls.rules()),
            Direction::Egress => (self.source().egress.rules(), self.source().application_acls.rules()),
        };
        let mut numbers = self.side(direction).facts.iter().map(|facts| facts.number);
        let mut candidates = Vec::new();
        for rule in rules {
            let number = numbers.next().flatten();
            if let Who::Peer { tags, partial, .. } = probe.who {
                for selector in &rule.selectors {
                    let mut candidate = Candidate::new(&rule.flow, number);
                    candidate.judge_tags(selector, tags, partial, probe);
                    candidate.judge_services(&rule.services, probe);
                    candidates.push(candidate);
                }
            }
        }
        for acl in acls {
            let number = numbers.next().flatten();
            let address = match probe.who {
                Who::Address(address) => address,
                Who::Peer { address: Some(address), .. } if acl.any_peer => address,
                Who::Peer { .. } => continue,
            };
            let mut candidate = Candidate::new(&acl.flow, number);
            match acl.prefix_len(address) {
                Some(_) => candidate.matched.push(networks(acl)),
                None => candidate.fail(networks(acl), format!("the peer's address is {address}")),
            }
            candidate.judge_services(&acl.services, probe);
            candidates.push(candidate);
        }
        candidates
    }
}

struct Candidate<'a> {
    flow: &'a FlowPolicy,
    number: Option<u16>,
    matched: Vec<String>,
    failed: Vec<FailedCondition>,
}

impl<'a> Candidate<'a> {
    const fn new(flow: &'a FlowPolicy, number: Option<u16>) -> Self {
        Self { flow, number, matched: Vec::new(), failed: Vec::new() }
    }

    fn judge_tags(&mut self, selector: &Selector, tags: &TagSet, partial: bool, probe: &Probe<'_>) {
        if selector.clauses.is_empty() {
            self.matched.push(selector.to_string());
        }
        for clause in &selector.clauses {
            let hidden = partial && !probe.complete.contains(&clause.key);
            match (clause.judge(tags, hidden), self.flow.action) {
                (Truth::Yes, _) | (Truth::Unknown, RuleAction::Reject) => {
                    self.matched.push(clause.to_string())
                }
                (Truth::Unknown, RuleAction::Accept | RuleAction::Pass) => {
                    self.fail(
                        clause.to_string(),
                        format!("the peer shows only part of its tags, and none for {}", clause.key),
                    );
                }
                (Truth::No, _) => self.fail(clause.to_string(), shown(tags, &clause.key)),
            }
        }
    }

    fn judge_services(&mut self, services: &Services, probe: &Probe<'_>) {
        if services.contain(probe.port, probe.protocol) {
            self.matched.push(format!("covers {services}"));
        } else {
            self.fail(services.to_string(), format!("the connection is to {}", wanted_service(probe)));
        }
    }

    fn fail(&mut self, wanted: String, found: String) {
        self.failed.push(FailedCondition { wanted, found });
    }
}

fn closest(candidates: &[Candidate<'_>]) -> Option<ClosestRule> {
    let acting = |candidate: &&Candidate<'_>| {
        candidate.flow.action == RuleAction::Accept && candidate.flow.observe == Observe::None
    };
    let nearest = candidates
        .iter()
        .filter(acting)
        .min_by_key(|candidate| (candidate.failed.len(), std::cmp::Reverse(candidate.matched.len())))?;
    Some(ClosestRule {
        policy_id: nearest.flow.policy_id.as_deref().map(str::to_owned),
        rule_name: nearest.flow.rule_name.as_deref().map(str::to_owned),
        rule_number: nearest.number,
        matched: nearest.matched.clone(),
        failed: nearest.failed.clone(),
    })
}

fn networks(acl: &crate::IpRule) -> String {
    let list =
        |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let of = if acl.networks.is_empty() {
        "no address".to_owned()
    } else {
        format!("an address in {}", list(&acl.networks))
    };
    if acl.except.is_empty() { of } else { format!("{of} except {}", list(&acl.except)) }
}

fn shown(tags: &TagSet, key: &str) -> String {
    let values: Vec<String> = tags.values(key).map(|value| format!("{key}={value}")).collect();
    if values.is_empty() {
        format!("the peer has no tag {key}")
    } else {
        format!("the peer has {}", values.join(", "))
    }
}

fn wanted_service(probe: &Probe<'_>) -> String {
    let (protocol, [kind, code]) = (probe.protocol, probe.port.to_be_bytes());
    match protocol {
        Protocol::ICMP | Protocol::ICMPV6 => format!("{protocol}/{kind}/{code}"),
        _ => Service::ports(protocol, probe.port, probe.port)
            .map_or_else(|_| protocol.to_string(), |service| service.to_string()),
    }
}

impl fmt::Display for FailedCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wants {}, but {}", self.wanted, self.found)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let verdict = match self.action {
            Action::Accept => "admitted",
            Action::Reject => "refused",
        };
        write!(f, "{direction} {verdict}")?;
        match (&self.rule, self.basis) {
            (Some(rule), _) => {
                write!(
                    f,
                    " by {}",
                    name(rule.policy_id.as_deref(), rule.rule_name.as_deref(), rule.rule_number)
                )?;
                write!(f, ": {}", rule.matched.join(", "))?;
            }
            (None, Basis::Rule) => f.write_str(" by a rule")?,
            (None, Basis::Default) if self.action == Action::Reject => f.write_str(": no rule admits it")?,
            (None, Basis::Default) => {
                f.write_str(": no rule refuses it and the last tier admits the rest")?
            }
            (None, Basis::Unrestricted) => f.write_str(": no policy restricts this direction")?,
            (None, Basis::Off) => f.write_str(": the policy is off")?,
        }
        if let Some(rule) = &self.closest {
            let failed: Vec<String> = rule.failed.iter().map(ToString::to_string).collect();
            let name = name(rule.policy_id.as_deref(), rule.rule_name.as_deref(), rule.rule_number);
            write!(f, "; closest is {name}, which {}", failed.join(" and "))?;
        }
        if let Some(rule) = &self.observed {
            let name = name(rule.policy_id.as_deref(), rule.rule_name.as_deref(), rule.rule_number);
            write!(f, "; observed by {name}")?;
        }
        match self.mode {
            Mode::Enforce => Ok(()),
            Mode::Observe => f.write_str("; not enforced, the policy only observes"),
            Mode::Off => f.write_str("; not enforced, the policy is off"),
        }
    }
}

fn name(policy: Option<&str>, rule: Option<&str>, number: Option<u16>) -> String {
    let number = number.map(|number| format!(" (rule {number})")).unwrap_or_default();
    match (policy, rule) {
        (Some(policy), Some(rule)) => format!("rule {rule:?} of policy {policy:?}{number}"),
        (Some(policy), None) => format!("a rule of policy {policy:?}{number}"),
        (None, Some(rule)) => format!("rule {rule:?}{number}"),
        (None, None) => format!("an unnamed rule{number}"),
    }
}
