//! Trireme as a library: monitors say which processing units exist, a policy resolver says what each may do, a
//! data path makes the kernel admit only that, collectors record what happened.
//!
//! Start with [`Trireme`] (assembled by [`Trireme::builder`], started into a [`Running`]) and the four traits
//! [`Monitor`], [`PolicyResolver`], [`Datapath`] and [`Collector`].
//! This crate joins parts: it must not parse packets, judge connections or hold `unsafe` code, and it reads no
//! configuration file of the program.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking"))]

mod collector;
mod controller;
pub mod datapath;
pub mod deny_file;
mod explain;
mod future;
mod monitor;
pub mod policy_file;
mod random;
mod resolver;
mod secrets;
pub mod state;
mod status;
mod unit;
mod warnings;
mod watch;

pub use collector::{Collector, Collectors, FlowStore, NoCollector, PuChange, PuRecord, StoredFlow};
pub use controller::{
    BuildError, Builder, Handle, PuError, ReloadError, Running, StartError, StopError, Trireme,
};
pub use datapath::{Datapath, DatapathError, DatapathReport, EdgeState, Enforced, UnitReport};
pub use deny_file::{DenyListFile, DenyListStatus};
pub use explain::{ExplainError, Opinion, Question, explain};
pub use future::BoxFuture;
pub use monitor::{
    Edge, EventError, Events, Monitor, MonitorError, Pu, PuEvent, Startup, StaticMonitor, StaticPu,
};
pub use random::random_seed;
pub use resolver::{
    FilePolicyResolver, PolicyResolver, PolicyUpdate, ResolveError, Resolved, ResolverStatus, UnitOverride,
    Updates,
};
pub use secrets::{NodeSecrets, SecretsKind};
pub use status::{Status, UnitState, UnitStatus};
pub use unit::{AdoptExisting, Enforcement, FailMode, FastPath, OtherProtocols, UnitSettings};
pub use warnings::Warning;

pub use trireme_datapath::{
    Authorize, NotifyPeer, OnPolicyChange, PuSettings, Refusal, Strictness, TargetNetworks,
};
