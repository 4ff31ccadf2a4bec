//! The policy of one processing unit as an operator or resolver states it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{IpRule, Rule};

/// The rules of one direction: their absence and their emptiness are different values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ruleset<T = Rule> {
    /// No policy speaks about this direction: everything is admitted.
    Unrestricted,
    /// Only what these rules admit is admitted; an empty list admits nothing.
    Rules(Vec<T>),
}

impl<T> Ruleset<T> {
    /// The rules, none if there is no restriction.
    #[must_use]
    pub fn rules(&self) -> &[T] {
        match self {
            Self::Unrestricted => &[],
            Self::Rules(rules) => rules,
        }
    }

    /// Whether rules speak about this direction.
    #[must_use]
    pub const fn is_restricted(&self) -> bool {
        matches!(self, Self::Rules(_))
    }
}

/// The rules about addresses of one direction.
pub type IpRuleset = Ruleset<IpRule>;

/// What a tier does with a connection none of its rules decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierDefault {
    /// Refuse it.
    Reject,
    /// Ask the next tier; behind the last tier stands a refusal.
    Pass,
    /// Admit it.
    Accept,
}

/// The tiers of each direction, asked in order, by their defaults.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tiers {
    /// Defaults of the tiers for connections to the processing unit.
    pub ingress: Vec<TierDefault>,
    /// Defaults of the tiers for connections the processing unit opens.
    pub egress: Vec<TierDefault>,
}

impl Tiers {
    /// One tier that refuses what no rule admits.
    #[must_use]
    pub fn single() -> Self {
        Self { ingress: vec![TierDefault::Reject], egress: vec![TierDefault::Reject] }
    }
}

/// What the policy does with its verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are carried out.
    #[default]
    Enforce,
    /// They are recorded; everything is admitted.
    Observe,
    /// There are none; everything is admitted.
    Off,
}

/// What one processing unit may do and who may reach it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PuPolicy {
    /// What becomes of the verdicts.
    pub mode: Mode,
    /// The tiers the rules stand in.
    pub tiers: Tiers,
    /// Receiver rules: judge the initiator of a connection to this processing unit.
    pub ingress: Ruleset,
    /// Transmitter rules: judge the responder of a connection this processing unit opens.
    pub egress: Ruleset,
    /// Address rules for connections to this processing unit.
    ///
    /// Absent rules mean "unrestricted" only where `ingress` is unrestricted too: a peer must not gain by hiding its identity.
    pub network_acls: IpRuleset,
    /// Address rules for connections this processing unit opens; absent rules as in `network_acls`.
    pub application_acls: IpRuleset,
    /// Keys that every peer shows in full, even one whose token says it shows only part of its tags.
    pub complete_keys: BTreeSet<Box<str>>,
}

impl PuPolicy {
    /// Restricts nothing in either direction.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self {
            mode: Mode::Enforce,
            tiers: Tiers::single(),
            ingress: Ruleset::Unrestricted,
            egress: Ruleset::Unrestricted,
            network_acls: Ruleset::Unrestricted,
            application_acls: Ruleset::Unrestricted,
            complete_keys: BTreeSet::new(),
        }
    }

    /// Admits nothing in either direction.
    #[must_use]
    pub fn deny_all() -> Self {
        Self {
            ingress: Ruleset::Rules(Vec::new()),
            egress: Ruleset::Rules(Vec::new()),
            network_acls: Ruleset::Rules(Vec::new()),
            application_acls: Ruleset::Rules(Vec::new()),
            ..Self::unrestricted()
        }
    }
}
