//! What came of the packets, and where the two differed.

use std::collections::BTreeMap;
use std::fmt;

use trireme_bpf::{Counter, CounterSet, Hook};

use crate::Outcome;

/// Counts by kind of segment and outcome.
#[derive(Debug, Default)]
pub struct Tally {
    outcomes: BTreeMap<(String, String), u64>,
    mutations: BTreeMap<&'static str, [u64; 3]>,
    exceptions: BTreeMap<&'static str, u64>,
    divergences: BTreeMap<String, Vec<String>>,
    diverged: u64,
    kernel: BTreeMap<Counter, u64>,
    /// Packets that went through a program.
    pub packets: u64,
    /// Steps of intact handshakes.
    pub valid: u64,
    /// Those of them that the programs did not decide.
    pub valid_punted: BTreeMap<String, u64>,
}

/// Divergences of a kind that are told with their packets.
const TOLD: usize = 3;

impl Tally {
    pub(crate) fn count(&mut self, hook: Hook, segment: &str, what: Option<&'static str>, outcome: &Outcome) {
        let (name, place) = match outcome {
            Outcome::Passed(_) => ("passed".to_owned(), 0),
            Outcome::Dropped => ("dropped".to_owned(), 1),
            Outcome::Punted(punted) => (format!("punted: {:?}", punted.reason), 2),
        };
        self.packets += 1;
        *self.outcomes.entry((format!("{hook:?} {segment}"), name)).or_default() += 1;
        if let Some(what) = what {
            self.mutations.entry(what).or_default()[place] += 1;
        }
    }

    pub(crate) fn except(&mut self, why: &'static str) {
        *self.exceptions.entry(why).or_default() += 1;
    }

    pub(crate) fn diverge(&mut self, kind: String, account: String) {
        self.diverged += 1;
        let told = self.divergences.entry(kind).or_default();
        if told.len() < TOLD {
            told.push(account);
        }
    }

    pub(crate) fn add(&mut self, counters: &CounterSet) {
        for (counter, count) in counters.iter() {
            *self.kernel.entry(counter).or_default() += count;
        }
    }

    /// What the programs counted by themselves.
    #[must_use]
    pub fn kernel(&self, counter: Counter) -> u64 {
        self.kernel.get(&counter).copied().unwrap_or_default()
    }

    /// Packets for which the engine was asked.
    #[must_use]
    pub fn punted(&self) -> u64 {
        self.outcomes.iter().filter(|((_, name), _)| name.starts_with("punted")).map(|(_, count)| count).sum()
    }

    /// How often the two differed, and accounts of the first of them.
    #[must_use]
    pub fn divergences(&self) -> (u64, String) {
        let kinds = self.divergences.iter().map(|(kind, told)| format!("## {kind}\n{}", told.join("\n")));
        (self.diverged, kinds.collect::<Vec<_>>().join("\n"))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} packets", self.packets)?;
        for ((segment, outcome), count) in &self.outcomes {
            writeln!(f, "  {segment:<22} {outcome:<28} {count:>8}")?;
        }
        writeln!(f, "mutations                          passed  dropped   punted")?;
        for (what, [passed, dropped, punted]) in &self.mutations {
            writeln!(f, "  {what:<30} {passed:>8} {dropped:>8} {punted:>8}")?;
        }
        writeln!(f, "counters of the programs")?;
        for (counter, count) in self.kernel.iter().filter(|(_, count)| **count > 0) {
            writeln!(f, "  {:<50} {count:>8}", format!("{counter:?}"))?;
        }
        writeln!(f, "different by design")?;
        for (why, count) in &self.exceptions {
            writeln!(f, "  {why:<50} {count:>8}")?;
        }
        writeln!(f, "{} steps of intact handshakes, punted: {:?}", self.valid, self.valid_punted)
    }
}
