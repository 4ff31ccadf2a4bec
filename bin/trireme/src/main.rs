//! The one program: `trireme agent`, `keys`, `flows`, `status`, `explain`, `doctor`, `demo`.
//!
//! Start with [`cli::Cli`] (what can be asked) and [`exit::Failure`] (how a verb fails). One file per verb; this
//! one only wires. Nothing here judges packets or policies: the verbs call the library and print.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests fail by panicking")
)]

mod agent;
mod cli;
mod config;
mod demo;
mod doctor;
mod exit;
mod explain;
mod flows;
mod keys;
mod output;
mod psk_env;
mod status;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};

fn main() -> ExitCode {
    exit::code(match Cli::parse().verb {
        Verb::Agent(arguments) => agent::run(&arguments),
        Verb::Keys(arguments) => keys::run(&arguments.verb),
        Verb::Flows(arguments) => flows::run(&arguments),
        Verb::Status(arguments) => status::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
    })
}
