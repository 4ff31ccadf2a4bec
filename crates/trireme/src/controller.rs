//! The controller: joins monitors, resolver, data path and collectors.

mod actor;
mod running;
mod start;
mod units;

use std::sync::Arc;

use trireme_identity::{NodeId, PuId};

use crate::{
    Collector, Collectors, Datapath, DatapathError, DenyListFile, Monitor, MonitorError, NodeSecrets,
    PolicyResolver, ResolveError,
};

pub use running::{Handle, ReloadError, Running, StopError};
pub(crate) use units::{chain, wall_time};

/// Why a processing unit is not enforced.
#[derive(Debug, thiserror::Error)]
pub enum PuError {
    /// No policy for it.
    #[error("no policy for {id}")]
    Resolve {
        /// The unit.
        id: PuId,
        /// The resolver's error.
        #[source]
        source: ResolveError,
    },
    /// Its policy contradicts itself.
    #[error("the policy of {id} cannot be enforced as stated")]
    Compile {
        /// The unit.
        id: PuId,
        /// The compiler's error.
        #[source]
        source: trireme_policy::CompileError,
    },
    /// The data path refused it.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The event is about a unit nobody created.
    #[error("there is no processing unit {0}")]
    Unknown(PuId),
    /// Two monitors, or one twice, report a unit of this name.
    #[error("there is a processing unit {0} already")]
    Duplicate(PuId),
}

/// Why a controller cannot be assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing: give it to the builder")]
pub struct BuildError(&'static str);

/// Why a start was refused. Unless said otherwise nothing was changed in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A monitor cannot list its units.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// A unit that must be enforced cannot be.
    #[error("the start is refused because of one unit")]
    Pu(#[from] PuError),
    /// The data path cannot work here.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// An assembled controller that has not touched the kernel.
pub struct Trireme {
    node: NodeId,
    secrets: NodeSecrets,
    monitors: Vec<Box<dyn Monitor>>,
    resolver: Arc<dyn PolicyResolver>,
    datapath: Box<dyn Datapath>,
    deny_list: Option<Arc<DenyListFile>>,
    collector: Arc<dyn Collector>,
}

impl Trireme {
    /// Begins to assemble the controller of a node.
    #[must_use]
    pub fn builder(node: NodeId) -> Builder {
        Builder {
            node,
            secrets: None,
            monitors: Vec::new(),
            resolver: None,
            datapath: None,
            deny_list: None,
            collectors: Collectors::default(),
        }
    }
}

impl std::fmt::Debug for Trireme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let monitors: Vec<&str> = self.monitors.iter().map(|monitor| monitor.name()).collect();
        f.debug_struct("Trireme")
            .field("node", &self.node)
            .field("monitors", &monitors)
            .field("resolver", &self.resolver.name())
            .field("datapath", &self.datapath.kind())
            .finish_non_exhaustive()
    }
}

/// Assembles a [`Trireme`].
///
/// ```no_run
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use trireme::{Trireme, StaticMonitor, FilePolicyResolver, FlowStore, NodeSecrets};
/// # use trireme::datapath::bpf::{BpfConfig, BpfDatapath};
/// # async fn f(secrets: NodeSecrets, bpf: BpfConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let flows = Arc::new(FlowStore::new(4096));
/// let running = Trireme::builder("node-a".parse()?)
///     .secrets(secrets)
///     .monitor(StaticMonitor::new(vec![]))
///     .resolver(FilePolicyResolver::open("policy.yaml".as_ref(), Default::default(), Default::default())?)
///     .datapath(BpfDatapath::new(bpf))
///     .collector(flows)
///     .build()?
///     .start()
///     .await?;
/// running.stop(Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
pub struct Builder {
    node: NodeId,
    secrets: Option<NodeSecrets>,
    monitors: Vec<Box<dyn Monitor>>,
    resolver: Option<Arc<dyn PolicyResolver>>,
    datapath: Option<Box<dyn Datapath>>,
    deny_list: Option<Arc<DenyListFile>>,
    collectors: Collectors,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Builder {
    /// Sets what the node proves itself with.
    #[must_use]
    pub fn secrets(mut self, secrets: NodeSecrets) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Adds a source of units; there may be several, or none.
    #[must_use]
    pub fn monitor(mut self, monitor: impl Monitor) -> Self {
        self.monitors.push(Box::new(monitor));
        self
    }

    /// Sets the source of policy.
    #[must_use]
    pub fn resolver(mut self, resolver: impl PolicyResolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Sets what enforces.
    #[must_use]
    pub fn datapath(mut self, datapath: impl Datapath) -> Self {
        self.datapath = Some(Box::new(datapath));
        self
    }

    /// Sets what is refused although it verifies; obeyed as the file changes.
    #[must_use]
    pub fn deny_list(mut self, file: DenyListFile) -> Self {
        self.deny_list = Some(Arc::new(file));
        self
    }

    /// Adds a sink of records; there may be several, or none.
    #[must_use]
    pub fn collector(mut self, collector: Arc<dyn Collector>) -> Self {
        self.collectors.push(collector);
        self
    }

    /// Puts the parts together; touches nothing.
    ///
    /// # Errors
    /// [`BuildError`] names a missing part.
    pub fn build(self) -> Result<Trireme, BuildError> {
        Ok(Trireme {
            node: self.node,
            secrets: self.secrets.ok_or(BuildError("secrets"))?,
            monitors: self.monitors,
            resolver: self.resolver.ok_or(BuildError("resolver"))?,
            datapath: self.datapath.ok_or(BuildError("datapath"))?,
            deny_list: self.deny_list,
            collector: Arc::new(self.collectors),
        })
    }
}
