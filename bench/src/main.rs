//! Benchmarks on the real kernel: the same load over an enforced and an unhooked pair of nodes.
//!
//! Start with [`bed::Bed`] (two nodes and their workloads) and [`report::Row`] (one line of the table). Cases are
//! interleaved in rounds, because absolute numbers of a shared machine mean nothing: only ratios within one run are
//! reported. Traffic stays inside namespaces that this program makes and removes. Nothing here decides pass or fail.
#![expect(clippy::print_stdout, reason = "results are this program's output")]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

mod bed;
mod contact;
mod cut;
mod decide;
mod flood;
mod floor;
mod kernel;
mod load;
mod probe;
mod process;
mod profile;
mod report;
mod suite;
mod thousand;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use trireme_testkit::lab::Family;

use report::{Results, Row};
use suite::Extent;

/// Measures what enforcement costs, in network namespaces of this machine (root).
#[derive(Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long, default_value = "target/release/trireme", global = true)]
    program: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All cases: JSON lines, and a table if wanted. Takes a quarter of an hour.
    Run {
        /// How many interleaved rounds.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Milliseconds of each load.
        #[arg(long, default_value_t = 4000)]
        milliseconds: u64,
        /// Where criterion left its results, to report those of decide().
        #[arg(long)]
        criterion: Option<PathBuf>,
        /// Writes the JSON lines to this file as well.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Writes the tables to this Markdown file.
        #[arg(long)]
        table: Option<PathBuf>,
    },
    /// At most a minute: three short rounds, one JSON line for each case, of several forms the worst.
    Quick,
    /// Ten seconds: connections per second over no hooks, nanoseconds per program.
    Probe {
        /// How many interleaved rounds.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Milliseconds of each load.
        #[arg(long, default_value_t = 1000)]
        milliseconds: u64,
        /// How many clients at once.
        #[arg(long, default_value_t = 8)]
        clients: u16,
        /// By IPv6.
        #[arg(long)]
        ipv6: bool,
    },
    /// The cases of the nfqueue data path only.
    Queues {
        /// How many interleaved rounds.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Milliseconds of each load.
        #[arg(long, default_value_t = 1000)]
        milliseconds: u64,
        /// How many units have their rules written at the end.
        #[arg(long, default_value_t = 1000)]
        units: u32,
    },
}

fn main() -> anyhow::Result<()> {
    let Arguments { program, command } = Arguments::parse();
    match command {
        Command::Run { rounds, milliseconds, criterion, json, table } => {
            let time = Duration::from_millis(milliseconds);
            let mut outcome = suite::run(&program, Extent { rounds, time, quick: false })?;
            if let Some(dir) = criterion {
                decide::report(&dir, &mut outcome.results)?;
            }
            let lines = lines(&outcome.results.rows(), &outcome.results)?;
            print!("{lines}");
            if let Some(path) = json {
                write(&path, &lines)?;
            }
            if let Some(path) = table {
                write(&path, &report::markdown(&outcome.results, &outcome.profiles)?)?;
            }
            Ok(())
        }
        Command::Quick => {
            let extent = Extent { rounds: 3, time: Duration::from_millis(300), quick: true };
            let outcome = suite::run(&program, extent)?;
            print!("{}", lines(&outcome.results.worst(), &outcome.results)?);
            Ok(())
        }
        Command::Probe { rounds, milliseconds, clients, ipv6 } => {
            let family = if ipv6 { Family::V6 } else { Family::V4 };
            probe::run(&program, rounds, Duration::from_millis(milliseconds), clients, family)
        }
        Command::Queues { rounds, milliseconds, units } => {
            let results = suite::queues(&program, rounds, Duration::from_millis(milliseconds), units)?;
            print!("{}", lines(&results.rows(), &results)?);
            Ok(())
        }
    }
}

/// One JSON object a line.
fn lines(rows: &[Row], results: &Results) -> anyhow::Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(&row.rounded())?);
        text.push('\n');
    }
    for value in results.values() {
        text.push_str(&serde_json::to_string(&value.rounded())?);
        text.push('\n');
    }
    Ok(text)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
