//! The first connection of two workloads: between nodes that never met, and between nodes that have.

use std::path::Path;
use std::time::Duration;

use trireme_testkit::lab::{Agent, AgentConfig, AgentProgram, Family, Lab, Pu, Side};

use crate::bed::{self, Enforcement};
use crate::load;
use crate::report::Results;

/// Pairs of workloads; the first pair also introduces the nodes to each other.
const PAIRS: usize = 5;
const PORT: u16 = 9000;

/// Workloads in pairs that meet for the first time whenever the agents begin anew.
pub(crate) struct Strangers {
    lab: Lab,
    pairs: Vec<(Pu, Pu)>,
    program: AgentProgram,
    configs: [AgentConfig; 2],
}

impl Strangers {
    /// Namespaces and settings, no agents yet.
    pub(crate) fn build(program: &Path) -> anyhow::Result<Self> {
        let program = bed::agent_program(program)?;
        let mut lab = Lab::new()?;
        let (_, [mut a, mut b]) = bed::configs(&program, &lab, &Enforcement::default())?;
        let mut pairs = Vec::new();
        for number in 0..PAIRS {
            let client = lab.add_pu(Side::A, &format!("client-{number}"))?;
            let server = lab.add_pu(Side::B, &format!("server-{number}"))?;
            bed::prepare(&client)?;
            bed::prepare(&server)?;
            let number = format!("number={number}");
            a = a.with(&client, &["role=client", &number]);
            b = b.with(&server, &["role=server", &number]);
            pairs.push((client, server));
        }
        Ok(Self { lab, pairs, program, configs: [a, b] })
    }

    /// Each pair without agents, then with agents that know nothing.
    pub(crate) fn meet(&self, results: &mut Results) -> anyhow::Result<()> {
        // Neighbours are resolved before the clock runs.
        self.contacts()?;
        let bare = self.contacts()?;
        let [a, b] = &self.configs;
        let agents = [
            Agent::start(&self.lab, Side::A, &self.program, a)?,
            Agent::start(&self.lab, Side::B, &self.program, b)?,
        ];
        let enforced = self.contacts();
        drop(agents);
        for side in Side::BOTH {
            std::fs::remove_dir_all(self.lab.dir().join(format!("agent-{side}")))?;
        }
        for (number, (bare, enforced)) in bare.into_iter().zip(enforced?).enumerate() {
            let case = if number == 0 { "first-contact-unknown-node" } else { "first-contact-known-node" };
            results.pair(case, "us", micros(bare), micros(enforced));
        }
        Ok(())
    }

    fn contacts(&self) -> anyhow::Result<Vec<Duration>> {
        let contact = |(client, server): &(Pu, Pu)| {
            load::connect_once(&client.namespace, &server.namespace, server.at(Family::V4, PORT))
        };
        self.pairs.iter().map(contact).collect()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
