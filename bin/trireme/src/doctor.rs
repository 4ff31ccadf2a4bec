//! `trireme doctor`: looks at the machine and at a configuration, changes nothing, says what would be in the way.
//!
//! Every check is a function over what was read; the readers ask files of the kernel, netlink and programs. Rule back
//! ends are tried in a throw-away network namespace, as the data path itself does it.

mod choice;
mod clock;
mod configured;
mod conntrack;
mod finding;
mod foreign;
mod interfaces;
mod kernel;
mod keys;
mod mtu;
mod neighbours;
mod queues;
mod read;
mod state_dir;
mod units;

use crate::cli::{DoctorArgs, DoctorFormat};
use crate::config::{Config, DatapathKind, RulesKind};
use crate::exit::{Answer, Blame, Outcome};
use crate::output;

use choice::Abilities;
use finding::{Finding, Report};

/// Runs the verb.
pub(crate) fn run(arguments: &DoctorArgs) -> Outcome {
    let (config, mut findings) = match &arguments.config {
        Some(path) => configured::load(path),
        None => (None, Vec::new()),
    };
    findings.extend(examine(config.as_ref()));
    let report = Report::of(findings);
    let text = match arguments.output {
        DoctorFormat::Json => format!("{}\n", serde_json::to_string_pretty(&report).runtime()?),
        DoctorFormat::Table => report.to_table(crate::output::Colour::of_stdout()),
    };
    output::print(&text).runtime()?;
    Ok(if report.healthy { Answer::Yes } else { Answer::No })
}

/// Everything but the configuration's own text.
fn examine(config: Option<&Config>) -> Vec<Finding> {
    let kind = config.map_or(DatapathKind::Auto, |config| config.datapath.kind);
    let abilities = Abilities::probe(config.map_or(RulesKind::Auto, |config| config.datapath.rules));
    let held = config.map(crate::agent::choice::Held::of).unwrap_or_default();
    let chosen = choice::judge(kind, &abilities, held);
    let mut findings = choice::capabilities(kind, &abilities);
    findings.extend(kernel::look(kind, &abilities, config));
    findings.extend(queues::look(kind, &abilities));
    findings.push(chosen.finding());
    findings.extend(conntrack::look(config, chosen.kind()));
    findings.extend(mtu::look(config));
    findings.extend(interfaces::look(config));
    findings.extend(neighbours::look(config));
    // Queues are behind all programs, whoever attached them.
    if chosen.kind() != Some(DatapathKind::Nfqueue) {
        findings.extend(foreign::look(config));
    }
    findings.push(clock::look());
    if let Some(config) = config {
        findings.extend(configured::look(config));
        findings.push(state_dir::look(&config.node.state_dir));
        findings.extend(units::look(config, chosen.kind()));
        findings.extend(keys::look(config));
    }
    findings
}
