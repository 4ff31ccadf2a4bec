//! The NFQUEUE data path: netfilter queues hand the handshakes of units to the engine, marks of their connections keep the
//! rest in the kernel. It needs no BPF.
//!
//! Its *supervisor* writes rules into the units' network namespaces and serves a queue in each. Units of the host itself are
//! cgroups: the agent's own namespace has rules for all of them, and a queue for each.

mod caught;
mod cgroup;
mod counted;
mod host;
mod journal;
mod kept;
mod place;
mod ready;
mod rules;
mod supervisor;
mod table;
mod watch;

use std::path::{Path, PathBuf};

pub use trireme_netfilter::{BackEnd as RuleBackEnd, FieldError, MarkField};
use trireme_netfilter::{Capabilities, HostField};

use super::DatapathError;
use super::local::LocalDatapath;
use super::privilege::{self, Need};
use super::supervisor::{BackEnd, EnforcerSetup, Refused};
use crate::{Edge, Enforcement, FailMode};

pub(super) use cgroup::CgroupError;

use kept::Kept;
use place::Place;
use supervisor::NfqueueSupervisor;

/// How the NFQUEUE data path is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfqueueConfig {
    /// Where token keys, epochs and counters outlive a restart (0700).
    pub state_dir: PathBuf,
    /// Threads that check signatures, at least one.
    pub verify_threads: usize,
    /// Number of the queue in each unit's namespace; units of the host have those behind it.
    pub queue: u16,
    /// Bits of marks and connmarks in units' namespaces that are Trireme's.
    pub mark: MarkField,
    /// How rules are written; none finds out for each namespace.
    pub rules: Option<RuleBackEnd>,
    /// The largest TAP payload that a token may fill.
    pub payload_limit: u16,
    /// Most units.
    pub units: u32,
    /// Most connections, all units together.
    pub connections: u32,
    /// Most peers, and tokens of them.
    pub peers: u32,
    /// Most pair keys.
    pub pair_keys: u32,
    /// Most destinations.
    pub destinations: u32,
}

/// The NFQUEUE data path.
pub type NfqueueDatapath = LocalDatapath<NfqueueConfig>;

/// What the process must be allowed to do.
const NEEDED: [Need; 3] = [Need::NetAdmin, Need::NetRaw, Need::SysAdmin];

impl BackEnd for NfqueueConfig {
    type Supervisor = NfqueueSupervisor;

    const KIND: &'static str = "nfqueue";

    fn setup(&self) -> EnforcerSetup {
        EnforcerSetup {
            state_dir: self.state_dir.clone(),
            verify_threads: self.verify_threads,
            payload_limit: self.payload_limit,
            units: self.units,
            connections: self.connections,
            peers: self.peers,
            pair_keys: self.pair_keys,
            destinations: self.destinations,
        }
    }

    fn check(&self) -> Result<(), DatapathError> {
        privilege::check(Self::KIND, &NEEDED)
    }

    fn check_unit(&self, unit: &Enforcement) -> Result<(), Refused> {
        check_fail_mode(unit.settings.fail_mode)?;
        Place::find(&unit.pu.edge)?;
        Ok(())
    }

    fn open(self) -> Result<NfqueueSupervisor, DatapathError> {
        NfqueueSupervisor::new(self)
    }
}

/// Checks whether the process may do what the NFQUEUE data path does.
///
/// # Errors
/// [`DatapathError::Unsupported`], naming every capability that is missing.
pub fn privileges() -> Result<(), DatapathError> {
    privilege::check(NfqueueConfig::KIND, &NEEDED)
}

/// How many units of the host there can be with this field of marks.
#[must_use]
pub fn host_units(mark: MarkField) -> u32 {
    HostField::new(mark).max_unit()
}

/// Tries every way to write rules, in a throw-away network namespace; says of each why it cannot be used.
#[must_use]
pub fn rule_back_ends() -> Vec<(RuleBackEnd, Result<(), String>)> {
    let capabilities = Capabilities::default();
    let tried = |back_end| capabilities.supports(back_end).map_err(|error| crate::controller::chain(&error));
    RuleBackEnd::ALL.into_iter().map(|back_end| (back_end, tried(back_end))).collect()
}

/// Runs `look` on a short-lived thread inside the network namespace in which a unit would be caught.
///
/// Must run on a thread outside of any asynchronous runtime.
///
/// # Errors
/// [`DatapathError::Unsupported`], naming what is not there.
pub fn inside<T: Send>(edge: &Edge, look: impl FnOnce() -> T + Send) -> Result<T, DatapathError> {
    let missing = |error: &dyn std::error::Error| DatapathError::Unsupported(crate::controller::chain(error));
    let namespace = Place::find(edge).and_then(|place| place.open()).map_err(|error| missing(&error))?;
    namespace.run(look).map_err(|error| missing(&error))
}

/// How many units rules of an earlier run catch, whether an agent runs or not.
#[must_use]
pub fn held_units(state_dir: &Path) -> usize {
    Kept::open(state_dir).map_or(0, |kept| rules::held(&kept))
}

/// Removes the rules of the units that the last run of an agent enforced, and of those at `edges`: they are open afterwards.
/// Other agents' units keep theirs. Gives a short account of what was removed.
///
/// # Errors
/// [`DatapathError::Kernel`] if rules stay.
pub fn cleanup(state_dir: &Path, edges: &[Edge]) -> Result<String, DatapathError> {
    privilege::check(NfqueueConfig::KIND, &NEEDED)?;
    let kept = Kept::open(state_dir)
        .map_err(|error| DatapathError::kernel("read which units an earlier run enforced", error))?;
    let cleaned = rules::clean_up(&kept, edges)
        .map_err(|error| DatapathError::kernel("remove the rules of the nfqueue data path", error))?;
    Ok(format!("rules in {cleaned} network namespaces"))
}

/// Without an agent nobody judges here, known or not.
fn check_fail_mode(mode: FailMode) -> Result<(), Refused> {
    match mode {
        FailMode::Closed | FailMode::Open => Ok(()),
        FailMode::LastKnownFor(_) => {
            Err("fail_mode last-known-for needs the bpf data path: choose closed or open".into())
        }
    }
}
