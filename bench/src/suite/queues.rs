//! The cases of the nfqueue data path.

use std::path::Path;
use std::time::Duration;

use trireme_testkit::lab::{Agent, Family};

use super::{rate, turns};
use crate::bed::{Bed, Enforcement};
use crate::floor::Open;
use crate::report::Results;
use crate::thousand::{self, Thousand};
use crate::{load, process};

/// Clients at once: queues are slower than programs, not fewer hands are waiting.
const CLIENTS: u16 = 32;

/// Units whose rules are written at the end of a whole run.
pub(super) const UNITS: u32 = 1000;

/// These cases without the others.
pub(crate) fn queues(program: &Path, rounds: u32, time: Duration, units: u32) -> anyhow::Result<Results> {
    let queues = Enforcement { datapath: "nfqueue", ..Enforcement::default() };
    let (bare, queued) = (Bed::bare(program)?, Bed::enforced(program, &queues)?);
    let open = OpenBed::build(program)?;
    let mut results = Results::default();
    for _ in 0..rounds {
        Beds { bare: &bare, queued: &queued, open: &open, time }.round(&mut results)?;
    }
    rules(program, units, &mut results)?;
    Ok(results)
}

/// Rules of many units.
pub(super) fn rules(program: &Path, units: u32, results: &mut Results) -> anyhow::Result<()> {
    let Thousand { p50, p99, idle } = thousand::measure(program, units)?;
    results.value("nfqueue-rules-p50", "ms", p50);
    results.value("nfqueue-rules-p99", "ms", p99);
    results.value("nfqueue-idle-cpu", "cores", idle);
    Ok(())
}

/// Workloads behind queues that admit everybody.
pub(super) struct OpenBed {
    /// Ends before its namespaces.
    _open: Open,
    bed: Bed,
}

impl OpenBed {
    pub(super) fn build(program: &Path) -> anyhow::Result<Self> {
        let bed = Bed::bare(program)?;
        Ok(Self { _open: Open::start(&[&bed.client, &bed.server])?, bed })
    }
}

/// No hooks, netfilter queues at both ends, and queues that admit everybody.
pub(super) struct Beds<'a> {
    pub(super) bare: &'a Bed,
    pub(super) queued: &'a Bed,
    pub(super) open: &'a OpenBed,
    pub(super) time: Duration,
}

impl Beds<'_> {
    pub(super) fn round(&self, results: &mut Results) -> anyhow::Result<()> {
        let loaded = |bed: &Bed, time| {
            let before = cpu(bed)?;
            let [rate] = crr(bed, time)?;
            Ok([rate, (cpu(bed)? - before) * 1e6 / (rate * f64::max(time.as_secs_f64(), 1e-3))])
        };
        let drops = drops(self.queued)?;
        let [[bare, _], [queued, agent]] = turns(
            self.time,
            |time| crr(self.bare, time).map(|[rate]| [rate, 0.0]),
            |time| loaded(self.queued, time),
        )?;
        results.pair("nfqueue-crr", "connections/s", bare, queued);
        let open = &self.open.bed;
        let [[bare], [floor]] = turns(self.time, |time| crr(self.bare, time), |time| crr(open, time))?;
        results.pair("nfqueue-floor-crr", "connections/s", bare, floor);
        results.value("nfqueue-agent-cpu", "us/connection", agent);
        results.value("nfqueue-drops", "packets", self::drops(self.queued)? - drops);

        let latency =
            |bed: &Bed, time| load::connect_latency(bed.way(Family::V4), time).map(|latency| [latency.p50]);
        let [[bare], [queued]] =
            turns(self.time, |time| latency(self.bare, time), |time| latency(self.queued, time))?;
        results.pair("nfqueue-connect-p50", "us", bare, queued);
        let [[bare], [floor]] =
            turns(self.time, |time| latency(self.bare, time), |time| latency(open, time))?;
        results.pair("nfqueue-floor-connect-p50", "us", bare, floor);

        let bulk = |bed: &Bed, time| load::bulk(bed.way(Family::V4), time).map(|rate| [rate]);
        let [[bare], [queued]] =
            turns(self.time, |time| bulk(self.bare, time), |time| bulk(self.queued, time))?;
        results.pair("nfqueue-bulk", "bytes/s", bare, queued);
        let trips = |bed: &Bed, time| load::round_trips(bed.way(Family::V4), time).map(|rate| [rate]);
        let [[bare], [queued]] =
            turns(self.time, |time| trips(self.bare, time), |time| trips(self.queued, time))?;
        results.pair("nfqueue-rr-established", "round trips/s", bare, queued);
        Ok(())
    }
}

/// Connections per second by IPv4.
fn crr(bed: &Bed, time: Duration) -> anyhow::Result<[f64; 1]> {
    rate(load::connections(bed.way(Family::V4), CLIENTS, time))
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
