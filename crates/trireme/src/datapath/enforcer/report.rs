//! What the thread tells about itself.

use std::collections::BTreeMap;

use trireme_identity::PuId;

use super::units::Held;
use super::{Loop, meter};
use crate::datapath::supervisor::Supervisor;
use crate::datapath::{DatapathError, DatapathReport, EdgeState, UnitReport};

impl<S: Supervisor> Loop<S> {
    pub(super) fn report(&mut self) -> Result<DatapathReport, DatapathError> {
        self.keep_counters()?;
        let mut report = DatapathReport {
            detail: format!(
                "{}, {} verification threads",
                self.supervisor.detail(),
                self.setup.verify_threads
            ),
            gauges: self.gauges(),
            ..DatapathReport::default()
        };
        if let Some(problem) = self.saver.as_ref().and_then(super::Saver::problem) {
            report.detail = format!("{}; state is not saved: {problem}", report.detail);
        }
        self.counters(&mut report)?;
        for (id, held) in &self.units {
            let adopted = self.ledger.line(id).map_or(0, |line| line.adopted);
            report.units.insert(id.clone(), self.unit(held, adopted));
            if let Some(problem) = self.impaired(held) {
                report.impaired.insert(id.clone(), problem);
            }
        }
        Ok(report)
    }

    fn gauges(&self) -> BTreeMap<String, u64> {
        let stats = self.engine.stats();
        let sizes = [
            ("half-open handshakes", stats.half_open),
            ("held packets", stats.held_packets),
            ("held bytes", stats.held_bytes),
            ("parked packets", stats.parked_packets),
            ("verifications under way", stats.verifications),
            ("peers", stats.peers),
            ("pair keys", stats.pair_keys),
            ("tokens", stats.tokens),
            ("waiting flow records", stats.records),
            ("flows of other protocols", self.flows.len()),
            ("fragmented packets", stats.fragmented),
            ("held fragments", stats.fragments_held),
        ];
        let counts = [
            ("decisions without a flow record", stats.records_lost),
            ("packets to the engine", self.meter.punted),
            ("packets put back", self.meter.sent),
            ("packets not put back", self.meter.lost),
            ("connections beyond the table", self.meter.table_full),
            ("lessons beyond the tables", self.meter.untaught),
            ("steps of the wall clock", self.meter.clock_steps),
            ("stale conntrack entries deleted", self.meter.stale_conntrack),
            ("verifications refused", self.pool.refused()),
        ];
        let sizes = sizes.into_iter().map(|(name, size)| (name, meter::wide(size)));
        sizes
            .chain(counts)
            .chain(self.supervisor.gauges())
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Only what the kernel keeps is shown, so that no number ever goes back.
    fn counters(&self, report: &mut DatapathReport) -> Result<(), DatapathError> {
        let names: BTreeMap<u32, &PuId> = self.units.iter().map(|(id, held)| (held.slot.0, id)).collect();
        for ((slot, reason), count) in &self.counted {
            let id = names.get(&slot.0).map(|id| (*id).clone());
            // Units that have gone, and packets of none, come together.
            let counter = report.counters.entry((id, reason.name().to_owned())).or_insert(0);
            *counter = counter.saturating_add(*count);
        }
        for (slot, name, count) in self.supervisor.counters()?.into_iter().filter(|(.., count)| *count > 0) {
            let id = slot.and_then(|slot| names.get(&slot.0).map(|id| (*id).clone()));
            let counter = report.counters.entry((id, name)).or_insert(0);
            *counter = counter.saturating_add(count);
        }
        Ok(())
    }

    fn unit(&self, held: &Held<S::Place>, adopted: u64) -> UnitReport {
        UnitReport {
            fast_path: self.supervisor.is_fast(held.slot),
            fail_mode: held.unit.settings.fail_mode,
            edge: match held {
                Held { vanished: true, .. } => EdgeState::Vanished,
                Held { damaged: Some(_), .. } => EdgeState::Damaged,
                Held { place, .. } => self.supervisor.state_of(place).0,
            },
            adopted,
            adoption_error: held.adoption_error.clone(),
            repairs: held.repairs,
            last_repair: held.last_repair.clone(),
        }
    }

    fn impaired(&self, held: &Held<S::Place>) -> Option<String> {
        if held.vanished {
            return Some(S::gone(&held.place));
        }
        held.damaged.clone().or_else(|| self.supervisor.state_of(&held.place).1)
    }
}
