//! A data path whose both halves live in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use trireme_identity::PuId;
use trireme_token::{AgreementPublic, DenyList, TokenRequest};

use super::enforcer::{Request, Worker};
use super::supervisor::BackEnd;
use super::{Datapath, DatapathError, DatapathReport, Enforced};
use crate::state::StateDir;
use crate::{BoxFuture, Collector, Enforcement, NodeSecrets, controller};

/// A data path of this process: a back end that programs the kernel, and the engine.
#[derive(Debug)]
pub struct LocalDatapath<B> {
    back_end: B,
    why: Option<String>,
    state: Option<StateDir>,
    secrets: Option<NodeSecrets>,
    worker: Option<Worker>,
}

impl<B: BackEnd> LocalDatapath<B> {
    /// A data path that is not running.
    #[must_use]
    pub const fn new(back_end: B) -> Self {
        Self { back_end, why: None, state: None, secrets: None, worker: None }
    }

    /// Says why it was chosen, for the report.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    fn check_now(&mut self, secrets: &NodeSecrets) -> Result<(), DatapathError> {
        self.back_end.check()?;
        // Looked at if it is there; made when the data path starts.
        let state_dir = self.back_end.setup().state_dir;
        if self.state.is_none() && state_dir.exists() {
            self.state = Some(StateDir::open(&state_dir)?);
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

impl<B: BackEnd> Datapath for LocalDatapath<B> {
    fn kind(&self) -> &'static str {
        B::KIND
    }

    fn check<'a>(&'a mut self, secrets: &'a NodeSecrets) -> BoxFuture<'a, Result<(), DatapathError>> {
        Box::pin(std::future::ready(self.check_now(secrets)))
    }

    fn check_unit<'a>(&'a mut self, unit: &'a Enforcement) -> BoxFuture<'a, Result<(), DatapathError>> {
        Box::pin(async move {
            self.check_token(unit)?;
            let (back_end, whole) = (self.back_end.clone(), unit.clone());
            on_thread("edge", move || back_end.check_unit(&whole))
                .await?
                .map_err(|error| DatapathError::unit(unit.id(), error))
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
                None => StateDir::open(&self.back_end.setup().state_dir)?,
            };
            self.worker = Some(Worker::start(self.back_end.clone(), state, secrets, collector).await?);
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
        Box::pin(async move {
            let mut report = self.ask(Request::Report).await?;
            if let Some(why) = &self.why {
                report.detail = format!("{why}; {}", report.detail);
            }
            Ok(report)
        })
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
