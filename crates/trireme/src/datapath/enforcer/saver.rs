//! Writes state to the disk on a thread of its own: a slow disk must not keep packets waiting.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tracing::warn;
use zeroize::Zeroizing;

use crate::state::{StateDir, StateError};
use crate::{DatapathError, controller};

type Job = (&'static str, Zeroizing<Vec<u8>>);

/// Owns the state directory; dropping it writes what is queued and ends.
#[derive(Debug)]
pub(super) struct Saver {
    jobs: Sender<Job>,
    thread: JoinHandle<Result<(), StateError>>,
    problem: Arc<Mutex<Option<String>>>,
}

impl Saver {
    pub(super) fn start(state: StateDir) -> Result<Self, DatapathError> {
        let (jobs, queue) = channel();
        let problem = Arc::default();
        let shared = Arc::clone(&problem);
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || work(&state, &queue, &shared))
            .map_err(|error| DatapathError::kernel("start the thread that saves state", error))?;
        Ok(Self { jobs, thread, problem })
    }

    /// Queues a file. Files are written in this order, each as a whole.
    pub(super) fn write(&self, name: &'static str, bytes: Zeroizing<Vec<u8>>) {
        // The thread ends only when this value does.
        drop(self.jobs.send((name, bytes)));
    }

    /// Why a file could not be written, if the last attempt failed.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// Of a file whose last write failed.
    pub(super) fn finish(self) -> Result<(), StateError> {
        let Self { jobs, thread, problem: _ } = self;
        drop(jobs);
        // A panic has been reported by the panic hook.
        thread.join().unwrap_or(Ok(()))
    }
}

fn work(state: &StateDir, queue: &Receiver<Job>, problem: &Mutex<Option<String>>) -> Result<(), StateError> {
    let mut failed: BTreeMap<&'static str, StateError> = BTreeMap::new();
    while let Ok((name, bytes)) = queue.recv() {
        match state.write(name, &bytes) {
            Ok(()) => drop(failed.remove(name)),
            Err(error) => {
                let text = controller::chain(&error);
                warn!(error = text, "state not saved: after a restart connections would be judged again");
                failed.insert(name, error);
            }
        }
        let text = failed.values().next().map(|error| controller::chain(error));
        *problem.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
    failed.into_values().next().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_queued_is_written_in_order_and_failures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let saver = Saver::start(StateDir::open(&path).unwrap()).unwrap();
        for number in 0..50_u8 {
            saver.write("file", Zeroizing::new(vec![number]));
        }
        saver.finish().unwrap();
        assert_eq!(StateDir::open(&path).unwrap().read("file").unwrap(), Some(vec![49]));

        let saver = Saver::start(StateDir::open(&path).unwrap()).unwrap();
        saver.write("no/such/folder", Zeroizing::new(Vec::new()));
        while saver.problem().is_none() {
            std::thread::yield_now();
        }
        saver.write("file", Zeroizing::new(Vec::new()));
        assert!(saver.finish().is_err(), "one file is still not written");
    }
}
