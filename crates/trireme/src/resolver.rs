//! Policy resolvers say what a processing unit is and what it may do.

mod file;

use std::error::Error;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trireme_identity::time::WallTime;
use trireme_identity::{PuId, PuRuntime, TagSet};
use trireme_policy::PuPolicy;

use crate::{BoxFuture, UnitSettings};

pub use file::{FilePolicyResolver, UnitOverride};

/// The answer of a resolver for one unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// What the unit may do and who may reach it.
    pub policy: PuPolicy,
    /// The tags its token carries and peers match.
    pub identity: TagSet,
    /// Tags that are reported with its flows and matched by nobody.
    pub annotations: TagSet,
    /// How it is enforced.
    pub settings: UnitSettings,
}

/// Why a resolver has no answer.
#[derive(Debug, thiserror::Error)]
#[error("resolver {resolver} has no policy")]
pub struct ResolveError {
    /// The resolver's name.
    pub resolver: String,
    /// What went wrong, in the resolver's own terms.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Which units must be resolved again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyUpdate {
    /// Every unit.
    All,
    /// One unit.
    Pu(PuId),
}

/// The channel from a resolver to the controller: bounded, a full one makes the resolver wait.
#[derive(Clone, Debug)]
pub struct Updates(pub(crate) mpsc::Sender<PolicyUpdate>);

impl Updates {
    /// Tells the controller that answers changed; it asks [`PolicyResolver::resolve`] for the new ones.
    ///
    /// # Cancel safety
    /// A drop before completion loses the update.
    pub async fn send(&self, update: PolicyUpdate) {
        // A closed channel means that the controller stops: nobody enforces the new answer.
        drop(self.0.send(update).await);
    }
}

/// What a resolver works from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverStatus {
    /// The source's name, for example a file path.
    pub source: String,
    /// Counts the versions that came into force since the start, from 1.
    pub revision: u64,
    /// When the version in force was read.
    pub loaded_at: WallTime,
    /// Why a newer version is not in force, if there is one.
    pub error: Option<String>,
    /// What an operator could misread as protection, in the source's words.
    pub warnings: Vec<String>,
}

/// A source of policy: a file, a cluster, a service of your own.
pub trait PolicyResolver: Send + Sync + 'static {
    /// A short name for logs and status.
    fn name(&self) -> &str;

    /// Says what the unit is and what it may do, from the version in force.
    fn resolve<'a>(
        &'a self,
        id: &'a PuId,
        runtime: &'a PuRuntime,
    ) -> BoxFuture<'a, Result<Resolved, ResolveError>>;

    /// Reads the source again; what changed is announced through the channel of [`PolicyResolver::run`]
    /// or by the controller's own sweep after this call.
    ///
    /// # Errors
    /// The old version stays in force.
    fn reload(&self) -> BoxFuture<'_, Result<(), ResolveError>>;

    /// Watches the source until `stop` is cancelled. An error ends the controller: a source that is
    /// only bad for a while is reported through [`PolicyResolver::status`] instead.
    fn run<'a>(
        &'a self,
        updates: Updates,
        stop: CancellationToken,
    ) -> BoxFuture<'a, Result<(), ResolveError>>;

    /// What the resolver works from.
    fn status(&self) -> ResolverStatus;
}
