//! Who may talk to whom: rules over the tags of a peer, compiled to a decision that costs the same at ten rules and at ten thousand.
//!
//! Start with [`PuPolicy`] (what an operator or resolver says about one processing unit) and [`CompiledPolicy`]
//! (what judges a connection, and explains the judgement).
//! This crate must not authenticate: it believes the tags it is given. No I/O, no clock, no randomness, no packets.
#![forbid(unsafe_code)]

mod clause;
mod compile;
mod decide;
mod digest;
mod explain;
mod index;
mod ip;
pub mod naive;
mod policy;
mod rule;
mod selector;
mod service;

pub use clause::{Clause, Test, Values};
pub use compile::{CompileError, CompiledPolicy};
pub use decide::{Basis, Decision, Observed, Peer};
pub use explain::{ClosestRule, Explanation, FailedCondition, MatchedRule};
pub use ip::IpRule;
pub use policy::{IpRuleset, Mode, PuPolicy, Ruleset, TierDefault, Tiers};
pub use rule::{Action, FlowPolicy, Observe, Order, Rule, RuleAction};
pub use selector::Selector;
pub use service::{Service, ServiceError, Services};
