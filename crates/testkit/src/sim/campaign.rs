//! Many seeds on all cores, and one seed with everything it did.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Detail, Guard, Report, run};

/// Number of schedules of a campaign.
pub const SCHEDULES_VARIABLE: &str = "TRIREME_SIM_SCHEDULES";
/// One seed to replay with its trace instead of a campaign.
pub const SEED_VARIABLE: &str = "TRIREME_SIM_SEED";
/// First seed of a campaign.
pub const BASE_VARIABLE: &str = "TRIREME_SIM_BASE";

/// Failing seeds that a campaign describes in full.
const DESCRIBED: usize = 10;

/// What a campaign has to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Campaign {
    /// With or without engines.
    pub guard: Guard,
    /// Seeds in a row, unless the environment says otherwise.
    pub schedules: u64,
    /// The test that a replay has to name.
    pub test: &'static str,
}

impl Campaign {
    /// Runs the seeds and says what they covered, or the one seed of [`SEED_VARIABLE`] and says all it did.
    ///
    /// # Errors
    /// A text with the failing seeds, what they broke and how to replay them.
    pub fn run(self) -> Result<String, String> {
        if let Some(seed) = number(SEED_VARIABLE) {
            let report = run(seed, self.guard, Detail::Lines);
            let is_clean = report.violations.is_empty();
            let text = self.replay(seed, report);
            return if is_clean { Ok(text) } else { Err(text) };
        }
        let first = number(BASE_VARIABLE).unwrap_or(0);
        let seeds = first..first + number(SCHEDULES_VARIABLE).unwrap_or(self.schedules);
        let next = AtomicU64::new(seeds.start);
        let found = Mutex::new(Found::default());
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return;
                        }
                        let report = run(seed, self.guard, Detail::Hash);
                        found.lock().expect("no thread panics while it holds this").take(seed, report);
                    }
                });
            }
        });
        let found = found.into_inner().expect("no thread panics while it holds this");
        if found.failed.is_empty() { Ok(format!("{:?}", found.summary)) } else { Err(self.failures(found)) }
    }

    fn failures(self, mut found: Found) -> String {
        found.failed.sort_by_key(|(seed, _)| *seed);
        let mut text = format!("{} of {} schedules failed\n", found.failed.len(), found.summary.schedules);
        for (seed, report) in found.failed.iter().take(DESCRIBED) {
            // Writing to a string cannot fail.
            let kinds: std::collections::BTreeSet<String> =
                report.violations.iter().map(|violation| format!("{violation:?}")).collect();
            let _infallible = writeln!(text, "seed {seed}: {} violations", report.violations.len());
            for violation in kinds.iter().take(4) {
                let _infallible = writeln!(text, "    {violation}");
            }
        }
        let seeds: Vec<u64> = found.failed.iter().map(|(seed, _)| *seed).collect();
        let _infallible = writeln!(text, "failing seeds: {seeds:?}");
        let _infallible = writeln!(text, "replay one with its trace:\n  {}", self.command(seeds[0]));
        text
    }

    fn replay(self, seed: u64, report: Report) -> String {
        let mut text = report.lines.join("\n");
        let scenario = super::Scenario::generate(seed, self.guard);
        let _infallible = write!(
            text,
            "\n{scenario:#?}\nseed {seed}: {} events in {:?}, trace {:016x}\nviolations: {:#?}\n",
            report.events, report.virtual_time, report.trace_hash, report.violations
        );
        text
    }

    fn command(self, seed: u64) -> String {
        format!(
            "{SEED_VARIABLE}={seed} cargo test -p trireme-testkit --test sim -- --exact {} --nocapture",
            self.test
        )
    }
}

/// What a campaign without failures covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Seeds run.
    pub schedules: u64,
    /// Events of all runs together.
    pub events: u64,
    /// Virtual seconds of all runs together.
    pub virtual_secs: u64,
    /// Handshakes that kernels completed by themselves.
    pub fast_handshakes: u64,
}

#[derive(Default)]
struct Found {
    summary: Summary,
    failed: Vec<(u64, Report)>,
}

impl Found {
    fn take(&mut self, seed: u64, report: Report) {
        self.summary.schedules += 1;
        self.summary.events += report.events;
        self.summary.virtual_secs += report.virtual_time.as_secs();
        self.summary.fast_handshakes += report.fast_handshakes;
        if !report.violations.is_empty() {
            self.failed.push((seed, report));
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
