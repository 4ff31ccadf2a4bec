//! Monitors tell the controller which processing units exist.

mod fixed;

use std::error::Error;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trireme_identity::{PuId, PuRuntime};

use crate::BoxFuture;
use crate::controller::PuError;

pub use fixed::{StaticMonitor, StaticPu};

/// Where the packets of a processing unit meet the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// A network interface of the agent's own namespace, by name: the host side of the unit's veth.
    Interface(String),
    /// A device inside a network namespace, for units without a host side.
    Netns {
        /// The namespace's file, for example `/run/netns/web`.
        path: PathBuf,
        /// The device inside; the only one that is not loopback if absent.
        device: Option<String>,
    },
    /// All processes of a cgroup (version 2) in the agent's own network namespace, for units that have none.
    Cgroup {
        /// Relative to the root of cgroups, or the path of its directory.
        path: PathBuf,
    },
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Netns { path, device: Some(device) } => write!(f, "{device} in {}", path.display()),
            Self::Netns { path, device: None } => write!(f, "the device in {}", path.display()),
            Self::Cgroup { path } => write!(f, "cgroup {}", path.display()),
        }
    }
}

/// A processing unit as its monitor found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pu {
    /// Its name on the wire and in records.
    pub id: PuId,
    /// What is known about it.
    pub runtime: PuRuntime,
    /// Where its packets are caught.
    pub edge: Edge,
}

/// What happened to a processing unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PuEvent {
    /// It exists, but has no network yet: its policy is resolved and checked, nothing is attached.
    Create(PuId, PuRuntime),
    /// It has a network and must be enforced when the event is answered.
    Start(Pu),
    /// Facts about it changed: its policy is resolved again.
    Update(PuId, PuRuntime),
    /// Its processes ended: its edge is released, its name is kept.
    Stop(PuId),
    /// It is gone for good: everything about it is forgotten.
    Destroy(PuId),
}

impl PuEvent {
    /// The unit the event is about.
    #[must_use]
    pub const fn id(&self) -> &PuId {
        match self {
            Self::Create(id, _) | Self::Update(id, _) | Self::Stop(id) | Self::Destroy(id) => id,
            Self::Start(pu) => &pu.id,
        }
    }
}

/// Why an event was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The unit could not be resolved or enforced.
    #[error("the event was not carried out")]
    Pu(#[from] PuError),
    /// The controller is stopping.
    #[error("the controller is stopping")]
    Stopping,
}

pub(crate) type Report = (PuEvent, oneshot::Sender<Result<(), EventError>>);

/// The channel from a monitor to the controller: bounded, a full one makes the monitor wait.
#[derive(Clone, Debug)]
pub struct Events(pub(crate) mpsc::Sender<Report>);

impl Events {
    /// Reports an event and waits until the controller has carried it out.
    ///
    /// After `Ok` for a [`PuEvent::Start`] no packet of the unit passes unjudged: a monitor that can hold
    /// the unit's first process back does so until then.
    ///
    /// # Errors
    /// [`EventError`] says why the unit is not enforced; the monitor decides whether it may start.
    ///
    /// # Cancel safety
    /// The event may still be carried out after a drop, its outcome is lost.
    pub async fn send(&self, event: PuEvent) -> Result<(), EventError> {
        let (reply, outcome) = oneshot::channel();
        self.0.send((event, reply)).await.map_err(|_| EventError::Stopping)?;
        outcome.await.map_err(|_| EventError::Stopping)?
    }
}

/// Why a monitor cannot do its work.
#[derive(Debug, thiserror::Error)]
#[error("monitor {monitor} failed")]
pub struct MonitorError {
    /// The monitor's name.
    pub monitor: String,
    /// What went wrong, in the monitor's own terms.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// What a unit that cannot be enforced at start means for the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// One bad unit refuses the whole start: the units are written by the operator.
    AllOrNothing,
    /// A bad unit is reported and left out, the others start: the units are found.
    EachAlone,
}

/// A source of processing units: a configuration file, a container runtime, the process table.
pub trait Monitor: Send + 'static {
    /// A short name for logs and status.
    fn name(&self) -> &str;

    /// What a unit of [`Monitor::existing`] that cannot be enforced means for the start.
    fn startup(&self) -> Startup {
        Startup::EachAlone
    }

    /// Lists the units that exist. Called once, before [`Monitor::run`]; a monitor with a live source
    /// subscribes first, so that what appears in between is reported by `run`.
    ///
    /// Units that the kernel still enforces from an earlier run and that no monitor lists are removed.
    fn existing(&mut self) -> BoxFuture<'_, Result<Vec<Pu>, MonitorError>>;

    /// Reports changes until `stop` is cancelled. Returning early without an error means that nothing
    /// can change any more; an error ends the controller.
    fn run(
        self: Box<Self>,
        events: Events,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), MonitorError>>;
}
