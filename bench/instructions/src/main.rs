//! Instruction counts of the pure core under callgrind, compared with a budget: they do not depend on the machine's mood.
//!
//! `check` runs this program again under valgrind for each case of [`cases::ALL`]; only what happens inside of
//! `measured_section` is counted. A count above the budget by more than a twentieth fails; one below by as much asks
//! for a smaller budget. Counts hold for x86-64 and the toolchain of rust-toolchain.toml.
#![expect(clippy::print_stdout, reason = "results are this program's output")]

mod budget;
mod callgrind;
mod cases;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use budget::Budget;

/// Counts the instructions of the pure core.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares all cases with a budget file; fails if one takes more than 5 % above it.
    Check {
        /// The budget file.
        budget: PathBuf,
    },
    /// Writes a budget file from what is measured now.
    Write {
        /// The budget file.
        budget: PathBuf,
    },
    /// Runs one case; only useful under callgrind.
    Run {
        /// Its name.
        case: String,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run { case } => {
            cases::run(&case)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Write { budget } => {
            Budget::measured()?.save(&budget)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { budget } => {
            let allowed = Budget::load(&budget)?;
            let comparison = Budget::measured()?.compare(&allowed);
            for line in &comparison.lines {
                println!("{line}");
            }
            if comparison.exceeded {
                println!(
                    "above the budget: make it cheaper, or say in the commit why {} grows",
                    budget.display()
                );
                return Ok(ExitCode::FAILURE);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
