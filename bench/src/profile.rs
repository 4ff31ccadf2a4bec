//! How long the programs on the hooks run, by the kernel's own statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use aya::sys::Stats;

use trireme_testkit::lab::Family;

use crate::bed::Bed;
use crate::{load, process};

/// What one program did between two looks.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// The program's name.
    pub(crate) program: String,
    /// How often it ran for each connection or round trip.
    pub(crate) calls_per_operation: f64,
    /// Nanoseconds per call, the clock's own share included.
    pub(crate) ns_per_call: f64,
}

/// What all programs of a bed did under a load.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// The load.
    pub(crate) load: &'static str,
    /// Connections or round trips per second.
    pub(crate) per_second: f64,
    /// Per program.
    pub(crate) usages: Vec<Usage>,
}

/// Watches the programs under both loads.
pub(crate) fn tables(bed: &Bed, family: Family, clients: u16, time: Duration) -> anyhow::Result<[Table; 2]> {
    let profile = Profile::start(bed)?;
    let rate = load::connections(bed.way(family), clients, time)?.per_second;
    let connections = profile.finish("connect, one byte each way, close", rate, time)?;
    let profile = Profile::start(bed)?;
    let rate = load::round_trips(bed.way(family), time)?;
    let round_trips = profile.finish("round trips on one connection", rate, time)?;
    Ok([connections, round_trips])
}

/// The statistics of one bed's programs; they are on as long as this lives.
pub(crate) struct Profile {
    ids: BTreeSet<u64>,
    before: BTreeMap<String, (u64, Duration)>,
    _on: OwnedFd,
}

impl Profile {
    /// Turns statistics on.
    pub(crate) fn start(bed: &Bed) -> anyhow::Result<Self> {
        let on = aya::sys::enable_stats(Stats::RunTime).context("turning BPF statistics on")?;
        let mut ids = BTreeSet::new();
        for process in bed.processes() {
            ids.extend(process::bpf_programs(process)?);
        }
        let before = counts(&ids)?;
        Ok(Self { ids, before, _on: on })
    }

    /// What ran since the start, by name of the program.
    pub(crate) fn finish(self, load: &'static str, per_second: f64, time: Duration) -> anyhow::Result<Table> {
        let operations = per_second * time.as_secs_f64();
        let mut usages = Vec::new();
        for (program, (calls, time)) in counts(&self.ids)? {
            let (calls_before, time_before) = self.before.get(&program).copied().unwrap_or_default();
            let calls = load::approximate(calls.saturating_sub(calls_before));
            let nanos = time.saturating_sub(time_before).as_secs_f64() * 1e9;
            if calls > 0.0 {
                usages.push(Usage {
                    program,
                    calls_per_operation: calls / operations,
                    ns_per_call: nanos / calls,
                });
            }
        }
        Ok(Table { load, per_second, usages })
    }
}

/// Calls and time of the programs with these ids, added up by name.
fn counts(ids: &BTreeSet<u64>) -> anyhow::Result<BTreeMap<String, (u64, Duration)>> {
    let mut sums = BTreeMap::<String, (u64, Duration)>::new();
    // Programs of others may go while they are listed.
    for program in aya::programs::loaded_programs().flatten() {
        if ids.contains(&u64::from(program.id())) {
            let name = program.name_as_str().unwrap_or("unnamed").to_owned();
            let (calls, time) = sums.entry(name).or_default();
            *calls += program.run_count();
            *time += program.run_time();
        }
    }
    Ok(sums)
}
