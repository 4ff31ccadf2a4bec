//! Benchmarks on the real kernel: the same load over an enforced and an unhooked pair of nodes.
//!
//! Start with [`arena::Arena`] (the two pairs) and [`report::Row`] (one line of the table). Cases are interleaved in
//! rounds, because absolute numbers of a shared machine mean nothing: only ratios within one run are reported.
//! Traffic stays inside namespaces that this program makes and removes. Nothing here decides pass or fail.
#![expect(clippy::print_stdout, reason = "results are this program's output")]

mod arena;
mod load;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use arena::{Arena, Pair};
pub(crate) use report::Latency;
use report::Results;

/// Measures what enforcement costs. Example: trireme-bench --rounds 5 --table docs/benchmarks.md
#[derive(Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long, default_value = "target/release/trireme")]
    program: PathBuf,
    /// How many interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of load per case and round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// At most a minute: three short rounds of the main cases, JSON lines only.
    #[arg(long)]
    quick: bool,
    /// Writes the table to this Markdown file.
    #[arg(long)]
    table: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (rounds, seconds) = if arguments.quick { (3, 1) } else { (arguments.rounds, arguments.seconds) };
    let mut results = Results::default();
    let arena = Arena::build(&arguments.program)?;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        measure(&arena, Duration::from_secs(seconds), &mut results)?;
    }
    first_contact(&arguments.program, if arguments.quick { 2 } else { rounds }, &mut results)?;
    results.note("agent-rss-kib", arena.agent_memory_kib()?);

    let rows = results.rows();
    for row in &rows {
        println!("{}", serde_json::to_string(row)?);
    }
    if let Some(path) = arguments.table {
        let text = report::markdown(&rows, &results)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// One round: every case on the unhooked pair, then on the enforced one.
fn measure(arena: &Arena, time: Duration, results: &mut Results) -> anyhow::Result<()> {
    for (case, clients) in [("crr-punt", 8), ("crr-punt-one-client", 1)] {
        let [bare, enforced] = arena.both(|pair| load::connections(pair, clients, time))?;
        results.pair(case, "connections/s", bare, enforced);
    }
    let [bare, enforced] = arena.both(|pair| load::round_trips(pair, time))?;
    results.pair("rr-established", "round trips/s", bare, enforced);
    let [bare, enforced] = arena.both(|pair| load::bulk(pair, time))?;
    results.pair("bulk", "bytes/s", bare, enforced);
    let [bare, enforced] = arena.both(|pair| load::connect_latency(pair, 400))?;
    results.pair("connect-known-p50", "us", bare.p50, enforced.p50);
    results.pair("connect-known-p99", "us", bare.p99, enforced.p99);
    Ok(())
}

/// The first connection between two nodes that never met: agents are started afresh for each sample.
fn first_contact(program: &std::path::Path, samples: u32, results: &mut Results) -> anyhow::Result<()> {
    let bare = Pair::bare(program)?;
    for _ in 0..samples {
        let [unknown, known_node] = Pair::enforced(program)?.first_contacts()?;
        let plain = load::connect_latency(&bare, 20)?.p50;
        results.pair("first-contact-unknown-node", "us", plain, unknown);
        results.pair("first-contact-known-node", "us", plain, known_node);
    }
    Ok(())
}
