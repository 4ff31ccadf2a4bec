//! The thread that owns kernel half and engine.

mod commands;
mod packets;
mod patrol;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::warn;
use trireme_bpf::{Injection, Plane, PlaneConfig, PuState, Sizes, SweepLimits, Waker};
use trireme_datapath::{Effect, Engine, EngineConfig, Packet};
use trireme_flow::PuSlot;
use trireme_identity::PuId;
use trireme_identity::time::{Instant, Now};
use zeroize::Zeroizing;

use super::ledger::Ledger;
use super::meter::Meter;
use super::verify::VerifyPool;
use super::{BpfConfig, DatapathError, DatapathReport, Enforced};
use crate::state::StateDir;
use crate::{Collector, Edge, Enforcement, NodeSecrets, controller};

/// A question to the worker, with the way back for the answer.
pub(super) enum Request {
    Supervise(Box<Enforcement>, oneshot::Sender<Result<Enforced, DatapathError>>),
    Release(PuId, oneshot::Sender<Result<(), DatapathError>>),
    ReleaseStrangers(oneshot::Sender<Result<Vec<PuId>, DatapathError>>),
    Secrets(Box<NodeSecrets>, oneshot::Sender<Result<(), DatapathError>>),
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
    /// Starts the thread; ready when plane and engine are.
    pub(super) async fn start(
        config: BpfConfig,
        state: StateDir,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
    ) -> Result<Self, DatapathError> {
        let (requests, queue) = channel();
        let (ready, started) = oneshot::channel();
        let (broken, failure) = oneshot::channel();
        let run = move || {
            let built = Loop::build(config, state, secrets, collector, queue);
            let mut worker = match built {
                Ok(worker) => worker,
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(worker.plane.waker())).is_err() {
                return;
            }
            let outcome = worker.run();
            let Loop { pool, plane, .. } = worker;
            drop(plane);
            pool.stop();
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

/// How often dead connections are looked for and keys saved.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// How often vanished edges are looked for: an interface made anew is open until then.
const PATROL: Duration = Duration::from_secs(1);

/// IP and TCP headers with their options around a TAP payload, and some bytes to spare.
const HEADERS: usize = 120;

/// What every IPv6 path carries.
const MIN_MTU: usize = 1280;

/// Packets taken from each ring before effects are carried out.
const BATCH: usize = 64;

/// Everything the thread owns.
struct Loop {
    plane: Plane,
    engine: Engine,
    pool: VerifyPool,
    ledger: Ledger,
    state: StateDir,
    secrets: NodeSecrets,
    collector: Arc<dyn Collector>,
    config: BpfConfig,
    requests: Receiver<Request>,
    units: BTreeMap<PuId, PuSlot>,
    edges: BTreeMap<PuId, (Edge, PuState)>,
    meter: Meter,
    saved_keys: Option<u64>,
    // Reused from round to round.
    packets: Vec<Packet>,
    effects: Vec<Effect>,
    injections: Vec<Injection>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    GoOn,
    End,
}

impl Loop {
    fn build(
        config: BpfConfig,
        state: StateDir,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
        requests: Receiver<Request>,
    ) -> Result<Self, DatapathError> {
        let ledger = Ledger::load(&state)?;
        let engine_config = EngineConfig {
            token_lifetime_secs: secrets.lifetime_secs,
            handshake_mtu: usize::from(config.payload_limit).saturating_add(HEADERS).max(MIN_MTU),
            ..EngineConfig::default()
        };
        let jobs = engine_config.verifications;
        let seed =
            crate::random_seed().map_err(|error| DatapathError::kernel("draw random numbers", error))?;
        let mut engine = Engine::new(engine_config, secrets.for_engine(), *seed)
            .map_err(|error| DatapathError::Secrets(error.into()))?;
        if let Some(keys) = state.read(commands::KEYS_FILE)?
            && let Err(error) = engine.import_tokens(&Zeroizing::new(keys))
        {
            warn!(%error, "kept token keys not used: handshakes begun before this start are repeated");
        }
        let plane = Plane::open(PlaneConfig {
            bpffs: config.bpffs.clone(),
            sizes: Sizes { connections: config.connections, ..Sizes::default() },
            ..PlaneConfig::new(config.instance.clone())
        })
        .map_err(|error| DatapathError::kernel("open the bpf data path", error))?;
        let pool = VerifyPool::start(config.verify_threads, jobs, &plane.waker())?;
        Ok(Self {
            plane,
            engine,
            pool,
            ledger,
            state,
            secrets,
            collector,
            config,
            requests,
            units: BTreeMap::new(),
            edges: BTreeMap::new(),
            meter: Meter::default(),
            saved_keys: None,
            packets: Vec::new(),
            effects: Vec::new(),
            injections: Vec::new(),
        })
    }

    /// Ends with [`Request::Stop`], when nobody can send requests any more, or when the kernel refuses to go on.
    fn run(&mut self) -> Result<(), DatapathError> {
        let mut housekeeping = now().monotonic + HOUSEKEEPING;
        let mut patrol = now().monotonic + PATROL;
        loop {
            let due = self.engine.poll_timeout().map_or(patrol, |due| due.min(patrol));
            let wait = due.since(now().monotonic);
            self.plane.poll(Some(wait)).map_err(|error| DatapathError::kernel("wait for packets", error))?;
            self.take_packets();
            self.take_results();
            self.run_timers();
            self.put_back();
            if self.take_requests() == Round::End {
                return Ok(());
            }
            if now().monotonic >= patrol {
                self.patrol();
                patrol = now().monotonic + PATROL;
            }
            if now().monotonic >= housekeeping {
                self.keep_house();
                housekeeping = now().monotonic + HOUSEKEEPING;
            }
        }
    }
}

/// Both clocks; the monotonic one is the one the kernel half stamps entries with.
fn now() -> Now {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Now {
        monotonic: Instant::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos)),
        wall: controller::wall_time(),
    }
}

/// When a connection in the kernel's table counts as dead.
fn sweep_limits() -> SweepLimits {
    SweepLimits::default()
}
