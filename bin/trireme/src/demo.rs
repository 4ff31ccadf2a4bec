//! `trireme demo`: two nodes in network namespaces, four tiers of real programs, six checks.
//!
//! Nothing of the machine's own network is used, and everything is removed at the end.

mod checks;
mod interrupt;
mod latency;
mod matrix;
mod report;
mod requirements;
mod services;
mod stage;
mod tier;

use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::exit::{Answer, Blame, Outcome};
use crate::output;
use report::Report;
use stage::Stage;

/// `trireme demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme demo
  trireme demo --format json > demo.json
  trireme demo --keep

Needs root and, from apt: iproute2 nftables conntrack nginx redis-server redis-tools curl.
Exit code 1 if any expectation fails.")]
pub(crate) struct DemoArgs {
    /// How to print the result.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: DemoFormat,
    /// What enforces.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub(crate) datapath: DemoDatapath,
    /// Leave the namespaces and their programs' files in place, for a look at them.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoFormat {
    /// Matrices and checks, in colour on a terminal.
    Table,
    /// One JSON object.
    Json,
}

/// What enforces in the demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoDatapath {
    /// The best the kernel offers.
    Auto,
    /// BPF programs.
    Bpf,
    /// Netfilter queues.
    Nfqueue,
}

impl DemoDatapath {
    const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Bpf => "bpf",
            Self::Nfqueue => "nfqueue",
        }
    }
}

/// Runs the demonstration and prints what came of it.
pub(crate) fn run(arguments: &DemoArgs) -> Outcome {
    requirements::check().runtime()?;
    let report = perform(arguments).runtime()?;
    let text = match arguments.format {
        DemoFormat::Table => report.to_table(output::Colour::of_stdout()),
        DemoFormat::Json => report.to_json().runtime()?,
    };
    output::print(&text).runtime()?;
    Ok(if report.passed() { Answer::Yes } else { Answer::No })
}

fn perform(arguments: &DemoArgs) -> anyhow::Result<Report> {
    let start = Instant::now();
    let step = |text: &str| -> anyhow::Result<()> {
        interrupt::check()?;
        eprintln!("[{:5.1} s] {text}", start.elapsed().as_secs_f64());
        Ok(())
    };
    interrupt::watch()?;
    step("building two nodes, a router and four tiers on each node")?;
    let mut stage = Stage::build()?;
    if arguments.keep {
        stage.keep();
    }
    step("measuring connects without enforcement")?;
    let mut latency = latency::Samples::default();
    latency.bare(&stage)?;
    step("starting two agents with keys of one authority")?;
    stage.start_agents(arguments.datapath.name())?;
    let datapath = stage.datapath()?;
    latency.first_contact(&stage)?;
    step("trying every tier against every tier: same node and across, IPv4 and IPv6")?;
    let matrix = matrix::run(&stage)?;
    let mut checks = vec![matrix::summary(&matrix)];
    step("an impostor takes a frontend's address")?;
    checks.push(checks::impostor(&stage)?);
    step("source translation, then a service address")?;
    checks.push(checks::translation(&stage)?);
    step("asking both agents why a connection was refused")?;
    checks.push(checks::explanation(&stage)?);
    step("playing a recorded handshake again")?;
    checks.push(checks::replay(&mut stage)?);
    step("measuring connects between known and unknown identities")?;
    latency.known(&stage)?;
    latency.more_first_contacts(&mut stage)?;
    checks.push(latency.check());
    if arguments.keep {
        eprintln!("kept: {}", stage.whereabouts());
        step("ending all programs")?;
    } else {
        step("removing everything")?;
    }
    drop(stage);
    Ok(Report {
        datapath,
        matrix,
        checks,
        latency_us: latency.summary(),
        seconds: start.elapsed().as_secs_f64(),
    })
}
