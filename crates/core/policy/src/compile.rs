//! From the rules as stated to the rules as looked up.

use std::sync::Arc;

use trireme_identity::Direction;

use crate::index::{AddressIndex, Facts, Stage, TagIndex};
use crate::{
    Clause, FlowPolicy, IpRule, IpRuleset, Observe, Order, PuPolicy, Rule, RuleAction, Ruleset, Services,
    Test, TierDefault,
};

/// Why a policy cannot be enforced as stated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A clause compares with no value at all.
    #[error("{rule}: the clause on {key:?} lists no values")]
    NoValues {
        /// The rule, as reports name it.
        rule: String,
        /// The key of the clause.
        key: String,
    },
    /// A clause tests a key that stands for a property of the connection.
    #[error("{rule}: {key:?} is no tag of a peer; name the destination port among the rule's ports")]
    ReservedKey {
        /// The rule, as reports name it.
        rule: String,
        /// The key of the clause.
        key: String,
    },
    /// A clause has no key.
    #[error("{rule}: a clause has an empty key")]
    EmptyKey {
        /// The rule, as reports name it.
        rule: String,
    },
    /// The rule stands in a tier the policy does not have.
    #[error("{rule}: tier {tier} does not exist, the policy has {tiers} in this direction")]
    UnknownTier {
        /// The rule, as reports name it.
        rule: String,
        /// The tier it names.
        tier: u8,
        /// How many tiers there are.
        tiers: usize,
    },
    /// A rule observes a pass, which has no outcome to report.
    #[error("{rule}: a rule with the action pass cannot be an observing one")]
    ObservedPass {
        /// The rule, as reports name it.
        rule: String,
    },
}

/// A policy ready to judge connections.
///
/// Two policies are equal if they say the same, whatever the order in which they say it.
#[derive(Debug)]
pub struct CompiledPolicy {
    pub(crate) source: PuPolicy,
    digest: [u8; 16],
    ingress: Side,
    egress: Side,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) tags_restricted: bool,
    pub(crate) addresses_restricted: bool,
    pub(crate) tiers: Vec<Tier>,
    /// Every rule, those about tags first, each in the order in which it is asked.
    pub(crate) facts: Vec<Arc<Facts>>,
}

#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) default: TierDefault,
    pub(crate) acting: Stage,
    pub(crate) watching: Stage,
    pub(crate) fallback: Stage,
}

impl CompiledPolicy {
    /// Checks a policy and builds the look-up structures.
    ///
    /// # Errors
    /// [`CompileError`] naming the first rule that cannot be enforced as stated.
    pub fn compile(policy: &PuPolicy) -> Result<Self, CompileError> {
        let source = canonical(policy);
        check(&source.ingress, &source.network_acls, source.tiers.ingress.len())?;
        check(&source.egress, &source.application_acls, source.tiers.egress.len())?;
        let digest = crate::digest::digest(&source);
        let seed = digest.iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte));
        Ok(Self {
            digest,
            ingress: Side::new(seed, &source.ingress, &source.network_acls, &source.tiers.ingress),
            egress: Side::new(seed, &source.egress, &source.application_acls, &source.tiers.egress),
            source,
        })
    }

    /// A short name for the content, the same for policies that say the same in another order.
    ///
    /// Stable for one build of the program. It is no cryptographic hash: where somebody could want two policies to
    /// have one digest, compare the policies themselves.
    #[must_use]
    pub const fn digest(&self) -> [u8; 16] {
        self.digest
    }

    /// The policy in its canonical order.
    #[must_use]
    pub const fn source(&self) -> &PuPolicy {
        &self.source
    }

    pub(crate) const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl PartialEq for CompiledPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for CompiledPolicy {}

impl Side {
    fn new(seed: u64, tags: &Ruleset, addresses: &IpRuleset, defaults: &[TierDefault]) -> Self {
        let mut numbers = (1..=u16::MAX).map(Some).chain(std::iter::repeat(None));
        let mut facts = |order: Order, flow: &FlowPolicy, services: &Services| {
            Arc::new(Facts {
                order,
                flow: flow.clone(),
                services: services.clone(),
                number: numbers.next().flatten(),
            })
        };
        let by_tags: Vec<(Arc<Facts>, &Rule)> =
            tags.rules().iter().map(|rule| (facts(rule.order, &rule.flow, &rule.services), rule)).collect();
        let by_address: Vec<(Arc<Facts>, &IpRule)> = addresses
            .rules()
            .iter()
            .map(|rule| (facts(rule.order, &rule.flow, &rule.services), rule))
            .collect();
        let tiers = defaults.iter().zip(0..=u8::MAX).map(|(&default, tier)| {
            let stage = |observe| Stage::new(seed, (tier, observe), &by_tags, &by_address);
            Tier {
                default,
                acting: stage(Observe::None),
                watching: stage(Observe::Continue),
                fallback: stage(Observe::Apply),
            }
        });
        Self {
            tags_restricted: tags.is_restricted(),
            addresses_restricted: addresses.is_restricted(),
            tiers: tiers.collect(),
            facts: by_tags
                .iter()
                .map(|(facts, _)| facts)
                .chain(by_address.iter().map(|(facts, _)| facts))
                .cloned()
                .collect(),
        }
    }
}

impl Stage {
    fn new(
        seed: u64,
        (tier, observe): (u8, Observe),
        tags: &[(Arc<Facts>, &Rule)],
        addresses: &[(Arc<Facts>, &IpRule)],
    ) -> Self {
        let here = |facts: &Facts| facts.order.tier == tier && facts.flow.observe == observe;
        let addresses = || {
            addresses.iter().filter(|(facts, _)| here(facts)).map(|(facts, rule)| (Arc::clone(facts), *rule))
        };
        Self {
            tags: TagIndex::new(
                seed,
                tags.iter()
                    .filter(|(facts, _)| here(facts))
                    .map(|(facts, rule)| (Arc::clone(facts), rule.selectors.as_slice())),
            ),
            addresses: AddressIndex::new(seed, addresses()),
            any_peer: AddressIndex::new(seed, addresses().filter(|(_, rule)| rule.any_peer)),
        }
    }
}

/// The same policy with everything whose order means nothing sorted and repetitions removed.
///
/// The order of [`Rule`] and [`IpRule`] as types is the order in which rules are asked.
fn canonical(policy: &PuPolicy) -> PuPolicy {
    let mut policy = policy.clone();
    for ruleset in [&mut policy.ingress, &mut policy.egress] {
        let Ruleset::Rules(rules) = ruleset else { continue };
        for rule in rules.iter_mut() {
            for selector in &mut rule.selectors {
                sort(&mut selector.clauses);
            }
            sort(&mut rule.selectors);
            sort_services(&mut rule.services);
        }
        sort(rules);
    }
    for ruleset in [&mut policy.network_acls, &mut policy.application_acls] {
        let Ruleset::Rules(rules) = ruleset else { continue };
        for rule in rules.iter_mut() {
            for networks in [&mut rule.networks, &mut rule.except] {
                networks.iter_mut().for_each(|network| *network = network.trunc());
                sort(networks);
            }
            sort_services(&mut rule.services);
        }
        sort(rules);
    }
    policy
}

fn sort_services(services: &mut Services) {
    if let Services::Only(list) = services {
        sort(list);
    }
}

fn sort<T: Ord>(list: &mut Vec<T>) {
    list.sort();
    list.dedup();
}

fn check(tags: &Ruleset, addresses: &IpRuleset, tiers: usize) -> Result<(), CompileError> {
    for rule in tags.rules() {
        check_place(rule.order, &rule.flow, tiers)?;
        for clause in rule.selectors.iter().flat_map(|selector| &selector.clauses) {
            check_clause(clause, &rule.flow)?;
        }
    }
    addresses.rules().iter().try_for_each(|rule| check_place(rule.order, &rule.flow, tiers))
}

fn check_place(order: Order, flow: &FlowPolicy, tiers: usize) -> Result<(), CompileError> {
    if usize::from(order.tier) >= tiers {
        return Err(CompileError::UnknownTier { rule: flow.label(), tier: order.tier, tiers });
    }
    if flow.action == RuleAction::Pass && flow.observe != Observe::None {
        return Err(CompileError::ObservedPass { rule: flow.label() });
    }
    Ok(())
}

fn check_clause(clause: &Clause, flow: &FlowPolicy) -> Result<(), CompileError> {
    if clause.key.is_empty() {
        return Err(CompileError::EmptyKey { rule: flow.label() });
    }
    if clause.is_reserved() {
        return Err(CompileError::ReservedKey { rule: flow.label(), key: clause.key.to_string() });
    }
    match &clause.test {
        Test::AnyOf(values) | Test::NoneOf(values) if values.is_empty() => {
            Err(CompileError::NoValues { rule: flow.label(), key: clause.key.to_string() })
        }
        Test::AnyOf(_) | Test::NoneOf(_) | Test::Exists | Test::NotExists => Ok(()),
    }
}
