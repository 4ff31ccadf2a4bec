//! The handle of a running controller.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trireme_runtime::{TaskError, Tasks};

use super::PuError;
use super::actor::Command;
use crate::{
    DatapathError, ExplainError, NodeSecrets, Opinion, PolicyResolver, Question, ResolveError, Status,
};

/// Why a reload did not bring everything into force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new version is bad; the old one stays in force.
    #[error("the policy in force stays, the new one is refused")]
    Refused(#[from] ResolveError),
    /// The new version is in force, except for these units.
    #[error("the new policy is in force, except for {} units", .0.len())]
    Units(Vec<PuError>),
    /// The controller has ended.
    #[error("the controller has ended")]
    Stopped,
}

/// What went wrong on the way out; everything else was stopped.
#[derive(Debug, thiserror::Error)]
#[error("the controller did not stop cleanly")]
pub struct StopError(
    /// Every failure.
    pub Vec<TaskError>,
);

/// Asks a running controller; clones ask the same one.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    resolver: Arc<dyn PolicyResolver>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("resolver", &self.resolver.name()).finish_non_exhaustive()
    }
}

impl Handle {
    /// What the controller and its parts are doing; `None` when it has ended.
    ///
    /// # Cancel safety
    /// A drop loses the answer.
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Reads the policy again and enforces it before it returns.
    ///
    /// # Errors
    /// [`ReloadError`] says what is in force.
    ///
    /// # Cancel safety
    /// The policy may still come into force after a drop.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        self.resolver.reload().await?;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Resolve(reply)).await.map_err(|_| ReloadError::Stopped)?;
        let failures = answer.await.map_err(|_| ReloadError::Stopped)?;
        if failures.is_empty() { Ok(()) } else { Err(ReloadError::Units(failures)) }
    }

    /// Uses other keys from here on; live connections go on.
    ///
    /// # Errors
    /// The data path's; the old keys stay in use.
    ///
    /// # Cancel safety
    /// The keys may still come into use after a drop.
    pub async fn set_secrets(&self, secrets: NodeSecrets) -> Result<(), DatapathError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Secrets(Box::new(secrets), reply);
        self.commands.send(command).await.map_err(|_| DatapathError::Stopped)?;
        answer.await.map_err(|_| DatapathError::Stopped)?
    }

    /// Would a connection be allowed by the policy in force, and why?
    ///
    /// # Errors
    /// As [`explain`](crate::explain()).
    ///
    /// # Cancel safety
    /// A drop loses the answer.
    pub async fn explain(&self, question: &Question) -> Result<[Opinion; 2], ExplainError> {
        crate::explain(&*self.resolver, question).await
    }
}

/// A controller at work. [`Running::stop`] ends it; a drop aborts it and leaves the kernel's part in place.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    tasks: Tasks,
}

impl Running {
    pub(super) const fn new(
        commands: mpsc::Sender<Command>,
        resolver: Arc<dyn PolicyResolver>,
        tasks: Tasks,
    ) -> Self {
        Self { handle: Handle { commands, resolver }, tasks }
    }

    /// A handle to ask questions with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until some part fails; never ends while all work.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn failed(&mut self) -> TaskError {
        loop {
            match self.tasks.next().await {
                Some(Err(error)) => return error,
                // A part with nothing left to do, such as the static monitor.
                Some(Ok(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Stops monitors, resolver and data path, at most until `deadline`. The kernel's part stays in place:
    /// it goes on with what it knows, the rest is up to the units' fail modes.
    ///
    /// # Errors
    /// [`StopError`] with every failure.
    ///
    /// # Cancel safety
    /// A drop aborts what still runs.
    pub async fn stop(self, deadline: Duration) -> Result<(), StopError> {
        // A controller that has ended already has nothing to stop.
        drop(self.handle.commands.send(Command::Stop(deadline)).await);
        let failures = self.tasks.stop(deadline).await;
        if failures.is_empty() { Ok(()) } else { Err(StopError(failures)) }
    }
}
