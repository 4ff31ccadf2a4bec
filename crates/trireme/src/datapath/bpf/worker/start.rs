//! Everything before the first packet.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tracing::{info, warn};
use trireme_bpf::{Plane, PlaneConfig};
use trireme_datapath::{Engine, EngineConfig};
use trireme_flow::Reason;
use trireme_token::TokenId;
use zeroize::Zeroizing;

use super::super::ledger::Ledger;
use super::super::meter::Meter;
use super::super::saver::Saver;
use super::super::verify::VerifyPool;
use super::super::{BpfConfig, DatapathError, convert};
use super::tick::Clock;
use super::{Loop, Request, Unsaved, commands, now};
use crate::state::StateDir;
use crate::{Collector, NodeSecrets, controller};

/// IP and TCP headers with their options around a TAP payload, and some bytes to spare.
const HEADERS: usize = 120;

/// What every IPv6 path carries.
const MIN_MTU: usize = 1280;

impl Loop {
    pub(super) fn build(
        config: BpfConfig,
        state: StateDir,
        secrets: NodeSecrets,
        collector: Arc<dyn Collector>,
        requests: Receiver<Request>,
    ) -> Result<Self, DatapathError> {
        let ledger = Ledger::load(&state)?;
        let mut engine = engine(&config, &secrets)?;
        let mut effects = Vec::new();
        let denied = (*secrets.verifier.deny_list()).clone();
        engine.set_deny_list(denied.clone(), now(), &mut effects);
        remember(&mut engine, &state)?;
        // From here on the programs know that an agent is here.
        let plane = Plane::open(PlaneConfig {
            bpffs: config.bpffs.clone(),
            sizes: config.sizes,
            limits: config.limits,
            ..PlaneConfig::new(config.instance.clone())
        })
        .map_err(|error| DatapathError::kernel("open the bpf data path", error))?;
        let pool =
            VerifyPool::start(config.verify_threads, EngineConfig::default().verifications, &plane.waker())?;
        let mut worker = Self {
            plane,
            engine,
            pool,
            ledger,
            saver: Some(Saver::start(state)?),
            secrets,
            denied,
            collector,
            config,
            requests,
            units: BTreeMap::new(),
            own: BTreeMap::new(),
            taught: HashMap::new(),
            counted: BTreeMap::new(),
            meter: Meter::default(),
            clock: Clock::new(),
            unsaved: Unsaved::default(),
            packets: Vec::new(),
            effects,
            injections: Vec::new(),
        };
        worker.carry_out();
        worker.reconcile_peers()?;
        worker.recall_counters()?;
        Ok(worker)
    }

    /// Takes from the kernel the peers that the engine does not know (any more), and never gives their places to others
    /// under the same generation.
    fn reconcile_peers(&mut self) -> Result<(), DatapathError> {
        let failed = |error| DatapathError::kernel("read the known peers", error);
        let peers = self.plane.peers().map_err(failed)?;
        self.engine.reserve_peers(peers.iter().map(|(_, peer)| (peer.slot, peer.generation)));
        let mut strangers: usize = 0;
        for (token, peer) in &peers {
            if !self.engine.knows_peer(&TokenId(*token), peer.slot, peer.generation) {
                self.plane.peer_remove(token).map_err(failed)?;
                strangers = strangers.saturating_add(1);
            }
        }
        info!(known = peers.len().saturating_sub(strangers), forgotten = strangers, "peers of the programs");
        Ok(())
    }

    /// Goes on counting where an earlier run stopped.
    fn recall_counters(&mut self) -> Result<(), DatapathError> {
        let kept = self.plane.reasons().map_err(|error| DatapathError::kernel("read the counters", error))?;
        self.counted = kept
            .into_iter()
            .filter_map(|(slot, code, count)| {
                Some(((convert::pu_slot(slot), Reason::from_code(code)?), count))
            })
            .collect();
        self.engine
            .import_counters(self.counted.iter().map(|((slot, reason), count)| (*slot, *reason, *count)));
        Ok(())
    }
}

fn engine(config: &BpfConfig, secrets: &NodeSecrets) -> Result<Engine, DatapathError> {
    let size = |entries: u32| usize::try_from(entries).unwrap_or(usize::MAX);
    let sizes = EngineConfig {
        token_lifetime_secs: secrets.lifetime_secs,
        handshake_mtu: usize::from(config.payload_limit).saturating_add(HEADERS).max(MIN_MTU),
        units: size(config.sizes.pus),
        tokens: size(config.sizes.peers),
        peers: size(config.sizes.peers),
        pair_keys: size(config.sizes.pair_keys),
        destinations: size(config.sizes.destinations),
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
