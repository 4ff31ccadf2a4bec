//! Two hosts whose units are cgroups of their own: a client and a stranger on host a, a server on host b.

use std::net::SocketAddr;
use std::time::Duration;

use trireme_testkit::lab::{
    Agent, AgentConfig, Authority, Cgroup, Family, Lab, Namespace, Reach, Server, Side, connect, probe,
};

use crate::{POLICY, PORT, PROMPT, program};

/// A unit of a host.
#[derive(Debug)]
pub struct HostUnit {
    /// Its host.
    pub host: Namespace,
    /// Its processes.
    pub cgroup: Cgroup,
}

impl HostUnit {
    /// Runs code in the unit, on its host.
    ///
    /// # Panics
    /// If it cannot be entered.
    pub fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        self.cgroup.enter(|| self.host.enter(code)).flatten().expect("the unit can be entered")
    }

    /// What a process of the unit sees of a server.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn sees(&self, to: SocketAddr, limit: Duration) -> Reach {
        let seen = self.cgroup.enter(|| probe(&self.host, to, limit));
        seen.flatten().expect("the unit's stack works")
    }

    /// Opens a connection from a process of the unit.
    ///
    /// # Panics
    /// If it is not answered in time.
    #[must_use]
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> std::net::TcpStream {
        let connected = self.cgroup.enter(|| connect(&self.host, to, limit));
        connected.flatten().unwrap_or_else(|error| panic!("{to}: {error}"))
    }

    /// An echo server among the unit's processes.
    ///
    /// # Panics
    /// If the port cannot be had.
    #[must_use]
    pub fn echo(&self, port: u16) -> Server {
        self.cgroup.enter(|| Server::echo(&self.host, port)).flatten().expect("the unit can listen")
    }
}

/// Two hosts under enforcement. Fields are dropped in this order: agents, then cgroups, then namespaces.
#[derive(Debug)]
pub struct Hosts {
    /// The agent of host a.
    pub a: Agent,
    /// The agent of host b.
    pub b: Agent,
    /// On host a, `role=client`: allowed.
    pub client: HostUnit,
    /// On host a, `role=stranger`: refused.
    pub stranger: HostUnit,
    /// On host b, `role=server`.
    pub server: HostUnit,
    /// Everything else.
    pub lab: Lab,
}

/// What the hosts will be; change it before they start.
#[derive(Debug)]
pub struct HostsSpec {
    /// The agent of host a.
    pub a: AgentConfig,
    /// The agent of host b.
    pub b: AgentConfig,
    /// On host a, `role=client`.
    pub client: HostUnit,
    /// On host a, `role=stranger`.
    pub stranger: HostUnit,
    /// On host b, `role=server`.
    pub server: HostUnit,
    /// The namespaces.
    pub lab: Lab,
}

impl HostsSpec {
    /// Namespaces, cgroups, keys and settings.
    ///
    /// # Panics
    /// If the machine or the program does not do its part.
    #[must_use]
    pub fn new() -> Self {
        let lab = Lab::new().expect("the lab can be built");
        let unit = |side, name| HostUnit {
            host: lab.node(side).namespace.clone(),
            cgroup: Cgroup::create(&lab, name).expect("a cgroup can be made"),
        };
        let client = unit(Side::A, "client");
        let stranger = unit(Side::A, "stranger");
        let server = unit(Side::B, "server");
        let authority = Authority::create(&program(), lab.dir(), "ca").expect("an authority can be made");
        let [a, b] = ["node-a", "node-b"].map(|node| {
            let keys = authority.issue(node, &[]).expect("node keys can be made");
            let mut config = AgentConfig::new(node, keys.with_certificate(&authority), POLICY);
            config.datapath = "nfqueue";
            config
        });
        let mut spec = Self { a, b, client, stranger, server, lab };
        spec.a.more = format!(
            "{}{}",
            section("client", &spec.client.cgroup, "client"),
            section("stranger", &spec.stranger.cgroup, "stranger")
        );
        spec.b.more = section("server", &spec.server.cgroup, "server");
        spec
    }

    /// Starts both agents.
    ///
    /// # Panics
    /// With an agent's log if one does not come up.
    #[must_use]
    pub fn start(self) -> Hosts {
        let Self { a, b, client, stranger, server, lab } = self;
        let start = |side, config| match Agent::start(&lab, side, &program(), config) {
            Ok(agent) => agent,
            Err(error) => panic!("{error}"),
        };
        let (a, b) = (start(Side::A, &a), start(Side::B, &b));
        Hosts { a, b, client, stranger, server, lab }
    }
}

impl Default for HostsSpec {
    fn default() -> Self {
        Self::new()
    }
}

/// The section of an agent's configuration about a cgroup.
#[must_use]
pub fn section(name: &str, cgroup: &Cgroup, role: &str) -> String {
    format!(
        "\n[[pu]]\nname = \"{name}\"\ncgroup = \"{}\"\ntags = [\"role={role}\"]\n",
        cgroup.path().display()
    )
}

impl Hosts {
    /// The usual hosts without changes.
    ///
    /// # Panics
    /// As [`HostsSpec::start`].
    #[must_use]
    pub fn start() -> Self {
        HostsSpec::new().start()
    }

    /// A port of a host.
    #[must_use]
    pub fn at(&self, side: Side, family: Family, port: u16) -> SocketAddr {
        address(side, family, port)
    }

    /// What the client sees of the server, without patience.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn client_sees(&self, family: Family) -> Reach {
        self.client.sees(address(Side::B, family, PORT), PROMPT)
    }

    /// What the stranger sees of the server, without patience.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn stranger_sees(&self, family: Family) -> Reach {
        self.stranger.sees(address(Side::B, family, PORT), PROMPT)
    }

    /// What a process of host a sees of the server that is in no unit, without patience.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn outsider_sees(&self, family: Family) -> Reach {
        probe(&self.client.host, address(Side::B, family, PORT), PROMPT).expect("the host's stack works")
    }

    /// Counters, rules and logs of both hosts, for messages of failing tests.
    #[must_use]
    pub fn look(&self) -> String {
        let one = |agent: &Agent, host: &Namespace| {
            let rules = host.run("nft", &["list", "table", "inet", "trireme_host"]);
            let rules = rules.unwrap_or_else(|error| error.to_string());
            let status = agent.status().map_or_else(|error| error.to_string(), |status| status.to_string());
            format!("--- host {}\n{status}\n{rules}\n{}\n", agent.side(), agent.log())
        };
        one(&self.a, &self.client.host) + &one(&self.b, &self.server.host)
    }
}

/// A port of a host.
const fn address(side: Side, family: Family, port: u16) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let net = match side {
        Side::A => 1,
        Side::B => 2,
    };
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 200, net, 2)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x200, net as u16, 0, 0, 0, 0, 2)),
    };
    SocketAddr::new(address, port)
}
