//! Supervised tasks: each has a name, a cancellation token and an owner who awaits it.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How a task failed its owner.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task returned an error.
    #[error("task {name} failed")]
    Failed {
        /// The task's name.
        name: String,
        /// What it returned.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The task panicked or was aborted.
    #[error("a task did not run to its end")]
    Broken(#[source] JoinError),
    /// Tasks were still running when the deadline passed; they were aborted.
    #[error("{0} tasks were still running at the deadline")]
    Deadline(usize),
}

type Outcome = (String, Result<(), Box<dyn Error + Send + Sync>>);

/// A set of tasks owned by one place.
///
/// Dropping it aborts every task; [`Tasks::stop`] is the orderly way out.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Outcome>,
    token: CancellationToken,
}

impl Tasks {
    /// An empty set whose tasks are cancelled with `token`.
    #[must_use]
    pub fn new(token: CancellationToken) -> Self {
        Self { set: JoinSet::new(), token }
    }

    /// The token every task of the set listens to.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task; `start` receives the token that asks it to end.
    pub fn spawn<F, E>(&mut self, name: impl Into<String>, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let name = name.into();
        let work = start(self.token.clone());
        self.set.spawn(async move { (name, work.await.map_err(Into::into)) });
    }

    /// Waits for the next task to end and gives its name; `None` if there is no task.
    ///
    /// # Errors
    /// [`TaskError::Failed`] or [`TaskError::Broken`] if the task did not end well.
    ///
    /// # Cancel safety
    /// Nothing is lost: an ended task is reported by the next call.
    pub async fn next(&mut self) -> Option<Result<String, TaskError>> {
        self.set.join_next().await.map(check)
    }

    /// Cancels the tasks and waits for all of them, at most until `deadline`; gives every failure.
    ///
    /// # Cancel safety
    /// A drop aborts what still runs.
    pub async fn stop(mut self, deadline: Duration) -> Vec<TaskError> {
        self.token.cancel();
        let mut failures = Vec::new();
        let timer = tokio::time::sleep(deadline);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                ended = self.set.join_next() => match ended {
                    Some(ended) => failures.extend(check(ended).err()),
                    None => return failures,
                },
                () = &mut timer => {
                    failures.push(TaskError::Deadline(self.set.len()));
                    self.set.shutdown().await;
                    return failures;
                }
            }
        }
    }
}

fn check(ended: Result<Outcome, JoinError>) -> Result<String, TaskError> {
    match ended {
        Ok((name, Ok(()))) => Ok(name),
        Ok((name, Err(source))) => Err(TaskError::Failed { name, source }),
        Err(error) => Err(TaskError::Broken(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_cancels_and_awaits_every_task() {
        let mut tasks = Tasks::default();
        for name in ["a", "b"] {
            tasks.spawn(name, |token| async move {
                token.cancelled().await;
                Ok::<(), std::io::Error>(())
            });
        }
        assert_eq!(tasks.stop(Duration::from_secs(5)).await.len(), 0);
    }

    #[tokio::test]
    async fn a_failed_task_is_reported_by_name_and_a_stuck_one_at_the_deadline() {
        let mut tasks = Tasks::default();
        tasks.spawn("broken", |_| async { Err(std::io::Error::other("no disk")) });
        let failure = tasks.next().await.unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "task broken failed");
        tasks.spawn("stuck", |_| std::future::pending::<Result<(), std::io::Error>>());
        let failures = tasks.stop(Duration::from_millis(10)).await;
        assert_eq!(failures.len(), 1);
        assert!(matches!(failures.first(), Some(TaskError::Deadline(1))));
    }
}
