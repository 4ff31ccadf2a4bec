//! Signature checks on threads of their own.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use trireme_datapath::{VerifyDone, VerifyJob};
use trireme_token::Verifier;

use crate::DatapathError;
use crate::datapath::supervisor::Waker;

type Task = (VerifyJob, Arc<Verifier>);

/// A fixed number of threads behind a bounded queue. Dropping it lets them end.
#[derive(Debug)]
pub(super) struct VerifyPool {
    jobs: SyncSender<Task>,
    done: Receiver<VerifyDone>,
    threads: Vec<JoinHandle<()>>,
    refused: u64,
}

impl VerifyPool {
    /// Starts the threads; each result wakes the engine's thread.
    pub(super) fn start(threads: usize, capacity: usize, waker: &Waker) -> Result<Self, DatapathError> {
        let (jobs, queue) = sync_channel::<Task>(capacity);
        let (results, done) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { jobs, done, threads: Vec::new(), refused: 0 };
        for number in 0..threads.max(1) {
            let (queue, results, waker) = (Arc::clone(&queue), results.clone(), waker.clone());
            let work = move || {
                // The lock is held while waiting, never while checking.
                while let Some((job, verifier)) = next(&queue) {
                    if results.send(job.run(&verifier)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("verify-{number}"))
                .spawn(work)
                .map_err(|error| DatapathError::kernel("start a verification thread", error))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues a check. A full queue drops it: the packets that wait for it run into their own timeout.
    pub(super) fn submit(&mut self, job: VerifyJob, verifier: &Arc<Verifier>) {
        match self.jobs.try_send((job, Arc::clone(verifier))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.refused = self.refused.saturating_add(1);
            }
        }
    }

    /// The next finished check, if there is one.
    pub(super) fn finished(&self) -> Option<VerifyDone> {
        // Empty, or closed: in both cases there is nothing to take.
        self.done.try_recv().ok()
    }

    /// How many checks found the queue full.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Lets the threads finish their check and ends them.
    pub(super) fn stop(self) {
        let Self { jobs, done, threads, refused: _ } = self;
        drop((jobs, done));
        for thread in threads {
            // A panic in a check has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn next(queue: &Mutex<Receiver<Task>>) -> Option<Task> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
