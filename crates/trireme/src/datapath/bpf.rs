//! The BPF data path: programs at the edges of units pass what was admitted, the engine judges the rest.
//!
//! Its *supervisor* is the [`Plane`]: programs, maps, rings.

mod convert;
mod lesson;
mod lessons;
mod place;
mod repairs;
mod state;
mod supervisor;
#[cfg(feature = "testing")]
pub mod testing;

use std::path::PathBuf;

use trireme_bpf::{Plane, PlaneConfig};
use trireme_identity::NodeId;
use trireme_netns::Links;

pub use trireme_bpf::{Limits, OnHook, Sizes, WallClock, has_tcx, wall_clock};
pub use trireme_netns::{Link, merges_received};

use super::DatapathError;
use super::local::LocalDatapath;
use super::privilege::{self, Need};
use super::supervisor::{BackEnd, EnforcerSetup, Refused};
use crate::{Edge, Enforcement};

use supervisor::BpfSupervisor;

/// What the process must be allowed to do.
const NEEDED: [Need; 4] = [Need::Bpf, Need::NetAdmin, Need::NetRaw, Need::SysAdmin];

/// How the BPF data path is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfConfig {
    /// The node, as log lines and records name it.
    pub node: NodeId,
    /// Where token keys and epochs outlive a restart (0700).
    pub state_dir: PathBuf,
    /// Mount point of the BPF file system.
    pub bpffs: PathBuf,
    /// Separates the kernel state of several agents on one machine.
    pub instance: String,
    /// Threads that check signatures, at least one.
    pub verify_threads: usize,
    /// Sizes of the kernel's tables, and of the engine's beside them. Tables that an earlier run made keep theirs.
    pub sizes: Sizes,
    /// What reaches the engine at most, per second.
    pub limits: Limits,
    /// The largest TAP payload that a token may fill; handshake segments may become 120 bytes longer than it.
    pub payload_limit: u16,
}

/// The BPF data path.
pub type BpfDatapath = LocalDatapath<BpfConfig>;

impl BackEnd for BpfConfig {
    type Supervisor = BpfSupervisor;

    const KIND: &'static str = "bpf";

    fn setup(&self) -> EnforcerSetup {
        EnforcerSetup {
            state_dir: self.state_dir.clone(),
            verify_threads: self.verify_threads,
            payload_limit: self.payload_limit,
            units: self.sizes.pus,
            connections: self.sizes.connections,
            peers: self.sizes.peers,
            pair_keys: self.sizes.pair_keys,
            destinations: self.sizes.destinations,
        }
    }

    fn check(&self) -> Result<(), DatapathError> {
        privilege::check(Self::KIND, &NEEDED)
    }

    fn check_unit(&self, unit: &Enforcement) -> Result<(), Refused> {
        place::find(&unit.pu.edge)?;
        Ok(())
    }

    fn open(self) -> Result<BpfSupervisor, DatapathError> {
        let plane = Plane::open(PlaneConfig {
            bpffs: self.bpffs,
            sizes: self.sizes,
            limits: self.limits,
            ..PlaneConfig::new(self.instance.clone())
        })
        .map_err(|error| DatapathError::kernel("open the bpf data path", error))?;
        Ok(BpfSupervisor::new(plane, &self.instance))
    }
}

/// Checks what can be checked about process and kernel without changing anything: whether the BPF data path can be
/// expected to work here.
///
/// # Errors
/// [`DatapathError::Unsupported`], naming what is missing.
pub fn probe() -> Result<(), DatapathError> {
    privilege::check(BpfConfig::KIND, &NEEDED)?;
    Plane::probe().map_err(|error| DatapathError::Unsupported(crate::controller::chain(&error)))
}

/// Checks whether the process may do what the BPF data path does.
///
/// # Errors
/// [`DatapathError::Unsupported`], naming every capability that is missing.
pub fn privileges() -> Result<(), DatapathError> {
    privilege::check(BpfConfig::KIND, &NEEDED)
}

/// Finds the interface at which programs would catch a unit: its name, and whether it is inside the unit's namespace.
///
/// Must run on a thread outside of any asynchronous runtime.
///
/// # Errors
/// [`DatapathError::Unsupported`], naming what is not there.
pub fn edge_of(edge: &Edge) -> Result<(String, bool), DatapathError> {
    match place::find(edge) {
        Ok(trireme_bpf::Edge::Interface(name)) => Ok((name, false)),
        Ok(trireme_bpf::Edge::Namespace { device, .. }) => Ok((device, true)),
        Err(error) => Err(DatapathError::Unsupported(crate::controller::chain(&error))),
    }
}

/// Lists the interfaces of the calling thread's network namespace.
///
/// Must run on a thread outside of any asynchronous runtime.
///
/// # Errors
/// [`DatapathError::Kernel`] if the kernel does not tell.
pub fn interfaces() -> Result<Vec<Link>, DatapathError> {
    let found = Links::connect().and_then(|links| links.all());
    found.map_err(|error| DatapathError::kernel("list the interfaces", error))
}

/// Lists what is on the hooks of an interface of the calling thread's network namespace, on each in the order in which the
/// kernel runs it.
///
/// # Errors
/// [`DatapathError::Kernel`] if the kernel does not tell.
pub fn programs_on(interface: &str) -> Result<Vec<OnHook>, DatapathError> {
    let found = trireme_bpf::programs_on(interface);
    found.map_err(|error| DatapathError::kernel(format!("list the programs on {interface}"), error))
}

/// How many units an instance has attached, whether an agent runs or not.
#[must_use]
pub fn held_units(config: &BpfConfig) -> usize {
    Plane::attached(&config.bpffs, &config.instance)
}

/// Removes everything an instance left in the kernel: its units are open afterwards.
///
/// Gives a short account of what was removed.
///
/// # Errors
/// [`DatapathError::Kernel`] while an agent runs, or naming what stayed.
pub fn cleanup(config: &BpfConfig) -> Result<String, DatapathError> {
    privilege::check(BpfConfig::KIND, &NEEDED)?;
    let report = trireme_bpf::Plane::cleanup(&config.bpffs, &config.instance)
        .map_err(|error| DatapathError::kernel(format!("clean up instance {}", config.instance), error))?;
    Ok(format!("{} units detached, {} pins", report.detached.len(), report.pins))
}
