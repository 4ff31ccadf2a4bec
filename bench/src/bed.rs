//! What is measured: two nodes with a router between them, workloads, perhaps an agent on each node.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use trireme_testkit::lab::{Agent, AgentConfig, AgentProgram, Authority, Family, Lab, NodeKeys, Pu, Side};

use crate::kernel::Maps;
use crate::{load, process};

/// What the server's side allows: ports of the cases, from clients.
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

/// Sockets of a benchmark, not of a machine on the internet: many ports, few of them waiting, no endless patience.
const SYSCTLS: [(&str, &str); 5] = [
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    ("net/ipv4/tcp_max_tw_buckets", "4096"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/tcp_syn_retries", "2"),
    ("net/ipv4/tcp_retries2", "5"),
];

/// How the agents of a bed are set up.
#[derive(Clone, Debug)]
pub(crate) struct Enforcement {
    /// `bpf` or `nfqueue`.
    pub(crate) datapath: &'static str,
    /// Whether known identities stay in the kernel.
    pub(crate) fast_path: bool,
    /// Seconds that a token lives.
    pub(crate) lifetime_secs: u64,
    /// Workloads on each node that only have an interface.
    pub(crate) fillers: u16,
    /// More of the configuration file.
    pub(crate) more: String,
    /// Whether there are workloads beside the main load.
    pub(crate) others: bool,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            datapath: "bpf",
            fast_path: true,
            lifetime_secs: 3600,
            fillers: 0,
            more: String::new(),
            others: false,
        }
    }
}

/// Who connects to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// Where the load comes from.
    pub(crate) client: &'a Pu,
    /// Where it goes to.
    pub(crate) server: &'a Pu,
    /// By which addresses.
    pub(crate) family: Family,
}

/// Whoever is not part of the main load.
#[derive(Debug)]
pub(crate) struct Others {
    /// A workload on the client's node that no policy admits.
    pub(crate) denied: Pu,
    /// Workloads that no agent knows: of node a, of node b.
    pub(crate) bystanders: [Pu; 2],
}

/// Client and server, and whoever else takes part. Agents are dropped first.
#[derive(Debug)]
pub(crate) struct Bed {
    /// Its agents: of node a, of node b; none without hooks.
    pub(crate) agents: Vec<Agent>,
    configs: Vec<AgentConfig>,
    /// Keys of node a.
    pub(crate) keys: Option<NodeKeys>,
    /// When the agents began.
    pub(crate) began: Instant,
    /// Where the load comes from.
    pub(crate) client: Pu,
    /// Where it goes to.
    pub(crate) server: Pu,
    others: Option<Others>,
    /// The namespaces.
    pub(crate) lab: Lab,
}

impl Others {
    /// Between workloads that no agent knows.
    pub(crate) const fn way(&self) -> Way<'_> {
        let [client, server] = &self.bystanders;
        Way { client, server, family: Family::V4 }
    }
}

impl Bed {
    /// Namespaces only.
    pub(crate) fn bare(program: &Path) -> anyhow::Result<Self> {
        Self::build(program, None)
    }

    /// Namespaces and an agent on each node: PKI, certificate on the wire, mutual authorization.
    pub(crate) fn enforced(program: &Path, enforcement: &Enforcement) -> anyhow::Result<Self> {
        Self::build(program, Some(enforcement))
    }

    fn build(program: &Path, enforcement: Option<&Enforcement>) -> anyhow::Result<Self> {
        let program = agent_program(program)?;
        let mut lab = Lab::new()?;
        let client = lab.add_pu(Side::A, "client")?;
        let server = lab.add_pu(Side::B, "server")?;
        let others = match enforcement {
            Some(Enforcement { others: false, .. }) => None,
            Some(_) | None => Some(Others {
                denied: lab.add_pu(Side::A, "denied")?,
                bystanders: [lab.add_pu(Side::A, "bystander")?, lab.add_pu(Side::B, "bystander")?],
            }),
        };
        let extra = others.iter().flat_map(|others| others.bystanders.iter().chain([&others.denied]));
        for pu in extra.chain([&client, &server]) {
            prepare(pu)?;
        }
        let mut bed = Self {
            agents: Vec::new(),
            configs: Vec::new(),
            keys: None,
            began: Instant::now(),
            client,
            server,
            others,
            lab,
        };
        if let Some(enforcement) = enforcement {
            let (keys, [a, b]) = configs(&program, &bed.lab, enforcement)?;
            bed.keys = Some(keys);
            let mut a = a.with(&bed.client, &["role=client"]);
            if let Some(others) = &bed.others {
                a = a.with(&others.denied, &["role=stranger"]);
            }
            let b = b.with(&bed.server, &["role=server"]);
            bed.configs.push(with_fillers(a, &bed.lab, &bed.client, enforcement.fillers)?);
            bed.configs.push(with_fillers(b, &bed.lab, &bed.server, enforcement.fillers)?);
            for (side, config) in Side::BOTH.into_iter().zip(&bed.configs) {
                bed.agents.push(Agent::start(&bed.lab, side, &program, config)?);
            }
            bed.began = Instant::now();
        }
        Ok(bed)
    }

    /// From client to server.
    pub(crate) const fn way(&self, family: Family) -> Way<'_> {
        Way { client: &self.client, server: &self.server, family }
    }

    /// The workloads beside the main load.
    pub(crate) fn others(&self) -> anyhow::Result<&Others> {
        self.others.as_ref().context("this bed has nobody beside client and server")
    }

    /// Packets that went to user space at both nodes; not a number where there are no such counters.
    pub(crate) fn punts(&self) -> f64 {
        let count = |side| Maps::of(self, side).and_then(|maps| maps.punts());
        Side::BOTH.into_iter().map(|side| count(side).map_or(f64::NAN, load::approximate)).sum()
    }

    /// Process ids of the agents.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.agents.iter().filter_map(Agent::id).collect()
    }

    /// Largest resident memory of its agents so far, in KiB.
    pub(crate) fn memory_kib(&self) -> anyhow::Result<u64> {
        let mut largest = 0;
        for id in self.processes() {
            largest = largest.max(process::resident_kib(id)?);
        }
        Ok(largest)
    }
}

/// The program under test, found from everywhere.
pub(crate) fn agent_program(program: &Path) -> anyhow::Result<AgentProgram> {
    let path = program.canonicalize().with_context(|| format!("finding {}", program.display()))?;
    Ok(AgentProgram::new(path))
}

/// The keys of node a and the settings of both agents, without workloads.
pub(crate) fn configs(
    program: &AgentProgram,
    lab: &Lab,
    enforcement: &Enforcement,
) -> anyhow::Result<(NodeKeys, [AgentConfig; 2])> {
    let authority = Authority::create(program, lab.dir(), "ca")?;
    let config = |node: &str, keys: &NodeKeys| {
        let mut config = AgentConfig::new(node, keys.with_certificate(&authority), POLICY).quiet();
        config.datapath = enforcement.datapath;
        config.lifetime_secs = enforcement.lifetime_secs;
        config.more.clone_from(&enforcement.more);
        if !enforcement.fast_path {
            config.enforcement = "fast_path = \"off\"\n".to_owned();
        }
        config
    };
    let keys = authority.issue("node-a", &[])?;
    let a = config("node-a", &keys);
    let b = config("node-b", &authority.issue("node-b", &[])?);
    Ok((keys, [a, b]))
}

/// Sets what the sockets of a workload need.
pub(crate) fn prepare(pu: &Pu) -> anyhow::Result<()> {
    for (key, value) in SYSCTLS {
        pu.namespace.sysctl(key, value)?;
    }
    Ok(())
}

/// Adds workloads beside `neighbour` that consist of an interface pair in the node.
fn with_fillers(
    mut config: AgentConfig,
    lab: &Lab,
    neighbour: &Pu,
    count: u16,
) -> anyhow::Result<AgentConfig> {
    let mut batch = String::new();
    for number in 0..count {
        batch.push_str(&format!(
            "link add fill{number} type veth peer name wl{number}\n\
             link set fill{number} up\nlink set wl{number} up\n"
        ));
        let name = format!("filler-{number}");
        let pu = Pu { name, interface: format!("fill{number}"), ..neighbour.clone() };
        config = config.with(&pu, &["role=filler", &format!("number={number}")]);
    }
    lab.node(neighbour.side).namespace.ip(&batch)?;
    Ok(config)
}
