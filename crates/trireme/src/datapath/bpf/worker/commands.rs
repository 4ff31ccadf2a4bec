//! Requests from the asynchronous side.

use std::collections::BTreeMap;
use std::sync::mpsc::TryRecvError;

use tracing::{info, warn};
use trireme_bpf::{PuState, Slot};
use trireme_flow::PuSlot;
use trireme_identity::PuId;
use trireme_token::DenyList;

use super::super::ledger::{Basis, Line, Pinned};
use super::super::{convert, edge};
use super::units::{Held, spec, state};
use super::{Loop, Request, Round, now};
use crate::datapath::{DatapathError, Enforced};
use crate::{Enforcement, NodeSecrets, controller};

/// Where the node's token keys are kept.
pub(super) const KEYS_FILE: &str = "tokens.json";

/// Where the known peers are kept.
pub(super) const PEERS_FILE: &str = "peers.json";

impl Loop {
    pub(super) fn take_requests(&mut self) -> Round {
        loop {
            // Whoever dropped the other end no longer wants the answer.
            match self.requests.try_recv() {
                Ok(Request::Supervise(unit, reply)) => drop(reply.send(self.supervise(&unit))),
                Ok(Request::Release(id, reply)) => drop(reply.send(self.release(&id))),
                Ok(Request::ReleaseStrangers(reply)) => drop(reply.send(self.release_strangers())),
                Ok(Request::Secrets(secrets, reply)) => drop(reply.send(self.set_secrets(*secrets))),
                Ok(Request::Deny(list, reply)) => drop(reply.send(self.set_deny_list(list))),
                Ok(Request::Report(reply)) => drop(reply.send(self.report())),
                Ok(Request::Stop(reply)) => {
                    drop(reply.send(self.finish()));
                    return Round::End;
                }
                Err(TryRecvError::Empty) => return Round::GoOn,
                Err(TryRecvError::Disconnected) => {
                    if let Err(error) = self.finish() {
                        warn!(error = controller::chain(&error), "state not saved");
                    }
                    return Round::End;
                }
            }
        }
    }

    /// Keeps everything for the next start.
    fn finish(&mut self) -> Result<(), DatapathError> {
        let counted = self.keep_counters();
        if self.unsaved.units {
            self.save_units();
        }
        if self.unsaved.peers {
            self.save_peers();
        }
        if let Some(saver) = self.saver.take() {
            saver.finish()?;
        }
        counted
    }

    /// Engine first, kernel second: from the moment its packets are caught there is someone to judge them.
    ///
    /// Nothing in here waits for the disk or asks the network about a unit that is enforced already: until a changed
    /// policy is in the kernel, what it forbids goes on.
    fn supervise(&mut self, unit: &Enforcement) -> Result<Enforced, DatapathError> {
        let id = unit.id();
        let held = self.units.get(id);
        let in_place = held.filter(|held| held.unit.pu.edge == unit.pu.edge && !held.vanished);
        let place = match in_place {
            Some(held) => held.place.clone(),
            None => edge::find(&unit.pu.edge).map_err(|error| DatapathError::unit(id, error))?,
        };
        let kernel = if held.is_some() { Pinned::default() } else { self.pinned(&place) };
        let line = self.ledger.enter(unit, &self.basis(), &kernel);
        let (slot, epoch) = (PuSlot(line.slot), line.epoch);
        let (known, in_place) = (held.is_some(), in_place.is_some());
        let first = !known && !kernel.epochs.contains_key(&line.slot);
        self.upsert(unit, &line)?;
        let state = state(unit, epoch, self.own_of(slot));
        let attached = if in_place && self.plane.update(convert::slot(slot), state).is_ok() {
            Ok(())
        } else {
            self.attach(&place, convert::slot(slot), state, known)
        };
        if let Err(error) = attached {
            if !known {
                self.engine.remove_pu(slot, now(), &mut self.effects);
                self.carry_out();
                self.own.remove(&slot);
            }
            return Err(DatapathError::unit(id, error));
        }
        match self.units.get_mut(id) {
            Some(held) => {
                held.unit = unit.clone();
                held.place = place;
                held.state = state;
                held.vanished = false;
            }
            None => drop(self.units.insert(id.clone(), Held::new(slot, unit.clone(), place, state))),
        }
        self.ledger.insert(id.clone(), line);
        self.unsaved.units = true;
        if first {
            self.adopt_existing(id);
        }
        Ok(Enforced { epoch })
    }

    fn upsert(&mut self, unit: &Enforcement, line: &Line) -> Result<(), DatapathError> {
        let taken = self.engine.upsert_pu(spec(unit, line), now(), &mut self.effects);
        self.carry_out();
        taken.map_err(|error| DatapathError::unit(unit.id(), error))
    }

    fn own_of(&self, slot: PuSlot) -> [Option<trireme_bpf::OwnTokenState>; 2] {
        self.own.get(&slot).copied().unwrap_or_default()
    }

    fn basis(&self) -> Basis<'_> {
        Basis { key: self.secrets.signer.key_id(), denied: &self.denied }
    }

    /// A slot whose edge is another one by now is detached first: the old edge belongs to nobody any more.
    pub(super) fn attach(
        &mut self,
        place: &trireme_bpf::Edge,
        slot: Slot,
        state: PuState,
        ours: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match self.plane.edges().into_iter().find(|edge| edge.slot == slot) {
            // Attached by this process: only the state changes, at once.
            Some(edge) if ours && edge.edge == *place && !edge.vanished => {
                return Ok(self.plane.update(slot, state)?);
            }
            Some(edge) if edge.edge != *place => self.plane.detach(slot)?,
            Some(_) | None => {}
        }
        Ok(self.plane.attach(place, slot, state)?)
    }

    fn release(&mut self, id: &PuId) -> Result<(), DatapathError> {
        let held = self.units.remove(id).map(|held| held.slot);
        let Some(slot) = held.or_else(|| self.ledger.line(id).map(|line| PuSlot(line.slot))) else {
            return Ok(());
        };
        let attached = self.plane.edges().iter().any(|edge| edge.slot == convert::slot(slot));
        self.take_all_events();
        let detached = if attached { self.plane.detach(convert::slot(slot)) } else { Ok(()) };
        self.engine.remove_pu(slot, now(), &mut self.effects);
        self.carry_out();
        self.engine.forget_tokens_of(id);
        self.own.remove(&slot);
        self.forget_own_tokens();
        self.counted.retain(|(counted, _), _| *counted != slot);
        self.ledger.remove(id);
        self.unsaved.units = true;
        detached.map_err(|error| DatapathError::unit(id, error))
    }

    fn release_strangers(&mut self) -> Result<Vec<PuId>, DatapathError> {
        let strangers: Vec<PuId> =
            self.ledger.ids().filter(|id| !self.units.contains_key(*id)).cloned().collect();
        for id in &strangers {
            self.release(id)?;
        }
        // Edges that the ledger does not know, after it was lost or damaged.
        let own: Vec<Slot> = self.units.values().map(|held| convert::slot(held.slot)).collect();
        for edge in self.plane.edges().into_iter().filter(|edge| !own.contains(&edge.slot)) {
            info!(slot = %edge.slot, edge = ?edge.edge, "released an edge that belongs to no unit");
            self.plane
                .detach(edge.slot)
                .map_err(|error| DatapathError::kernel("release an edge that belongs to no unit", error))?;
        }
        self.forget_own_tokens();
        Ok(strangers)
    }

    fn set_secrets(&mut self, secrets: NodeSecrets) -> Result<(), DatapathError> {
        self.engine
            .set_secrets(secrets.for_engine(), now(), &mut self.effects)
            .map_err(|error| DatapathError::Secrets(error.into()))?;
        self.denied = (*secrets.verifier.deny_list()).clone();
        self.secrets = secrets;
        self.carry_out();
        // Live connections rest on what the old secrets proved: each unit gets a new epoch when it is supervised next.
        self.ledger.invalidate();
        self.unsaved.units = true;
        Ok(())
    }

    /// Nothing is walked: with its new epoch each unit's live connections are judged at their next packet.
    fn set_deny_list(&mut self, list: DenyList) -> Result<BTreeMap<PuId, Enforced>, DatapathError> {
        let forgotten = self.engine.set_deny_list(list.clone(), now(), &mut self.effects);
        self.carry_out();
        self.denied = list;
        info!(peers = forgotten, "peers forgotten that are denied now");
        let units: Vec<Enforcement> = self.units.values().map(|held| held.unit.clone()).collect();
        let mut epochs = BTreeMap::new();
        let mut outcome = Ok(());
        for unit in units {
            // One unit that cannot be renewed must not keep the others under the old list.
            match self.renew(&unit) {
                Ok(Some(enforced)) => drop(epochs.insert(unit.id().clone(), enforced)),
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| epochs)
    }

    /// Gives a unit a new epoch.
    fn renew(&mut self, unit: &Enforcement) -> Result<Option<Enforced>, DatapathError> {
        let id = unit.id();
        let Some(line) = self.ledger.renew(unit, &self.basis()) else { return Ok(None) };
        let (slot, epoch) = (PuSlot(line.slot), line.epoch);
        self.upsert(unit, &line)?;
        let state = state(unit, epoch, self.own_of(slot));
        self.ledger.insert(id.clone(), line);
        self.unsaved.units = true;
        self.plane.update(convert::slot(slot), state).map_err(|error| DatapathError::unit(id, error))?;
        if let Some(held) = self.units.get_mut(id) {
            held.state = state;
        }
        Ok(Some(Enforced { epoch }))
    }

    /// What the kernel holds from an earlier run.
    fn pinned(&self, place: &trireme_bpf::Edge) -> Pinned {
        let edges = self.plane.edges();
        let here = edges.iter().find(|edge| edge.edge == *place).map(|edge| edge.slot.0);
        Pinned { epochs: edges.into_iter().map(|edge| (edge.slot.0, edge.state.epoch)).collect(), here }
    }
}
