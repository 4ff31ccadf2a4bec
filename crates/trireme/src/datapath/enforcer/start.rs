//! Everything before the first packet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tracing::warn;
use trireme_datapath::{Engine, EngineConfig};
use zeroize::Zeroizing;

use super::flows::Flows;
use super::ledger::Ledger;
use super::meter::Meter;
use super::saver::Saver;
use super::tick::Clock;
use super::verify::VerifyPool;
use super::{Loop, Request, Unsaved, commands, now};
use crate::datapath::DatapathError;
use crate::datapath::supervisor::{BackEnd, EnforcerSetup, Supervisor};
use crate::state::StateDir;
use crate::{Collector, NodeSecrets, controller};

/// IP and TCP headers with their options around a TAP payload, and some bytes to spare.
const HEADERS: usize = 120;

/// What every IPv6 path carries.
const MIN_MTU: usize = 1280;

impl<S: Supervisor> Loop<S> {
    pub(super) fn build(
        back_end: impl BackEnd<Supervisor = S>,
        state: StateDir,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
        requests: Receiver<Request>,
    ) -> Result<Self, DatapathError> {
        let setup = back_end.setup();
        let ledger = Ledger::load(&state)?;
        let mut engine = engine(&setup, &secrets)?;
        let mut effects = Vec::new();
        let denied = (*secrets.verifier.deny_list()).clone();
        engine.set_deny_list(denied.clone(), now(), &mut effects);
        remember(&mut engine, &state)?;
        // From here on the kernel knows that an agent is here.
        let supervisor = back_end.open()?;
        let pool = VerifyPool::start(
            setup.verify_threads,
            EngineConfig::default().verifications,
            &supervisor.waker(),
        )?;
        let flows = Flows::new(usize::try_from(setup.connections).unwrap_or(usize::MAX));
        let mut worker = Self {
            supervisor,
            engine,
            pool,
            ledger,
            saver: Some(Saver::start(state)?),
            secrets,
            denied,
            collector,
            setup,
            requests,
            units: BTreeMap::new(),
            counted: BTreeMap::new(),
            meter: Meter::default(),
            clock: Clock::new(),
            unsaved: Unsaved::default(),
            flows,
            packets: Vec::new(),
            effects,
        };
        worker.carry_out();
        worker.supervisor.settle(&mut worker.engine)?;
        worker.recall_counters()?;
        Ok(worker)
    }

    /// Goes on counting where an earlier run stopped.
    fn recall_counters(&mut self) -> Result<(), DatapathError> {
        self.counted = self.supervisor.kept_counters()?;
        self.engine
            .import_counters(self.counted.iter().map(|((slot, reason), count)| (*slot, *reason, *count)));
        Ok(())
    }
}

fn engine(setup: &EnforcerSetup, secrets: &NodeSecrets) -> Result<Engine, DatapathError> {
    let size = |entries: u32| usize::try_from(entries).unwrap_or(usize::MAX);
    let sizes = EngineConfig {
        token_lifetime_secs: secrets.lifetime_secs,
        handshake_mtu: usize::from(setup.payload_limit).saturating_add(HEADERS).max(MIN_MTU),
        units: size(setup.units),
        tokens: size(setup.peers),
        peers: size(setup.peers),
        pair_keys: size(setup.pair_keys),
        destinations: size(setup.destinations),
        ..EngineConfig::default()
    };
    let seed = crate::random_seed().map_err(|error| DatapathError::kernel("draw random numbers", error))?;
    Engine::new(sizes, secrets.for_engine(), *seed).map_err(|error| DatapathError::Secrets(error.into()))
}

/// Goes on with the own tokens and the peers of an earlier run, as far as they can be used.
fn remember(engine: &mut Engine, state: &StateDir) -> Result<(), DatapathError> {
    if let Some(keys) = state.read(commands::KEYS_FILE)?
        && let Err(error) = engine.import_tokens(&Zeroizing::new(keys))
    {
        warn!(%error, "kept token keys not used: handshakes begun before this start are repeated");
    }
    if let Some(peers) = state.read(commands::PEERS_FILE)?
        && let Err(error) = engine.import_peers(&peers, now())
    {
        warn!(error = controller::chain(&error), "kept peers not used: they are met anew");
    }
    Ok(())
}
