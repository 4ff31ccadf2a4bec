//! The judgement of one connection.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trireme_identity::{Direction, Protocol, TagSet};

use crate::compile::{Side, Tier};
use crate::index::{Hit, Probe, UnknownPass, Who};
use crate::{Action, CompiledPolicy, Mode, RuleAction, TierDefault};

/// A peer whose identity has been authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its tags, with those the verifier added.
    pub tags: &'a TagSet,
    /// Whether its token shows only part of its tags.
    pub partial: bool,
}

/// What the decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A rule matched.
    Rule,
    /// No rule matched; a tier's default, or the refusal behind the last tier.
    Default,
    /// No policy speaks about this direction.
    Unrestricted,
    /// The policy is switched off.
    Off,
}

/// What would have happened, had an observing rule or an observing policy acted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The verdict.
    pub action: Action,
    /// The policy of the rule, if a rule is behind it.
    pub policy_id: Option<Arc<str>>,
    /// The name of the rule.
    pub rule_name: Option<Arc<str>>,
    /// The number of the rule among the rules of its direction, from 1.
    pub rule_number: Option<u16>,
}

/// The verdict about one connection and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// What it rests on.
    pub basis: Basis,
    /// What an observing rule, or a policy in [`Mode::Observe`], would have done.
    pub observed: Option<Observed>,
    /// The policy of the deciding rule.
    pub policy_id: Option<Arc<str>>,
    /// The name of the deciding rule.
    pub rule_name: Option<Arc<str>>,
    /// The number of the deciding rule among the rules of its direction, from 1; none behind 65535.
    pub rule_number: Option<u16>,
    /// Whether the flow is to be logged.
    pub log: bool,
    /// Whether the admitted flow is to be encrypted.
    pub encrypt: bool,
}

impl CompiledPolicy {
    /// Judges a connection with a peer that has an identity; `port` is the destination port.
    ///
    /// Allocates nothing, and does not slow down with rules that share no tag with the peer.
    #[must_use]
    pub fn decide(&self, direction: Direction, peer: &Peer<'_>, port: u16, protocol: Protocol) -> Decision {
        self.decide_at(direction, peer, None, port, protocol)
    }

    /// Like [`decide`](Self::decide), with the peer's address for the rules that judge every peer by address.
    #[must_use]
    pub fn decide_at(
        &self,
        direction: Direction,
        peer: &Peer<'_>,
        address: Option<IpAddr>,
        port: u16,
        protocol: Protocol,
    ) -> Decision {
        let who = Who::Peer { tags: peer.tags, partial: peer.partial, address };
        self.judge(direction, &Probe { who, port, protocol, complete: &self.source.complete_keys })
    }

    /// Judges a connection with a peer that has no identity; for ICMP `port` is `type * 256 + code`.
    #[must_use]
    pub fn decide_ip(
        &self,
        direction: Direction,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Decision {
        let who = Who::Address(address);
        self.judge(direction, &Probe { who, port, protocol, complete: &self.source.complete_keys })
    }

    /// Whether a rule of this direction, about tags or addresses, names the protocol or every protocol.
    #[must_use]
    pub fn has_rules_for(&self, direction: Direction, protocol: Protocol) -> bool {
        self.side(direction).facts.iter().any(|facts| facts.services.contain_protocol(protocol))
    }

    /// Whether a rule of this direction names another protocol than this one, or every protocol.
    #[must_use]
    pub fn has_rules_beyond(&self, direction: Direction, protocol: Protocol) -> bool {
        self.side(direction).facts.iter().any(|facts| facts.services.contain_beyond(protocol))
    }

    /// Whether a peer with an identity may be judged by its address as well: then a verdict about it holds for that address
    /// only.
    #[must_use]
    pub fn judges_by_address(&self, direction: Direction) -> bool {
        self.side(direction).tiers.iter().any(|tier| {
            [&tier.acting, &tier.watching, &tier.fallback].into_iter().any(|stage| !stage.any_peer.is_empty())
        })
    }

    /// What becomes of the verdicts.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.source.mode
    }

    fn judge(&self, direction: Direction, probe: &Probe<'_>) -> Decision {
        match self.source.mode {
            Mode::Off => Decision::without_rule(Action::Accept, Basis::Off),
            Mode::Enforce => self.side(direction).judge(probe),
            Mode::Observe => self.side(direction).judge(probe).into_observed(),
        }
    }
}

impl Side {
    /// Asks the tiers in order.
    pub(crate) fn judge(&self, probe: &Probe<'_>) -> Decision {
        let restricted = match probe.who {
            Who::Peer { .. } => self.tags_restricted,
            Who::Address(_) => self.tags_restricted || self.addresses_restricted,
        };
        let mut observed = None;
        // An accept that a Pass of its tier would have overtaken, if the peer had shown a tag it may be hiding:
        // it stands only if the tiers below agree.
        let mut provisional = None;
        for tier in &self.tiers {
            let verdict = tier.judge(probe, restricted, &mut observed);
            match verdict.step {
                Step::Next => {}
                Step::Accept if verdict.doubtful => {
                    provisional = provisional.or(Some(verdict.decision));
                }
                Step::Accept => return provisional.unwrap_or(verdict.decision).observing(observed),
                Step::Reject => return verdict.decision.observing(observed),
            }
        }
        let end = match (restricted, provisional) {
            (true, _) => Decision::without_rule(Action::Reject, Basis::Default),
            (false, Some(decision)) => decision,
            (false, None) => Decision::without_rule(Action::Accept, Basis::Unrestricted),
        };
        end.observing(observed)
    }
}

enum Step {
    Next,
    Accept,
    Reject,
}

struct TierVerdict {
    step: Step,
    decision: Decision,
    doubtful: bool,
}

impl Tier {
    fn judge(&self, probe: &Probe<'_>, restricted: bool, observed: &mut Option<Observed>) -> TierVerdict {
        let mut doubtful = false;
        let mut acting = self.acting.first(probe, UnknownPass::Report);
        if acting.is_some_and(|hit| hit.doubtful) {
            doubtful = true;
            acting = self.acting.first(probe, UnknownPass::Ignore);
        }
        if observed.is_none() {
            *observed = self
                .watching
                .first(probe, UnknownPass::Ignore)
                .filter(|seen| seen.is_before(acting))
                .map(Observed::from);
        }
        let hit = acting.or_else(|| {
            let hit = self.fallback.first(probe, UnknownPass::Ignore)?;
            observed.get_or_insert_with(|| Observed::from(hit));
            Some(hit)
        });
        let Some(hit) = hit else {
            let default = if restricted { self.default } else { TierDefault::Pass };
            let (step, action) = match default {
                TierDefault::Pass => (Step::Next, Action::Reject),
                TierDefault::Accept => (Step::Accept, Action::Accept),
                TierDefault::Reject => (Step::Reject, Action::Reject),
            };
            return TierVerdict { step, decision: Decision::without_rule(action, Basis::Default), doubtful };
        };
        let (step, action) = match hit.facts.flow.action {
            RuleAction::Pass => (Step::Next, Action::Reject),
            RuleAction::Accept => (Step::Accept, Action::Accept),
            RuleAction::Reject => (Step::Reject, Action::Reject),
        };
        TierVerdict { step, decision: Decision::by_rule(action, hit), doubtful }
    }
}

impl Decision {
    /// What stands for a decision where the policy is not asked: accepted, on no rule.
    #[must_use]
    pub const fn unjudged() -> Self {
        Self::without_rule(Action::Accept, Basis::Unrestricted)
    }

    const fn without_rule(action: Action, basis: Basis) -> Self {
        Self {
            action,
            basis,
            observed: None,
            policy_id: None,
            rule_name: None,
            rule_number: None,
            log: false,
            encrypt: false,
        }
    }

    fn by_rule(action: Action, hit: Hit<'_>) -> Self {
        let flow = &hit.facts.flow;
        Self {
            action,
            basis: Basis::Rule,
            observed: None,
            policy_id: flow.policy_id.clone(),
            rule_name: flow.rule_name.clone(),
            rule_number: hit.facts.number,
            log: flow.log,
            encrypt: flow.encrypt && action == Action::Accept,
        }
    }

    fn observing(mut self, observed: Option<Observed>) -> Self {
        self.observed = observed;
        self
    }

    /// Turns the verdict into what would have been, and admits.
    fn into_observed(self) -> Self {
        let observed = Observed {
            action: self.action,
            policy_id: self.policy_id.clone(),
            rule_name: self.rule_name.clone(),
            rule_number: self.rule_number,
        };
        Self { action: Action::Accept, observed: Some(observed), encrypt: false, ..self }
    }
}

impl From<Hit<'_>> for Observed {
    fn from(hit: Hit<'_>) -> Self {
        let flow = &hit.facts.flow;
        Self {
            action: if flow.action == RuleAction::Accept { Action::Accept } else { Action::Reject },
            policy_id: flow.policy_id.clone(),
            rule_name: flow.rule_name.clone(),
            rule_number: hit.facts.number,
        }
    }
}
