//! Requests from the asynchronous side, and housekeeping.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::mpsc::TryRecvError;

use tracing::{info, warn};
use trireme_bpf::{Mode, OtherProtocols, PuState, Slot};
use trireme_datapath::PuSpec;
use trireme_flow::PuSlot;
use trireme_identity::PuId;

use super::super::ledger::Line;
use super::super::{convert, edge, meter};
use super::{Loop, Request, Round, now};
use crate::datapath::{DatapathError, DatapathReport, Enforced};
use crate::{Enforcement, NodeSecrets, controller};

/// Where the node's token keys are kept.
pub(super) const KEYS_FILE: &str = "tokens.json";

impl Loop {
    pub(super) fn take_requests(&mut self) -> Round {
        loop {
            // Whoever dropped the other end no longer wants the answer.
            match self.requests.try_recv() {
                Ok(Request::Supervise(unit, reply)) => drop(reply.send(self.supervise(&unit))),
                Ok(Request::Release(id, reply)) => drop(reply.send(self.release(&id))),
                Ok(Request::ReleaseStrangers(reply)) => drop(reply.send(self.release_strangers())),
                Ok(Request::Secrets(secrets, reply)) => drop(reply.send(self.set_secrets(*secrets))),
                Ok(Request::Report(reply)) => drop(reply.send(self.report())),
                Ok(Request::Stop(reply)) => {
                    drop(reply.send(self.save()));
                    return Round::End;
                }
                Err(TryRecvError::Empty) => return Round::GoOn,
                Err(TryRecvError::Disconnected) => {
                    if let Err(error) = self.save() {
                        warn!(error = controller::chain(&error), "state not saved");
                    }
                    return Round::End;
                }
            }
        }
    }

    /// Engine first, kernel second: from the moment its packets are caught there is someone to judge them.
    fn supervise(&mut self, unit: &Enforcement) -> Result<Enforced, DatapathError> {
        let id = unit.id();
        let place = edge::find(&unit.pu.edge).map_err(|error| DatapathError::unit(id, error))?;
        let line = self.ledger.enter(unit, &self.secrets.signer.key_id(), &self.pinned());
        let slot = PuSlot(line.slot);
        let epoch = line.epoch;
        let known = self.units.contains_key(id);
        self.engine.upsert_pu(spec(unit, &line), now()).map_err(|error| DatapathError::unit(id, error))?;
        if let Err(error) = self.attach(&place, convert::slot(slot), state(unit, epoch)) {
            if !known {
                self.engine.remove_pu(slot, now(), &mut self.effects);
                self.carry_out();
            }
            return Err(DatapathError::unit(id, error));
        }
        self.units.insert(id.clone(), slot);
        self.edges.insert(id.clone(), (unit.pu.edge.clone(), state(unit, epoch)));
        self.ledger.insert(id.clone(), line);
        self.ledger.save(&self.state)?;
        self.save()?;
        Ok(Enforced { epoch })
    }

    /// A slot whose edge is another one by now is detached first: the old edge belongs to nobody any more.
    pub(super) fn attach(
        &mut self,
        place: &trireme_bpf::Edge,
        slot: Slot,
        state: PuState,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let ours = self.units.values().any(|unit| convert::slot(*unit) == slot);
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
        let Some(slot) = self.units.remove(id).or_else(|| self.ledger.slot_of(id).map(PuSlot)) else {
            return Ok(());
        };
        self.edges.remove(id);
        let attached = self.plane.edges().iter().any(|edge| edge.slot == convert::slot(slot));
        let detached = if attached { self.plane.detach(convert::slot(slot)) } else { Ok(()) };
        self.engine.remove_pu(slot, now(), &mut self.effects);
        self.carry_out();
        self.engine.forget_tokens_of(id);
        self.ledger.remove(id);
        self.ledger.save(&self.state)?;
        detached.map_err(|error| DatapathError::unit(id, error))
    }

    fn release_strangers(&mut self) -> Result<Vec<PuId>, DatapathError> {
        let strangers: Vec<PuId> =
            self.ledger.ids().filter(|id| !self.units.contains_key(*id)).cloned().collect();
        for id in &strangers {
            self.release(id)?;
        }
        // Edges that the ledger does not know, after it was lost or damaged.
        let own: Vec<Slot> = self.units.values().map(|slot| convert::slot(*slot)).collect();
        for edge in self.plane.edges().into_iter().filter(|edge| !own.contains(&edge.slot)) {
            info!(slot = %edge.slot, edge = ?edge.edge, "released an edge that belongs to no unit");
            self.plane
                .detach(edge.slot)
                .map_err(|error| DatapathError::kernel("release an edge that belongs to no unit", error))?;
        }
        Ok(strangers)
    }

    fn set_secrets(&mut self, secrets: NodeSecrets) -> Result<(), DatapathError> {
        self.engine
            .set_secrets(secrets.for_engine(), now(), &mut self.effects)
            .map_err(|error| DatapathError::Secrets(error.into()))?;
        self.secrets = secrets;
        self.carry_out();
        // Live connections rest on what the old secrets proved: each unit gets a new epoch when it is supervised next.
        self.ledger.invalidate();
        self.save()
    }

    /// The epochs that slots have in the kernel.
    fn pinned(&self) -> BTreeMap<u32, u32> {
        self.plane.edges().into_iter().map(|edge| (edge.slot.0, edge.state.epoch)).collect()
    }

    /// Saves the token keys when they have changed.
    pub(super) fn save(&mut self) -> Result<(), DatapathError> {
        let keys = self
            .engine
            .export_tokens()
            .map_err(|error| DatapathError::kernel("save the token keys", error))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&keys);
        let digest = hasher.finish();
        if self.saved_keys != Some(digest) {
            self.state.write(KEYS_FILE, &keys)?;
            self.saved_keys = Some(digest);
        }
        Ok(())
    }

    fn report(&mut self) -> Result<DatapathReport, DatapathError> {
        let names: BTreeMap<u32, PuId> = self.units.iter().map(|(id, slot)| (slot.0, id.clone())).collect();
        let stats = self.engine.stats();
        let mut report = DatapathReport {
            detail: format!(
                "instance {}, {} verification threads",
                self.config.instance, self.config.verify_threads
            ),
            ..DatapathReport::default()
        };
        let (established, closing) = self
            .plane
            .connection_count()
            .map_err(|error| DatapathError::kernel("count connections", error))?;
        for (name, size) in [
            ("connections", established),
            ("closing connections", closing),
            ("half-open handshakes", stats.half_open),
            ("held packets", stats.held_packets),
            ("held bytes", stats.held_bytes),
            ("parked packets", stats.parked_packets),
            ("verifications under way", stats.verifications),
            ("peers", stats.peers),
            ("pair keys", stats.pair_keys),
            ("tokens", stats.tokens),
            ("waiting flow records", stats.records),
        ] {
            report.gauges.insert(name.to_owned(), meter::wide(size));
        }
        for (name, count) in [
            ("decisions without a flow record", stats.records_lost),
            ("packets to the engine", self.meter.punted),
            ("packets put back", self.meter.sent),
            ("packets not put back", self.meter.lost),
            ("connections beyond the table", self.meter.table_full),
            ("stale conntrack entries deleted", self.meter.stale_conntrack),
            ("verifications refused", self.pool.refused()),
        ] {
            report.gauges.insert(name.to_owned(), count);
        }
        for ((slot, reason), count) in stats.reasons {
            let id = names.get(&slot.0).cloned();
            report.counters.insert((id, reason.name().to_owned()), count);
        }
        let counters =
            self.plane.counters().map_err(|error| DatapathError::kernel("read the counters", error))?;
        for (slot, set) in counters {
            let id = slot.and_then(|slot| names.get(&slot.0).cloned());
            for (counter, count) in set.iter().filter(|(_, count)| *count > 0) {
                report.counters.insert((id.clone(), format!("kernel/{}", counter.name())), count);
            }
        }
        self.impaired(&names, &mut report);
        Ok(report)
    }

    fn impaired(&self, names: &BTreeMap<u32, PuId>, report: &mut DatapathReport) {
        for edge in self.plane.edges() {
            let Some(id) = names.get(&edge.slot.0) else { continue };
            let problem = match edge.edge {
                trireme_bpf::Edge::Interface(name) if edge.vanished => {
                    format!("its interface {name} is gone: nothing of it is enforced until it is back")
                }
                trireme_bpf::Edge::Namespace { .. } if edge.vanished => {
                    "its network namespace is gone".to_owned()
                }
                trireme_bpf::Edge::Namespace { .. } => {
                    "egress: advisory (whoever has CAP_NET_RAW inside gets past the program)".to_owned()
                }
                trireme_bpf::Edge::Interface(_) => continue,
            };
            report.impaired.insert(id.clone(), problem);
        }
    }
}

fn spec(unit: &Enforcement, line: &Line) -> PuSpec {
    PuSpec {
        slot: PuSlot(line.slot),
        id: unit.id().clone(),
        tags: unit.identity.clone(),
        policy: std::sync::Arc::clone(&unit.policy),
        epoch: line.epoch,
        settings: unit.settings.tcp.clone(),
    }
}

fn state(unit: &Enforcement, epoch: u32) -> PuState {
    PuState {
        epoch,
        mode: match unit.policy.mode() {
            trireme_policy::Mode::Off => Mode::Off,
            // Observed connections are judged by the engine too: that is how the verdict gets into the records.
            trireme_policy::Mode::Enforce | trireme_policy::Mode::Observe => Mode::Enforce,
        },
        other_protocols: match (unit.policy.mode(), unit.settings.other_protocols) {
            (trireme_policy::Mode::Enforce, crate::OtherProtocols::Deny) => OtherProtocols::Deny,
            // A unit that is only observed loses nothing.
            (trireme_policy::Mode::Observe | trireme_policy::Mode::Off, crate::OtherProtocols::Deny)
            | (_, crate::OtherProtocols::Allow) => OtherProtocols::Allow,
        },
    }
}
