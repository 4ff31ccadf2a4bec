//! The cases of the nfqueue data path.

use trireme_testkit::lab::{Agent, Family};

use super::{Suite, crr};
use crate::bed::Bed;
use crate::{load, process};

impl Suite {
    /// Netfilter queues at both ends, against no hooks.
    pub(super) fn queues(&mut self) -> anyhow::Result<()> {
        let loaded = |bed: &Bed, time| {
            let before = cpu(bed)?;
            let [rate] = crr(bed, time)?;
            Ok([rate, (cpu(bed)? - before) * 1e6 / (rate * f64::max(time.as_secs_f64(), 1e-3))])
        };
        let drops = drops(&self.queued)?;
        let [[bare, _], [queued, agent]] = self.turns(
            |time| crr(&self.bare, time).map(|[rate]| [rate, 0.0]),
            |time| loaded(&self.queued, time),
        )?;
        self.results.pair("nfqueue-crr", "connections/s", bare, queued);
        self.results.value("nfqueue-agent-cpu", "us/connection", agent);
        self.results.value("nfqueue-drops", "packets", self::drops(&self.queued)? - drops);

        let latency =
            |bed: &Bed, time| load::connect_latency(bed.way(Family::V4), time).map(|latency| [latency.p50]);
        let [[bare], [queued]] =
            self.turns(|time| latency(&self.bare, time), |time| latency(&self.queued, time))?;
        self.results.pair("nfqueue-connect-p50", "us", bare, queued);

        let bulk = |bed: &Bed, time| load::bulk(bed.way(Family::V4), time).map(|rate| [rate]);
        let [[bare], [queued]] =
            self.turns(|time| bulk(&self.bare, time), |time| bulk(&self.queued, time))?;
        self.results.pair("nfqueue-bulk", "bytes/s", bare, queued);
        let trips = |bed: &Bed, time| load::round_trips(bed.way(Family::V4), time).map(|rate| [rate]);
        let [[bare], [queued]] =
            self.turns(|time| trips(&self.bare, time), |time| trips(&self.queued, time))?;
        self.results.pair("nfqueue-rr-established", "round trips/s", bare, queued);
        Ok(())
    }
}

/// Seconds of processor time of both agents.
fn cpu(bed: &Bed) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for id in bed.processes() {
        sum += process::cpu_time(id)?.as_secs_f64();
    }
    Ok(sum)
}

/// Packets that no queue had room for, so far; agents look once a second.
fn drops(bed: &Bed) -> anyhow::Result<f64> {
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let count = |agent: &Agent| -> anyhow::Result<u64> {
        Ok(agent.kernel_count("queue-full")? + agent.kernel_count("queue-not-delivered")?)
    };
    let mut sum = 0;
    for agent in &bed.agents {
        sum += count(agent)?;
    }
    Ok(load::approximate(sum))
}
