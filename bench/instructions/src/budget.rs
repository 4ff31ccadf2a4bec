//! The file of what each case may cost.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::{callgrind, cases};

/// More than this above the budget fails, in percent.
const TOLERANCE: u64 = 5;

const HEAD: &str = "\
# Instructions per call of the pure core, counted by callgrind; `make instructions` fails above 5 % more.
# Written by: cargo run --release -p trireme-instructions -- write bench/instructions/budget.toml
";

/// Instructions per call, by case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Budget(BTreeMap<String, u64>);

/// What differs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// One line for each case.
    pub(crate) lines: Vec<String>,
    /// Whether a case is above its budget.
    pub(crate) exceeded: bool,
}

impl Budget {
    /// Measures every case.
    pub(crate) fn measured() -> anyhow::Result<Self> {
        let cost = |case: &&str| Ok(((*case).to_owned(), callgrind::instructions(case)?));
        cases::ALL.iter().map(cost).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Reads a file.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).map(Self).with_context(|| format!("reading {}", path.display()))
    }

    /// Writes a file.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = format!("{HEAD}{}", toml::to_string(&self.0)?);
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// What this measurement is against a budget.
    pub(crate) fn compare(&self, allowed: &Self) -> Comparison {
        let mut exceeded = false;
        let mut line = |(case, cost): (&String, &u64)| {
            let Some(budget) = allowed.0.get(case) else {
                exceeded = true;
                return format!("{case}: {cost} instructions, no budget");
            };
            let limit = budget + budget * TOLERANCE / 100;
            let word = if *cost > limit {
                exceeded = true;
                "too many"
            } else if *cost < budget - budget * TOLERANCE / 100 {
                "the budget can be lowered"
            } else {
                "as budgeted"
            };
            format!("{case}: {cost} instructions, budget {budget}: {word}")
        };
        let lines = self.0.iter().map(&mut line).collect();
        Comparison { lines, exceeded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(cost: u64) -> Budget {
        Budget(BTreeMap::from([("mac".to_owned(), cost)]))
    }

    #[test]
    fn a_twentieth_more_is_tolerated_and_not_one_instruction_beyond() {
        assert!(!budget(1050).compare(&budget(1000)).exceeded);
        assert!(budget(1051).compare(&budget(1000)).exceeded);
        let comparison = budget(900).compare(&budget(1000));
        assert_eq!(
            (comparison.lines, comparison.exceeded),
            (vec!["mac: 900 instructions, budget 1000: the budget can be lowered".to_owned()], false)
        );
    }

    #[test]
    fn a_case_without_budget_fails() {
        assert!(budget(1).compare(&Budget(BTreeMap::new())).exceeded);
    }
}
