//! How long the programs on the hooks run, by the kernel's own statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use aya::sys::Stats;
use serde::Serialize;

use crate::bed::Bed;
use crate::process;

/// What one program did between two looks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Usage {
    /// The program's name.
    pub(crate) program: String,
    /// How often it ran.
    pub(crate) calls: u64,
    /// Nanoseconds per call, the clock's own share included.
    pub(crate) ns_per_call: f64,
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
    pub(crate) fn finish(self) -> anyhow::Result<Vec<Usage>> {
        let mut usages = Vec::new();
        for (program, (calls, time)) in counts(&self.ids)? {
            let (calls_before, time_before) = self.before.get(&program).copied().unwrap_or_default();
            let calls = calls.saturating_sub(calls_before);
            if calls > 0 {
                let time = time.saturating_sub(time_before);
                usages.push(Usage {
                    program,
                    calls,
                    ns_per_call: time.as_secs_f64() * 1e9 / approximate(calls),
                });
            }
        }
        Ok(usages)
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

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^52")]
const fn approximate(count: u64) -> f64 {
    count as f64
}
