//! Requests from the asynchronous side.

use std::collections::BTreeMap;
use std::sync::mpsc::TryRecvError;

use tracing::{info, warn};
use trireme_flow::PuSlot;
use trireme_identity::PuId;
use trireme_token::DenyList;

use super::ledger::{Basis, Entry};
use super::units::{Held, spec};
use super::{Loop, Request, Round, now};
use crate::datapath::supervisor::{Line, Pinned, Supervisor};
use crate::datapath::{DatapathError, Enforced};
use crate::{Enforcement, NodeSecrets, controller};

/// Where the node's token keys are kept.
pub(super) const KEYS_FILE: &str = "tokens.json";

/// Where the known peers are kept.
pub(super) const PEERS_FILE: &str = "peers.json";

impl<S: Supervisor> Loop<S> {
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
        let failed = |error| DatapathError::unit(id, error);
        let held = self.units.get(id);
        let in_place = held.filter(|held| held.unit.pu.edge == unit.pu.edge && !held.vanished);
        let place = match in_place {
            Some(held) => held.place.clone(),
            None => S::find(&unit.pu.edge).map_err(failed)?,
        };
        let (known, in_place) = (held.is_some(), in_place.is_some());
        let kernel = if known { Pinned::default() } else { self.supervisor.pinned(&place) };
        let entry = self.ledger.enter(unit, &self.basis(), &kernel);
        let (slot, epoch) = (PuSlot(entry.slot), entry.epoch);
        let first = !known && !kernel.epochs.contains_key(&entry.slot);
        self.upsert(unit, &entry)?;
        let at = Line { slot, epoch, place: &place, known, in_place };
        if let Err(error) = self.supervisor.supervise(unit, &at) {
            if !known {
                self.engine.remove_pu(slot, now(), &mut self.effects);
                self.carry_out();
            }
            return Err(failed(error));
        }
        match self.units.get_mut(id) {
            Some(held) => {
                held.unit = unit.clone();
                held.place = place;
                held.epoch = epoch;
                held.vanished = false;
            }
            None => drop(self.units.insert(id.clone(), Held::new(slot, epoch, unit.clone(), place))),
        }
        self.ledger.insert(id.clone(), entry);
        self.unsaved.units = true;
        if first {
            self.adopt_existing(id);
        }
        Ok(Enforced { epoch })
    }

    fn upsert(&mut self, unit: &Enforcement, entry: &Entry) -> Result<(), DatapathError> {
        let taken = self.engine.upsert_pu(spec(unit, entry), now(), &mut self.effects);
        self.carry_out();
        taken.map_err(|error| DatapathError::unit(unit.id(), error))
    }

    fn basis(&self) -> Basis<'_> {
        Basis { key: self.secrets.signer.key_id(), denied: &self.denied }
    }

    fn release(&mut self, id: &PuId) -> Result<(), DatapathError> {
        let held = self.units.remove(id).map(|held| held.slot);
        let Some(slot) = held.or_else(|| self.ledger.line(id).map(|line| PuSlot(line.slot))) else {
            return Ok(());
        };
        self.take_all_events();
        let released = self.supervisor.release(slot);
        self.engine.remove_pu(slot, now(), &mut self.effects);
        self.carry_out();
        self.engine.forget_tokens_of(id);
        self.flows.forget(slot);
        self.counted.retain(|(counted, _), _| *counted != slot);
        self.ledger.remove(id);
        self.unsaved.units = true;
        released.map_err(|error| DatapathError::unit(id, error))
    }

    fn release_strangers(&mut self) -> Result<Vec<PuId>, DatapathError> {
        let strangers: Vec<PuId> =
            self.ledger.ids().filter(|id| !self.units.contains_key(*id)).cloned().collect();
        for id in &strangers {
            self.release(id)?;
        }
        let own: Vec<PuSlot> = self.units.values().map(|held| held.slot).collect();
        self.supervisor.release_strangers(&own)?;
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
        let Some(entry) = self.ledger.renew(unit, &self.basis()) else { return Ok(None) };
        let (slot, epoch) = (PuSlot(entry.slot), entry.epoch);
        self.upsert(unit, &entry)?;
        self.ledger.insert(id.clone(), entry);
        self.unsaved.units = true;
        self.supervisor.renew(unit, slot, epoch).map_err(|error| DatapathError::unit(id, error))?;
        if let Some(held) = self.units.get_mut(id) {
            held.epoch = epoch;
        }
        Ok(Some(Enforced { epoch }))
    }
}
