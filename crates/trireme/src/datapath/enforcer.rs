//! The enforcer: one plain OS thread that owns the engine and the supervisor, so that no packet waits for an asynchronous
//! task. Signature checks run on threads of their own and never delay known peers.

mod adopt;
mod commands;
mod flows;
mod ledger;
mod meter;
mod packets;
mod patrol;
mod report;
mod saver;
mod start;
mod tick;
mod units;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use trireme_datapath::{Effect, Engine, Packet};
use trireme_flow::{PuSlot, Reason};
use trireme_identity::PuId;
use trireme_identity::time::{Instant, Now};
use trireme_token::DenyList;

use super::supervisor::{BackEnd, EnforcerSetup, Supervisor, Waker};
use super::{DatapathError, DatapathReport, Enforced};
use crate::state::StateDir;
use crate::{Collector, Enforcement, NodeSecrets, controller};

use ledger::Ledger;
use meter::Meter;
use saver::Saver;
use units::Held;
use verify::VerifyPool;

/// A question to the worker, with the way back for the answer.
pub(super) enum Request {
    Supervise(Box<Enforcement>, oneshot::Sender<Result<Enforced, DatapathError>>),
    Release(PuId, oneshot::Sender<Result<(), DatapathError>>),
    ReleaseStrangers(oneshot::Sender<Result<Vec<PuId>, DatapathError>>),
    Secrets(Box<NodeSecrets>, oneshot::Sender<Result<(), DatapathError>>),
    Deny(DenyList, oneshot::Sender<Result<BTreeMap<PuId, Enforced>, DatapathError>>),
    Report(oneshot::Sender<Result<DatapathReport, DatapathError>>),
    Stop(oneshot::Sender<Result<(), DatapathError>>),
}

/// The worker as the asynchronous side sees it.
#[derive(Debug)]
pub(super) struct Worker {
    requests: Sender<Request>,
    waker: Waker,
    failure: oneshot::Receiver<DatapathError>,
}

impl Worker {
    /// Starts the thread; ready when supervisor and engine are.
    pub(super) async fn start<B: BackEnd>(
        back_end: B,
        state: StateDir,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
    ) -> Result<Self, DatapathError> {
        let (requests, queue) = channel();
        let (ready, started) = oneshot::channel();
        let (broken, failure) = oneshot::channel();
        let run = move || {
            let built = Loop::build(back_end, state, secrets, collector, queue);
            let mut worker = match built {
                Ok(worker) => worker,
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(worker.supervisor.waker())).is_err() {
                return;
            }
            let outcome = worker.run();
            let Loop { pool, supervisor, saver, .. } = worker;
            drop(supervisor);
            pool.stop();
            // Written unless it was stopped in order, which waits for it.
            drop(saver.map(Saver::finish));
            if let Err(error) = outcome {
                // Nobody listens any more when the data path is being dropped.
                drop(broken.send(error));
            }
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(run)
            .map_err(|error| DatapathError::kernel("start the engine's thread", error))?;
        let waker = started.await.map_err(|_| DatapathError::Stopped)??;
        Ok(Self { requests, waker, failure })
    }

    pub(super) fn send(&self, request: Request) -> Result<(), DatapathError> {
        self.requests.send(request).map_err(|_| DatapathError::Stopped)?;
        self.waker.wake();
        Ok(())
    }

    pub(super) async fn broken(&mut self) -> DatapathError {
        // A sender that is gone without a word: the thread panicked.
        (&mut self.failure).await.unwrap_or(DatapathError::Stopped)
    }

    pub(super) async fn stop(self, deadline: Duration) -> Result<(), DatapathError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Stop(reply))?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(DatapathError::Stopped),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The closed channel ends the thread; it has to look.
        self.waker.wake();
    }
}

/// How often the programs hear that the agent lives, events are taken, and edges are looked after.
const TICK: Duration = Duration::from_secs(1);

/// How often a search for dead connections begins.
const SWEEP: Duration = Duration::from_secs(10);

/// The pause between two steps of what would take too long at once.
const STEP: Duration = Duration::from_millis(10);

/// Everything the thread owns.
struct Loop<S: Supervisor> {
    supervisor: S,
    engine: Engine,
    pool: VerifyPool,
    ledger: Ledger,
    /// Taken when the thread was asked to end.
    saver: Option<Saver>,
    secrets: NodeSecrets,
    denied: DenyList,
    collector: Arc<dyn Collector>,
    setup: EnforcerSetup,
    requests: Receiver<Request>,
    units: BTreeMap<PuId, Held<S::Place>>,
    /// The engine's counters as they are kept.
    counted: BTreeMap<(PuSlot, Reason), u64>,
    meter: Meter,
    clock: tick::Clock,
    unsaved: Unsaved,
    /// Those of protocols without connections.
    flows: flows::Flows,
    // Reused from round to round.
    packets: Vec<Packet>,
    effects: Vec<Effect>,
}

/// What the disk does not have yet.
#[derive(Clone, Copy, Debug, Default)]
struct Unsaved {
    /// Slots, epochs or token keys.
    units: bool,
    /// Peers.
    peers: bool,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    GoOn,
    End,
}

impl<S: Supervisor> Loop<S> {
    /// Ends with [`Request::Stop`], when nobody can send requests any more, or when the kernel refuses to go on.
    fn run(&mut self) -> Result<(), DatapathError> {
        let mut tick = now().monotonic;
        let (mut events, mut sweep) = (tick, tick);
        loop {
            let save = self.unsaved.units.then_some(self.clock.units_due);
            let due = [Some(tick), Some(events), Some(sweep), save, self.engine.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let wait = due.unwrap_or(tick).since(now().monotonic);
            self.supervisor.wait(wait)?;
            self.take_packets();
            self.take_results();
            self.run_timers();
            self.put_back();
            if self.take_requests() == Round::End {
                return Ok(());
            }
            let time = now().monotonic;
            self.save(time);
            if time >= tick {
                self.tick();
                tick = time + TICK;
            }
            if time >= events {
                events = time + self.take_events();
            }
            if time >= sweep {
                sweep = time + self.sweep();
            }
        }
    }
}

/// Both clocks; the monotonic one is the one the kernel half stamps entries with.
pub(super) fn now() -> Now {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Now {
        monotonic: Instant::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos)),
        wall: controller::wall_time(),
    }
}
