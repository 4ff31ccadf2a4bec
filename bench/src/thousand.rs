//! Many units behind netfilter queues: how long writing their rules takes, and what looking after them costs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use trireme_testkit::lab::{Agent, Lab, Side};

use crate::bed::{Enforcement, agent_program, configs};
use crate::process;

/// Namespaces that are made or removed at a time.
const AT_ONCE: usize = 16;
/// How long the agent is watched when nothing happens.
const IDLE: Duration = Duration::from_secs(20);

/// What came of it.
pub(crate) struct Thousand {
    /// Milliseconds from listing to having written one unit's rules.
    pub(crate) p50: f64,
    /// The same.
    pub(crate) p99: f64,
    /// Cores that the agent and the programs it starts use when nothing happens.
    pub(crate) idle: f64,
}

/// Has an agent enforce that many units, each in a network namespace of its own.
pub(crate) fn measure(program: &Path, units: u32) -> anyhow::Result<Thousand> {
    let program = agent_program(program)?;
    let lab = Lab::new()?;
    let rooms = Rooms::build(&lab, units)?;
    let queues = Enforcement { datapath: "nfqueue", more: rooms.units(), ..Enforcement::default() };
    let (_, [mut config, _]) = configs(&program, &lab, &queues)?;
    config.log_level = "debug";
    let agent = Agent::start(&lab, Side::A, &program, &config)?;
    let mut times: Vec<f64> = agent.log().lines().filter_map(written).collect();
    anyhow::ensure!(times.len() >= rooms.names.len(), "{} rules of {units} units written", times.len());
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len() - 1) * share / 100).copied().context("no times");
    let id = agent.id().context("the agent has ended")?;
    let before = process::cpu_time_with_children(id)?;
    std::thread::sleep(IDLE);
    let idle = (process::cpu_time_with_children(id)? - before).as_secs_f64() / IDLE.as_secs_f64();
    Ok(Thousand { p50: at(50)?, p99: at(99)?, idle })
}

/// Milliseconds, of the line that says so.
fn written(line: &str) -> Option<f64> {
    let (_, time) = line.split_once("rules written").and_then(|(_, rest)| rest.split_once("time="))?;
    let number = time.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(time.len());
    let (number, unit) = time.split_at(number);
    let factor = match unit.split_whitespace().next()? {
        "s" => 1000.0,
        "ms" => 1.0,
        _ => 1e-3,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Network namespaces with nothing in them.
struct Rooms {
    names: Vec<String>,
}

impl Rooms {
    fn build(lab: &Lab, count: u32) -> anyhow::Result<Self> {
        let names: Vec<String> = (0..count).map(|number| format!("tl-{}-k{number}", lab.id())).collect();
        let rooms = Self { names };
        each(&rooms.names, "add")?;
        Ok(rooms)
    }

    fn units(&self) -> String {
        let unit = |(number, name): (usize, &String)| {
            format!(
                "\n[[pu]]\nname = \"unit-{number}\"\nnetns = \"/run/netns/{name}\"\ntags = [\"number={number}\"]\n"
            )
        };
        self.names.iter().enumerate().map(unit).collect()
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        if let Err(error) = each(&self.names, "delete") {
            eprintln!("namespaces stay: {error:#}");
        }
    }
}

fn each(names: &[String], verb: &str) -> anyhow::Result<()> {
    for some in names.chunks(AT_ONCE) {
        let begun = |name: &String| {
            Command::new("ip").args(["netns", verb, name]).stdin(Stdio::null()).spawn().context("ip netns")
        };
        let children: Vec<Child> = some.iter().map(begun).collect::<anyhow::Result<_>>()?;
        for mut child in children {
            anyhow::ensure!(child.wait()?.success(), "ip netns {verb} failed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_unit() {
        assert_eq!(written("DEBUG rules written unit=3 time=13.5ms"), Some(13.5));
        assert_eq!(written("DEBUG rules written unit=3 time=1.25s x"), Some(1250.0));
        assert!((written("rules written time=985.1µs").unwrap() - 0.9851).abs() < 1e-9);
        assert_eq!(written("units written time=985.1µs"), None);
    }
}
