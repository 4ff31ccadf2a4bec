//! The stage: two nodes, a replica of every tier on each, an agent per node.

use std::collections::BTreeMap;
use std::env;

use anyhow::Context;
use trireme_testkit::lab::{Agent, AgentConfig, AgentProgram, Authority, Lab, Process, Pu, Side};

use super::services;
use super::tier::Tier;

/// The policy of the demonstration, the same file that `examples/three-tier` shows.
const POLICY: &str = include_str!("../../../../examples/three-tier/policy.yaml");

/// Everything that runs. Fields are dropped in this order: agents, programs, namespaces.
pub(super) struct Stage {
    agents: Vec<Agent>,
    _services: Vec<Process>,
    replicas: BTreeMap<(Side, Tier), Pu>,
    callers: BTreeMap<Tier, Pu>,
    configs: Vec<(Side, AgentConfig)>,
    pub(super) lab: Lab,
}

impl Stage {
    /// Builds nodes and workloads and starts the programs; nothing is enforced yet.
    pub(super) fn build() -> anyhow::Result<Self> {
        let mut lab = Lab::new()?;
        let mut replicas = BTreeMap::new();
        let mut callers = BTreeMap::new();
        for side in Side::BOTH {
            for tier in Tier::ALL {
                replicas.insert((side, tier), lab.add_pu(side, &format!("{tier}-{side}"))?);
            }
        }
        for tier in Tier::ALL {
            // A replica that calls itself never leaves its namespace: on one node, tiers call from a second one.
            callers.insert(tier, lab.add_pu(Side::A, &format!("{tier}-a-second"))?);
        }
        let mut services = Vec::new();
        for ((_, tier), pu) in &replicas {
            services.push(services::start(pu, *tier, lab.dir())?);
        }
        Ok(Self { agents: Vec::new(), _services: services, replicas, callers, configs: Vec::new(), lab })
    }

    /// Makes keys and starts both agents.
    pub(super) fn start_agents(&mut self, datapath: &'static str) -> anyhow::Result<()> {
        let program = AgentProgram::new(env::current_exe().context("cannot find the running program")?);
        let authority = Authority::create(&program, self.lab.dir(), "demo-ca")?;
        for side in Side::BOTH {
            let name = self.lab.node(side).name();
            let trust = authority.issue(&name, &["tier=*", "app=three-tier"])?.with_certificate(&authority);
            let mut config = AgentConfig { datapath, ..AgentConfig::new(&name, trust, POLICY) };
            let callers = self.callers.iter().map(|(tier, pu)| (*tier, pu));
            let units = self.replicas.iter().map(|((_, tier), pu)| (*tier, pu)).chain(callers);
            for (tier, pu) in units.filter(|(_, pu)| pu.side == side) {
                config.pus.push((pu.clone(), tier.tags().to_vec()));
            }
            self.agents.push(Agent::start(&self.lab, side, &program, &config)?);
            self.configs.push((side, config));
        }
        Ok(())
    }

    /// Starts both agents on nodes that have never met: nothing of what they knew is left, in the kernel or on disk.
    pub(super) fn begin_anew(&mut self) -> anyhow::Result<()> {
        for agent in &mut self.agents {
            agent.stop()?;
            agent.clean_up()?;
            let state = agent.policy_file().with_file_name("state");
            std::fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
        }
        for (agent, (_, config)) in self.agents.iter_mut().zip(&self.configs) {
            agent.restart(&self.lab, config)?;
        }
        Ok(())
    }

    /// The replica of a tier on a node.
    pub(super) fn replica(&self, side: Side, tier: Tier) -> anyhow::Result<&Pu> {
        self.replicas.get(&(side, tier)).with_context(|| format!("there is no {tier} on node {side}"))
    }

    /// The workload that calls from this tier: on one node never the replica it calls.
    pub(super) fn caller(&self, from: Tier, to: Tier, to_side: Side) -> anyhow::Result<&Pu> {
        match self.callers.get(&from) {
            Some(second) if from == to && to_side == Side::A => Ok(second),
            _ => self.replica(Side::A, from),
        }
    }

    /// What enforces, as the agent of the first node says.
    pub(super) fn datapath(&self) -> anyhow::Result<String> {
        let status = self.agent(Side::A)?.status()?;
        let kind = status.pointer("/datapath/kind").and_then(|kind| kind.as_str());
        Ok(kind.context("the agent does not say what enforces")?.to_owned())
    }

    /// The agent of a node.
    pub(super) fn agent(&self, side: Side) -> anyhow::Result<&Agent> {
        self.agents.iter().find(|agent| agent.side() == side).context("the agents do not run yet")
    }

    /// Leaves namespaces and files in place.
    pub(super) const fn keep(&mut self) {
        self.lab.keep();
    }

    /// Where namespaces and files are.
    pub(super) fn whereabouts(&self) -> String {
        let (id, dir) = (self.lab.id(), self.lab.dir().display());
        format!(
            "namespaces tl-{id}-*, logs and configurations in {dir}; remove them with\n  \
             ip netns list | awk '/^tl-{id}-/ {{print $1}}' | xargs -n1 ip netns del; umount {dir}/bpf; rm -r {dir}"
        )
    }
}
