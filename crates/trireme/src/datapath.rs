//! Data paths make the kernel admit only what policy admits.
//!
//! A data path has two halves: its *supervisor* programs the kernel (which packets are caught, which pass on
//! their own), its *enforcer* judges the packets that were caught.

pub mod bpf;
mod edge;
mod enforcer;
mod local;
pub mod nfqueue;
mod privilege;
mod supervisor;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use trireme_identity::PuId;
use trireme_identity::time::WallTime;
use trireme_token::DenyList;

pub use local::LocalDatapath;

use crate::{BoxFuture, Collector, Enforcement, FailMode, NodeSecrets};

/// Why a data path did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// One unit cannot be enforced; the others are not affected.
    #[error("{id} cannot be enforced")]
    Unit {
        /// The unit.
        id: PuId,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The machine lacks something.
    #[error("{0}")]
    Unsupported(String),
    /// Keys or credentials do not fit.
    #[error("the node's secrets cannot be used")]
    Secrets(#[source] Box<dyn Error + Send + Sync>),
    /// The kernel refused an operation.
    #[error("cannot {action}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Files of the state directory cannot be used.
    #[error("the state directory cannot be used")]
    State(#[from] crate::state::StateError),
    /// The data path is not running (any more).
    #[error("the data path is not running")]
    Stopped,
}

impl DatapathError {
    pub(crate) fn kernel(action: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Kernel { action: action.into(), source: source.into() }
    }

    pub(crate) fn unit(id: &PuId, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unit { id: id.clone(), source: source.into() }
    }
}

/// What a data path says about a unit it enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// The version of policy and identity that its connections are authorized under.
    pub epoch: u32,
}

/// What a data path is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatapathReport {
    /// Why it was chosen and what it found.
    pub detail: String,
    /// Table sizes and other gauges, by name.
    pub gauges: BTreeMap<String, u64>,
    /// Packets and decisions by unit and stable name: the engine's reasons and the kernel's counters.
    pub counters: BTreeMap<(Option<PuId>, String), u64>,
    /// Units whose traffic the kernel judges otherwise than it should, and why.
    pub impaired: BTreeMap<PuId, String>,
    /// How each unit is enforced.
    pub units: BTreeMap<PuId, UnitReport>,
}

/// How a unit is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitReport {
    /// Whether handshakes of known identities stay in the kernel.
    pub fast_path: bool,
    /// What happens while no agent answers.
    pub fail_mode: FailMode,
    /// Whether its packets are caught.
    pub edge: EdgeState,
    /// Connections older than its first enforcement that were let go on.
    pub adopted: u64,
    /// Why older connections could not be listed.
    pub adoption_error: Option<String>,
    /// How often somebody else's changes to its edge were found and undone since the start.
    pub repairs: u64,
    /// When the last of them was found, and what it was.
    pub last_repair: Option<(WallTime, String)>,
}

/// Whether a unit's packets are caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeState {
    /// Where the unit cannot get past.
    Attached,
    /// Inside its own network namespace.
    Advisory,
    /// The interface or namespace is gone.
    Vanished,
    /// The programs were removed or replaced and cannot be put back.
    Damaged,
}

/// A way to catch and judge packets: in this process, or in another one that speaks to this one.
///
/// The controller calls one method at a time. `check` and `check_unit` change nothing in the kernel; all of them
/// come before `start`.
pub trait Datapath: Send + 'static {
    /// A short name: `bpf`, `nfqueue`.
    fn kind(&self) -> &str;

    /// Checks that the machine has what is needed and that the secrets can be used.
    fn check<'a>(&'a mut self, secrets: &'a NodeSecrets) -> BoxFuture<'a, Result<(), DatapathError>>;

    /// Checks that a unit could be enforced: its edge exists, its token fits.
    fn check_unit<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<(), DatapathError>>;

    /// Starts, adopting what an earlier run left in the kernel.
    fn start(
        &mut self,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
    ) -> BoxFuture<'_, Result<(), DatapathError>>;

    /// Enforces a unit from here on: a new one, or another policy, identity or edge of a known one.
    /// On an error a new unit is not enforced, and a known one goes on as before.
    fn supervise<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<Enforced, DatapathError>>;

    /// Stops enforcing a unit and removes every trace of it.
    fn release<'a>(&'a mut self, id: &'a PuId) -> BoxFuture<'a, Result<(), DatapathError>>;

    /// Releases units of an earlier run that are not supervised in this one; gives their names.
    fn release_strangers(&mut self) -> BoxFuture<'_, Result<Vec<PuId>, DatapathError>>;

    /// Refuses what the list names from here on, instead of what the last one named. Every unit gets a new epoch, so that
    /// live connections are judged again; gives the epochs.
    fn set_deny_list(
        &mut self,
        list: DenyList,
    ) -> BoxFuture<'_, Result<BTreeMap<PuId, Enforced>, DatapathError>>;

    /// Uses other keys from here on.
    fn set_secrets(&mut self, secrets: NodeSecrets) -> BoxFuture<'_, Result<(), DatapathError>>;

    /// What it is doing.
    fn report(&mut self) -> BoxFuture<'_, Result<DatapathReport, DatapathError>>;

    /// Waits until the data path breaks; never ends while it works.
    ///
    /// The controller drops and renews this future at will.
    fn broken(&mut self) -> BoxFuture<'_, DatapathError>;

    /// Ends the judging and leaves the kernel's part in place: it goes on with what it knows, and each unit's fail mode
    /// says what becomes of the rest.
    fn stop(self: Box<Self>, deadline: Duration) -> BoxFuture<'static, Result<(), DatapathError>>;
}
