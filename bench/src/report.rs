//! Results: medians of ratios, as JSON lines and as a Markdown table.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// Quantiles of a set of times, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// Half are faster.
    pub(crate) p50: f64,
    /// One in a hundred is slower.
    pub(crate) p99: f64,
}

impl Latency {
    /// Sorts the times; an empty set has quantiles of zero.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { p50: at(50), p99: at(99) }
    }
}

/// One case: enforced over unhooked, median of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The case's name.
    pub(crate) case: String,
    /// Median ratio of enforced to unhooked.
    pub(crate) ratio: f64,
    /// Smallest ratio of a round.
    pub(crate) min: f64,
    /// Largest ratio of a round.
    pub(crate) max: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
    /// Unit of the two medians.
    pub(crate) unit: String,
    /// Median without hooks.
    pub(crate) bare: f64,
    /// Median under enforcement.
    pub(crate) enforced: f64,
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pairs: BTreeMap<(String, String), Vec<(f64, f64)>>,
    notes: BTreeMap<String, u64>,
}

impl Results {
    /// Adds one round of one case.
    pub(crate) fn pair(&mut self, case: &str, unit: &str, bare: f64, enforced: f64) {
        self.pairs.entry((case.to_owned(), unit.to_owned())).or_default().push((bare, enforced));
    }

    /// Adds a number that is no comparison.
    pub(crate) fn note(&mut self, name: &str, value: u64) {
        self.notes.insert(name.to_owned(), value);
    }

    /// One row for each case.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.pairs
            .iter()
            .map(|((case, unit), rounds)| {
                let ratios: Vec<_> = rounds.iter().map(|(bare, enforced)| enforced / bare).collect();
                Row {
                    case: case.clone(),
                    ratio: median(&ratios),
                    min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
                    max: ratios.iter().copied().fold(0.0, f64::max),
                    rounds: rounds.len(),
                    unit: unit.clone(),
                    bare: median(&rounds.iter().map(|(bare, _)| *bare).collect::<Vec<_>>()),
                    enforced: median(&rounds.iter().map(|(_, enforced)| *enforced).collect::<Vec<_>>()),
                }
            })
            .collect()
    }
}

/// The table of docs/benchmarks.md.
pub(crate) fn markdown(rows: &[Row], results: &Results) -> anyhow::Result<String> {
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel release")?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo").context("reading the processor's name")?;
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(':')))
        .map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "# Benchmarks\n\nWritten by `make bench`. Machine: {cores} cores of {cpu}; kernel {}. Two nodes and a router in \
         network namespaces of this one machine, so both ends, both agents and the load share its cores. Each case runs \
         on a pair of nodes without hooks and on an enforced pair (PKI, certificate on the wire, mutual), interleaved \
         in rounds; the ratio is the median of the rounds' ratios. Compare ratios, never absolute numbers.\n\n\
         | case | ratio | min - max | rounds | no hooks | enforced | unit |\n|---|---|---|---|---|---|---|\n",
        kernel.trim()
    );
    for Row { case, ratio, min, max, rounds, unit, bare, enforced } in rows {
        text.push_str(&format!(
            "| {case} | {ratio:.2} | {min:.2} - {max:.2} | {rounds} | {bare:.0} | {enforced:.0} | {unit} |\n"
        ));
    }
    text.push('\n');
    for (name, value) in &results.notes {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str(CASES);
    Ok(text)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What the cases are, below the table.
const CASES: &str = "
- crr-punt: 8 clients connect, exchange one byte each way, close; every segment up to the first answer goes through user
  space at both ends (6 punts per connection). crr-punt-one-client: the same with one client.
- connect-known: how long `connect` takes between identities that know each other.
- first-contact: the first connection of two nodes that never met (certificate and token are verified at both ends), and
  of two workloads that never met on nodes that have.
- bulk, rr-established: bytes, and one-byte round trips, on one established connection: the kernel's map alone.
- agent-rss: the larger agent at the end, after all of the load.
";
