//! The plane, in the enforcer's words.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::info;
use trireme_bpf::{Injection, OwnTokenState, Plane, PlaneError, PuState, Reinjected, Slot, SweepLimits};
use trireme_datapath::{BackendEvent, Engine, Lesson, Packet, Toward};
use trireme_flow::{ConnectionEntry, FlowKey, PuSlot, Reason};
use trireme_identity::time::Now;
use trireme_token::TokenId;

use super::convert::{self, fast};
use super::{place, repairs, state};
use crate::datapath::supervisor::{
    Line, More, NotInstalled, Patrolled, Pinned, PutBack, Refused, Supervisor, Taught, Waker,
};
use crate::datapath::{DatapathError, EdgeState};
use crate::{Edge, Enforcement};

/// Packets taken from each ring before effects are carried out.
const BATCH: usize = 64;

/// The plane, and what it was told about units and peers.
#[derive(Debug)]
pub struct BpfSupervisor {
    pub(super) plane: Plane,
    detail: String,
    /// The units as they were attached last.
    pub(super) units: BTreeMap<PuSlot, (Enforcement, PuState)>,
    /// The units' own tokens as the programs have them.
    pub(super) own: BTreeMap<PuSlot, [Option<OwnTokenState>; 2]>,
    /// A digest of what the programs were told about each peer.
    pub(super) taught: HashMap<TokenId, u64>,
    injections: Vec<Injection>,
}

impl BpfSupervisor {
    pub(super) fn new(plane: Plane, instance: &str) -> Self {
        Self {
            plane,
            detail: format!("instance {instance}"),
            units: BTreeMap::new(),
            own: BTreeMap::new(),
            taught: HashMap::new(),
            injections: Vec::new(),
        }
    }

    fn own_of(&self, slot: PuSlot) -> [Option<OwnTokenState>; 2] {
        self.own.get(&slot).copied().unwrap_or_default()
    }

    /// A slot whose edge is another one by now is detached first: the old edge belongs to nobody any more.
    fn attach(&mut self, at: &Line<'_, trireme_bpf::Edge>, state: PuState) -> Result<(), Refused> {
        let slot = convert::slot(at.slot);
        match self.plane.edges().into_iter().find(|edge| edge.slot == slot) {
            // Attached by this process: only the state changes, at once.
            Some(edge) if at.known && edge.edge == *at.place && !edge.vanished => {
                return Ok(self.plane.update(slot, state)?);
            }
            Some(edge) if edge.edge != *at.place => self.plane.detach(slot)?,
            Some(_) | None => {}
        }
        Ok(self.plane.attach(at.place, slot, state)?)
    }
}

impl Supervisor for BpfSupervisor {
    type Place = trireme_bpf::Edge;

    /// Packets go round by the agent, and are overtaken by those that the programs pass.
    const ONE_WAY: bool = false;

    fn waker(&self) -> Waker {
        let waker = self.plane.waker();
        Waker::new(move || waker.wake())
    }

    fn wait(&mut self, time: Duration) -> Result<(), DatapathError> {
        self.plane.poll(Some(time)).map_err(|error| DatapathError::kernel("wait for packets", error))
    }

    fn take(&mut self, packets: &mut Vec<Packet>) {
        self.plane.drain(BATCH, |punt| packets.push(convert::packet(&punt)));
    }

    fn pass(&mut self, packet: Packet) {
        self.injections.push(convert::passed(packet));
    }

    /// What a program hands over is consumed already.
    fn consume(&mut self, _token: u64) {}

    fn emit(&mut self, pu: PuSlot, toward: Toward, bytes: Vec<u8>, gso_size: Option<u16>) {
        self.injections.push(convert::emitted(pu, toward, bytes, gso_size));
    }

    fn put_back(&mut self) -> PutBack {
        if self.injections.is_empty() {
            return PutBack::default();
        }
        let Reinjected { sent, unattached, unaddressed, refused } = self.plane.reinject(&mut self.injections);
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        PutBack {
            sent: wide(sent),
            lost: wide(unattached.saturating_add(unaddressed).saturating_add(refused)),
        }
    }

    fn connection(&self, key: &FlowKey) -> Option<ConnectionEntry> {
        let (connection, _) = self.plane.connection(&convert::key(key)).ok()??;
        Some(convert::entry(&connection))
    }

    fn install(&mut self, key: &FlowKey, entry: &ConnectionEntry) -> Result<(), NotInstalled> {
        let written = self.plane.connection_insert(&convert::key(key), &convert::connection(entry));
        written.map_err(not_installed)
    }

    fn remove(&mut self, key: &FlowKey) -> Result<(), Refused> {
        self.plane.connection_remove(&convert::key(key))?;
        Ok(())
    }

    fn teach(&mut self, lesson: &Lesson) -> Result<Taught, Refused> {
        Ok(self.take_lesson(lesson)?)
    }

    fn find(edge: &Edge) -> Result<Self::Place, Refused> {
        Ok(place::find(edge)?)
    }

    fn pinned(&self, place: &Self::Place) -> Pinned {
        let edges = self.plane.edges();
        let here = edges.iter().find(|edge| edge.edge == *place).map(|edge| edge.slot.0);
        Pinned { epochs: edges.into_iter().map(|edge| (edge.slot.0, edge.state.epoch)).collect(), here }
    }

    fn supervise(&mut self, unit: &Enforcement, at: &Line<'_, Self::Place>) -> Result<(), Refused> {
        let state = state::of(unit, at.epoch, self.own_of(at.slot));
        if !(at.in_place && self.plane.update(convert::slot(at.slot), state).is_ok()) {
            let attached = self.attach(at, state);
            if let Err(error) = attached {
                if !at.known {
                    self.own.remove(&at.slot);
                }
                return Err(error);
            }
        }
        self.units.insert(at.slot, (unit.clone(), state));
        Ok(())
    }

    fn renew(&mut self, unit: &Enforcement, slot: PuSlot, epoch: u32) -> Result<(), Refused> {
        let state = state::of(unit, epoch, self.own_of(slot));
        self.plane.update(convert::slot(slot), state)?;
        self.units.insert(slot, (unit.clone(), state));
        Ok(())
    }

    fn release(&mut self, slot: PuSlot) -> Result<(), Refused> {
        let attached = self.plane.edges().iter().any(|edge| edge.slot == convert::slot(slot));
        let detached = if attached { self.plane.detach(convert::slot(slot)) } else { Ok(()) };
        self.units.remove(&slot);
        self.own.remove(&slot);
        self.forget_own_tokens();
        Ok(detached?)
    }

    /// Edges that the ledger does not know, after it was lost or damaged.
    fn release_strangers(&mut self, own: &[PuSlot]) -> Result<(), DatapathError> {
        let own: Vec<Slot> = own.iter().copied().map(convert::slot).collect();
        for edge in self.plane.edges().into_iter().filter(|edge| !own.contains(&edge.slot)) {
            info!(slot = %edge.slot, edge = ?edge.edge, "released an edge that belongs to no unit");
            self.plane
                .detach(edge.slot)
                .map_err(|error| DatapathError::kernel("release an edge that belongs to no unit", error))?;
        }
        self.forget_own_tokens();
        Ok(())
    }

    fn existing(&self, slot: PuSlot) -> Result<Vec<(SocketAddr, SocketAddr)>, Refused> {
        Ok(self.plane.existing_connections(convert::slot(slot))?)
    }

    fn adopt(&mut self, key: &FlowKey) -> Result<(), NotInstalled> {
        self.plane.connection_adopt(&convert::key(key)).map_err(not_installed)
    }

    /// Takes from the kernel the peers that the engine does not know (any more), and never gives their places to others
    /// under the same generation.
    fn settle(&mut self, engine: &mut Engine) -> Result<(), DatapathError> {
        let failed = |error| DatapathError::kernel("read the known peers", error);
        let peers = self.plane.peers().map_err(failed)?;
        engine.reserve_peers(peers.iter().map(|(_, peer)| (peer.slot, peer.generation)));
        let mut strangers: usize = 0;
        for (token, peer) in &peers {
            if !engine.knows_peer(&TokenId(*token), peer.slot, peer.generation) {
                self.plane.peer_remove(token).map_err(failed)?;
                strangers = strangers.saturating_add(1);
            }
        }
        info!(known = peers.len().saturating_sub(strangers), forgotten = strangers, "peers of the programs");
        Ok(())
    }

    fn beat(&mut self) -> Result<(), Refused> {
        Ok(self.plane.beat()?)
    }

    fn patrol(&mut self) -> Patrolled {
        let vanished = self.plane.vanished().into_iter().map(convert::pu_slot).collect();
        let repairs = self.plane.self_check().iter().map(repairs::repaired).collect();
        Patrolled { vanished, repairs }
    }

    fn take_events(&mut self, events: &mut Vec<BackendEvent>) -> Result<More, Refused> {
        let more = self.plane.take_events(|report| events.extend(fast::event(&report)))?;
        Ok(if more { More::Yes } else { More::No })
    }

    fn sweep(&mut self, time: Now, events: &mut Vec<BackendEvent>) -> Result<More, Refused> {
        let report = self.plane.sweep(&SweepLimits::default())?;
        events.extend(
            report
                .ended
                .iter()
                .map(|(key, connection, activity)| fast::fell_silent(key, connection, activity, time.wall)),
        );
        Ok(if report.round_complete { More::No } else { More::Yes })
    }

    fn kept_counters(&self) -> Result<BTreeMap<(PuSlot, Reason), u64>, DatapathError> {
        let kept = self.plane.reasons().map_err(|error| DatapathError::kernel("read the counters", error))?;
        let named = |(slot, code, count)| Some(((convert::pu_slot(slot), Reason::from_code(code)?), count));
        Ok(kept.into_iter().filter_map(named).collect())
    }

    fn keep_counters(&mut self, changed: &[(PuSlot, Reason, u64)]) -> Result<(), Refused> {
        for (slot, reason, count) in changed {
            self.plane.set_reason(convert::slot(*slot), reason.code(), *count)?;
        }
        Ok(())
    }

    fn counters(&self) -> Result<Vec<(Option<PuSlot>, String, u64)>, DatapathError> {
        let read =
            self.plane.counters().map_err(|error| DatapathError::kernel("read the counters", error))?;
        let mut counters = Vec::new();
        for (slot, set) in read {
            for (counter, count) in set.iter() {
                counters.push((slot.map(convert::pu_slot), format!("kernel/{}", counter.name()), count));
            }
        }
        Ok(counters)
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        vec![
            ("connections", wide(self.plane.connection_count())),
            ("peers taught to the programs", wide(self.taught.len())),
            ("packets that waited too long", self.plane.stale()),
            ("bytes of the kernel's tables", self.plane.memory().unwrap_or(0)),
        ]
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }

    fn is_fast(&self, slot: PuSlot) -> bool {
        self.units.get(&slot).is_some_and(|(_, state)| state.fast)
    }

    fn state_of(&self, place: &Self::Place) -> (EdgeState, Option<String>) {
        match place {
            trireme_bpf::Edge::Interface(_) => (EdgeState::Attached, None),
            trireme_bpf::Edge::Namespace { .. } => (
                EdgeState::Advisory,
                Some("egress: advisory (whoever has CAP_NET_RAW inside gets past the program)".to_owned()),
            ),
        }
    }

    fn gone(place: &Self::Place) -> String {
        match place {
            trireme_bpf::Edge::Interface(name) => {
                format!("its interface {name} is gone: nothing of it is enforced until it is back")
            }
            trireme_bpf::Edge::Namespace { .. } => "its network namespace is gone".to_owned(),
        }
    }
}

fn not_installed(error: PlaneError) -> NotInstalled {
    if matches!(error, PlaneError::Full { .. }) {
        return NotInstalled::Full;
    }
    NotInstalled::Failed(error.into())
}
