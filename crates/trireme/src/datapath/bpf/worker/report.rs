//! What the thread tells about itself.

use std::collections::BTreeMap;

use trireme_identity::PuId;

use super::super::meter;
use super::Loop;
use super::units::Held;
use crate::datapath::{DatapathError, DatapathReport, EdgeState, UnitReport};

impl Loop {
    pub(super) fn report(&mut self) -> Result<DatapathReport, DatapathError> {
        self.keep_counters()?;
        let mut report = DatapathReport {
            detail: format!(
                "instance {}, {} verification threads",
                self.config.instance, self.config.verify_threads
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
            report.units.insert(id.clone(), unit(held, adopted));
            if let Some(problem) = impaired(held) {
                report.impaired.insert(id.clone(), problem);
            }
        }
        Ok(report)
    }

    fn gauges(&self) -> BTreeMap<String, u64> {
        let stats = self.engine.stats();
        let sizes = [
            ("connections", self.plane.connection_count()),
            ("half-open handshakes", stats.half_open),
            ("held packets", stats.held_packets),
            ("held bytes", stats.held_bytes),
            ("parked packets", stats.parked_packets),
            ("verifications under way", stats.verifications),
            ("peers", stats.peers),
            ("peers taught to the programs", self.taught.len()),
            ("pair keys", stats.pair_keys),
            ("tokens", stats.tokens),
            ("waiting flow records", stats.records),
        ];
        let counts = [
            ("bytes of the kernel's tables", self.plane.memory().unwrap_or(0)),
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
        sizes.chain(counts).map(|(name, value)| (name.to_owned(), value)).collect()
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
        let counters =
            self.plane.counters().map_err(|error| DatapathError::kernel("read the counters", error))?;
        for (slot, set) in counters {
            let id = slot.and_then(|slot| names.get(&slot.0).map(|id| (*id).clone()));
            for (counter, count) in set.iter().filter(|(_, count)| *count > 0) {
                let key = (id.clone(), format!("kernel/{}", counter.name()));
                let counter = report.counters.entry(key).or_insert(0);
                *counter = counter.saturating_add(count);
            }
        }
        Ok(())
    }
}

fn unit(held: &Held, adopted: u64) -> UnitReport {
    UnitReport {
        fast_path: held.state.fast,
        fail_mode: held.unit.settings.fail_mode,
        edge: match (&held.place, &held.damaged) {
            _ if held.vanished => EdgeState::Vanished,
            (_, Some(_)) => EdgeState::Damaged,
            (trireme_bpf::Edge::Interface(_), None) => EdgeState::Attached,
            (trireme_bpf::Edge::Namespace { .. }, None) => EdgeState::Advisory,
        },
        adopted,
        adoption_error: held.adoption_error.clone(),
        repairs: held.repairs,
        last_repair: held.last_repair.clone(),
    }
}

fn impaired(held: &Held) -> Option<String> {
    match &held.place {
        trireme_bpf::Edge::Interface(name) if held.vanished => {
            Some(format!("its interface {name} is gone: nothing of it is enforced until it is back"))
        }
        trireme_bpf::Edge::Namespace { .. } if held.vanished => {
            Some("its network namespace is gone".to_owned())
        }
        trireme_bpf::Edge::Namespace { .. } if held.damaged.is_none() => {
            Some("egress: advisory (whoever has CAP_NET_RAW inside gets past the program)".to_owned())
        }
        trireme_bpf::Edge::Interface(_) | trireme_bpf::Edge::Namespace { .. } => held.damaged.clone(),
    }
}
