//! The pairs of nodes that are measured: one without any hook, one with agents on both nodes.

use std::path::Path;

use anyhow::Context;
use trireme_testkit::lab::{Agent, AgentConfig, AgentProgram, Authority, Family, Lab, Pu, Side};

use crate::load;

const POLICY: &str = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress:
  - name: clients
    from: [{role: client}]
    ports: [9000-9100/tcp]
";

/// A client on node a, a server on node b, perhaps agents on both. Agents are dropped first.
#[derive(Debug)]
pub(crate) struct Pair {
    agents: Vec<Agent>,
    /// Where the load comes from.
    pub(crate) client: Pu,
    second_client: Pu,
    /// Where it goes to.
    pub(crate) server: Pu,
    _lab: Lab,
}

/// Both pairs at once.
#[derive(Debug)]
pub(crate) struct Arena {
    bare: Pair,
    enforced: Pair,
}

impl Arena {
    /// Builds both pairs; the enforced one's identities know each other.
    pub(crate) fn build(program: &Path) -> anyhow::Result<Self> {
        let arena = Self { bare: Pair::bare(program)?, enforced: Pair::enforced(program)? };
        arena.both(|pair| load::connect_latency(pair, 10))?;
        Ok(arena)
    }

    /// Runs a case on the unhooked pair, then on the enforced one.
    pub(crate) fn both<T>(&self, case: impl Fn(&Pair) -> anyhow::Result<T>) -> anyhow::Result<[T; 2]> {
        let bare = case(&self.bare).context("on the pair without hooks")?;
        let enforced = case(&self.enforced).context("on the enforced pair")?;
        Ok([bare, enforced])
    }

    /// Resident memory of the larger agent in KiB.
    pub(crate) fn agent_memory_kib(&self) -> anyhow::Result<u64> {
        let mut largest = 0;
        for id in self.enforced.agents.iter().filter_map(Agent::id) {
            largest = largest.max(memory_kib(id)?);
        }
        Ok(largest)
    }
}

impl Pair {
    /// Namespaces only.
    pub(crate) fn bare(program: &Path) -> anyhow::Result<Self> {
        Self::build(program, false)
    }

    /// Namespaces and an agent on each node, PKI with certificates on the wire, mutual authorization.
    pub(crate) fn enforced(program: &Path) -> anyhow::Result<Self> {
        Self::build(program, true)
    }

    fn build(program: &Path, enforce: bool) -> anyhow::Result<Self> {
        let program = program.canonicalize().with_context(|| format!("finding {}", program.display()))?;
        let program = AgentProgram::new(program);
        let mut lab = Lab::new()?;
        let client = lab.add_pu(Side::A, "client")?;
        let second_client = lab.add_pu(Side::A, "second-client")?;
        let server = lab.add_pu(Side::B, "server")?;
        for pu in [&client, &second_client, &server] {
            pu.namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
            // Else the search for a free port, not the connection, is what later cases measure.
            pu.namespace.sysctl("net/ipv4/tcp_max_tw_buckets", "4096")?;
        }
        let mut agents = Vec::new();
        if enforce {
            let authority = Authority::create(&program, lab.dir(), "ca")?;
            let a = AgentConfig::new(
                "node-a",
                authority.issue("node-a", &[])?.with_certificate(&authority),
                POLICY,
            )
            .with(&client, &["role=client"])
            .with(&second_client, &["role=client", "number=two"])
            .quiet();
            let b = AgentConfig::new(
                "node-b",
                authority.issue("node-b", &[])?.with_certificate(&authority),
                POLICY,
            )
            .with(&server, &["role=server"])
            .quiet();
            agents.push(Agent::start(&lab, Side::A, &program, &a)?);
            agents.push(Agent::start(&lab, Side::B, &program, &b)?);
        }
        Ok(Self { agents, client, second_client, server, _lab: lab })
    }

    /// Microseconds of two first connections: between nodes that never met, then between two workloads that never
    /// met on nodes that have.
    pub(crate) fn first_contacts(&self) -> anyhow::Result<[f64; 2]> {
        let to = self.server.at(Family::V4, 9001);
        let unknown = load::connect_once(&self.client.namespace, &self.server.namespace, to)?;
        let known = load::connect_once(&self.second_client.namespace, &self.server.namespace, to)?;
        Ok([unknown, known])
    }
}

fn memory_kib(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).context("VmRSS is no number")
}
