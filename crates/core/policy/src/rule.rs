//! Rules: whom they are about, what they allow, and in which order they are asked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Selector, Services};

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is refused.
    Reject,
    /// It is admitted.
    Accept,
}

/// What a rule says; in one (tier, priority) the first listed here is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Refuse.
    Reject,
    /// Leave the decision to the next tier.
    Pass,
    /// Admit.
    Accept,
}

/// Whether a rule acts or only watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observe {
    /// The rule acts.
    #[default]
    None,
    /// The rule reports what it would have done; the search goes on as if it were not there.
    Continue,
    /// The rule acts only where no other rule of its tier does, in place of the tier's default.
    Apply,
}

/// What follows from a match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowPolicy {
    /// What the rule says.
    pub action: RuleAction,
    /// Whether it acts or only watches.
    pub observe: Observe,
    /// The policy it belongs to, as reports name it.
    pub policy_id: Option<Arc<str>>,
    /// Its own name inside the policy.
    pub rule_name: Option<Arc<str>>,
    /// Whether the flow is to be logged.
    pub log: bool,
    /// Whether an admitted flow is to be encrypted, where a packet processor can.
    pub encrypt: bool,
}

impl FlowPolicy {
    /// Admits.
    #[must_use]
    pub const fn accept() -> Self {
        Self::new(RuleAction::Accept)
    }

    /// Refuses.
    #[must_use]
    pub const fn reject() -> Self {
        Self::new(RuleAction::Reject)
    }

    /// A flow policy without names, logging, encryption or observation.
    #[must_use]
    pub const fn new(action: RuleAction) -> Self {
        Self { action, observe: Observe::None, policy_id: None, rule_name: None, log: false, encrypt: false }
    }

    /// The same with names for reports.
    #[must_use]
    pub fn named(mut self, policy_id: &str, rule_name: &str) -> Self {
        self.policy_id = Some(policy_id.into());
        self.rule_name = Some(rule_name.into());
        self
    }

    /// The names in words, for messages.
    pub(crate) fn label(&self) -> String {
        match (&self.policy_id, &self.rule_name) {
            (Some(policy), Some(rule)) => format!("policy {policy:?}, rule {rule:?}"),
            (Some(policy), None) => format!("policy {policy:?}"),
            (None, Some(rule)) => format!("rule {rule:?}"),
            (None, None) => "unnamed rule".to_owned(),
        }
    }
}

/// Where a rule stands: lower tiers and, inside one, lower priorities are asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// The tier, an index into the policy's [`Tiers`](crate::Tiers).
    pub tier: u8,
    /// The priority inside the tier.
    pub priority: u32,
}

/// A rule about peers that have an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// When it is asked.
    pub order: Order,
    /// What follows.
    pub flow: FlowPolicy,
    /// Whom it is about: any of these; without selectors nobody.
    pub selectors: Vec<Selector>,
    /// Which protocols and destination ports it is about.
    pub services: Services,
}

impl Rule {
    /// A rule of the first tier and priority.
    #[must_use]
    pub fn new(selectors: impl IntoIterator<Item = Selector>, services: Services, flow: FlowPolicy) -> Self {
        Self { order: Order::default(), flow, selectors: selectors.into_iter().collect(), services }
    }
}
