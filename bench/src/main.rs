//! Benchmarks on the real kernel: the same load over an enforced and an unhooked pair of nodes.
//!
//! Start with [`bed::Bed`] (two nodes and their workloads) and [`report::Row`] (one line of the table). Cases are
//! interleaved in rounds, because absolute numbers of a shared machine mean nothing: only ratios within one run are
//! reported. Traffic stays inside namespaces that this program makes and removes. Nothing here decides pass or fail.
#![expect(clippy::print_stdout, reason = "results are this program's output")]

mod bed;
mod load;
mod probe;
mod process;
mod profile;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use trireme_testkit::lab::Family;

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
}

fn main() -> anyhow::Result<()> {
    let Arguments { program, command } = Arguments::parse();
    match command {
        Command::Probe { rounds, milliseconds, clients, ipv6 } => {
            let family = if ipv6 { Family::V6 } else { Family::V4 };
            probe::run(&program, rounds, Duration::from_millis(milliseconds), clients, family)
        }
    }
}
