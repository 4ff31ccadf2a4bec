//! The BPF data path: programs at the edges of units pass what was admitted, the engine judges the rest.
//!
//! Its *supervisor* is the [`Plane`](trireme_bpf::Plane): programs, maps, rings. Its *enforcer* is the
//! [`Engine`](trireme_datapath::Engine). Both live on one plain OS thread, so that no packet waits for an
//! asynchronous task; signature checks run on threads of their own and never delay known peers.

mod convert;
mod edge;
mod ledger;
mod lesson;
mod meter;
mod privilege;
mod saver;
#[cfg(feature = "testing")]
pub mod testing;
mod verify;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use trireme_identity::{NodeId, PuId};
use trireme_token::{AgreementPublic, DenyList, TokenRequest};

pub use trireme_bpf::{Limits, Sizes};

use super::{Datapath, DatapathError, DatapathReport, Enforced};
use crate::state::StateDir;
use crate::{BoxFuture, Collector, Enforcement, NodeSecrets, controller};

use worker::{Request, Worker};

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
#[derive(Debug)]
pub struct BpfDatapath {
    config: BpfConfig,
    state: Option<StateDir>,
    secrets: Option<NodeSecrets>,
    worker: Option<Worker>,
}

impl BpfDatapath {
    /// A data path that is not running.
    #[must_use]
    pub const fn new(config: BpfConfig) -> Self {
        Self { config, state: None, secrets: None, worker: None }
    }

    fn check_now(&mut self, secrets: &NodeSecrets) -> Result<(), DatapathError> {
        privilege::check()?;
        // Looked at if it is there; made when the data path starts.
        if self.state.is_none() && self.config.state_dir.exists() {
            self.state = Some(StateDir::open(&self.config.state_dir)?);
        }
        self.secrets = Some(secrets.clone());
        Ok(())
    }

    /// The token is made once for its size; what is sent later differs only in bytes of fixed length.
    fn check_token(&self, unit: &Enforcement) -> Result<(), DatapathError> {
        let Some(secrets) = &self.secrets else { return Err(DatapathError::Stopped) };
        let filtered = unit.settings.tcp.tag_filter.apply(&unit.identity);
        let request = TokenRequest {
            subject: unit.id().clone(),
            tags: filtered.tags,
            partial: filtered.partial,
            agreement: AgreementPublic([1; 32]),
            issued_at: controller::wall_time(),
            lifetime_secs: secrets.lifetime_secs,
        };
        match secrets.signer.issue(&request, secrets.encoding) {
            Ok(_) => Ok(()),
            Err(error) => Err(DatapathError::unit(unit.id(), error)),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, DatapathError>>) -> Request,
    ) -> Result<T, DatapathError> {
        let Some(worker) = &self.worker else { return Err(DatapathError::Stopped) };
        let (reply, answer) = oneshot::channel();
        worker.send(request(reply))?;
        answer.await.map_err(|_| DatapathError::Stopped)?
    }
}

impl Datapath for BpfDatapath {
    fn kind(&self) -> &'static str {
        "bpf"
    }

    fn check<'a>(&'a mut self, secrets: &'a NodeSecrets) -> BoxFuture<'a, Result<(), DatapathError>> {
        Box::pin(std::future::ready(self.check_now(secrets)))
    }

    fn check_unit<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<(), DatapathError>> {
        Box::pin(async move {
            self.check_token(unit)?;
            let edge = unit.pu.edge.clone();
            match on_thread("edge", move || edge::find(&edge)).await? {
                Ok(_) => Ok(()),
                Err(error) => Err(DatapathError::unit(unit.id(), error)),
            }
        })
    }

    fn start(
        &mut self,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
    ) -> BoxFuture<'_, Result<(), DatapathError>> {
        Box::pin(async move {
            self.check_now(&secrets)?;
            let state = match self.state.take() {
                Some(state) => state,
                None => StateDir::open(&self.config.state_dir)?,
            };
            self.worker = Some(Worker::start(self.config.clone(), state, secrets, collector).await?);
            Ok(())
        })
    }

    fn supervise<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<Enforced, DatapathError>> {
        Box::pin(async move {
            self.check_token(unit)?;
            self.ask(|reply| Request::Supervise(Box::new(unit.clone()), reply)).await
        })
    }

    fn release<'a>(&'a mut self, id: &'a PuId) -> BoxFuture<'a, Result<(), DatapathError>> {
        Box::pin(self.ask(|reply| Request::Release(id.clone(), reply)))
    }

    fn release_strangers(&mut self) -> BoxFuture<'_, Result<Vec<PuId>, DatapathError>> {
        Box::pin(self.ask(Request::ReleaseStrangers))
    }

    fn set_secrets(&mut self, secrets: NodeSecrets) -> BoxFuture<'_, Result<(), DatapathError>> {
        Box::pin(async move {
            self.ask(|reply| Request::Secrets(Box::new(secrets.clone()), reply)).await?;
            self.secrets = Some(secrets);
            Ok(())
        })
    }

    fn set_deny_list(
        &mut self,
        list: DenyList,
    ) -> BoxFuture<'_, Result<BTreeMap<PuId, Enforced>, DatapathError>> {
        Box::pin(self.ask(|reply| Request::Deny(list, reply)))
    }

    fn report(&mut self) -> BoxFuture<'_, Result<DatapathReport, DatapathError>> {
        Box::pin(self.ask(Request::Report))
    }

    fn broken(&mut self) -> BoxFuture<'_, DatapathError> {
        Box::pin(async move {
            match &mut self.worker {
                Some(worker) => worker.broken().await,
                None => std::future::pending().await,
            }
        })
    }

    fn stop(self: Box<Self>, deadline: Duration) -> BoxFuture<'static, Result<(), DatapathError>> {
        Box::pin(async move {
            let Some(worker) = self.worker else { return Ok(()) };
            worker.stop(deadline).await
        })
    }
}

/// Removes everything an instance left in the kernel: its units are open afterwards.
///
/// Gives a short account of what was removed.
///
/// # Errors
/// [`DatapathError::Kernel`] while an agent runs, or naming what stayed.
pub fn cleanup(config: &BpfConfig) -> Result<String, DatapathError> {
    privilege::check()?;
    let report = trireme_bpf::Plane::cleanup(&config.bpffs, &config.instance)
        .map_err(|error| DatapathError::kernel(format!("clean up instance {}", config.instance), error))?;
    Ok(format!("{} units detached, {} pins", report.detached.len(), report.pins))
}

/// Runs work that blocks, or builds a runtime of its own, on a thread that belongs to no runtime.
async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DatapathError> {
    let (reply, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody listens any more when the caller was cancelled.
            drop(reply.send(work()));
        })
        .map_err(|error| DatapathError::kernel("start a thread", error))?;
    answer.await.map_err(|_| DatapathError::Stopped)
}
