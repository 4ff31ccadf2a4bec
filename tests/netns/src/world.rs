//! The usual arrangement: a client and a stranger on node a, a server on node b.

use trireme_testkit::lab::{Agent, AgentConfig, Authority, Family, Lab, NodeKeys, Pu, Reach, Side, probe};

use crate::{PROMPT, program};

/// Where servers listen that the policy opens to clients.
pub const PORT: u16 = 8080;
/// Another port that the policy opens to clients, where nothing listens.
pub const CLOSED_PORT: u16 = 8081;

/// Clients may call servers, and only servers; strangers may call anyone but are admitted by no server.
pub const POLICY: &str = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress:
  - name: clients
    from: [{role: client}]
    ports: [8080/tcp, 8081/tcp]
- name: clients
  subject: {role: client}
  egress:
  - name: to-servers
    to: [{role: server}]
";

/// Two nodes under enforcement. Fields are dropped in this order: agents, then namespaces.
#[derive(Debug)]
pub struct World {
    /// The agent of node a.
    pub a: Agent,
    /// The agent of node b.
    pub b: Agent,
    /// On node a, `role=client`: allowed.
    pub client: Pu,
    /// On node a, `role=stranger`: refused.
    pub stranger: Pu,
    /// On node b, `role=server`.
    pub server: Pu,
    /// The authority of both nodes.
    pub authority: Authority,
    /// Everything else.
    pub lab: Lab,
}

/// What a world will be; change it before it starts.
#[derive(Debug)]
pub struct WorldSpec {
    /// The agent of node a.
    pub a: AgentConfig,
    /// The agent of node b.
    pub b: AgentConfig,
    /// On node a, `role=client`.
    pub client: Pu,
    /// On node a, `role=stranger`.
    pub stranger: Pu,
    /// On node b, `role=server`.
    pub server: Pu,
    /// The authority of both nodes.
    pub authority: Authority,
    /// Node a's keys of that authority.
    pub keys_a: NodeKeys,
    /// Node b's keys of that authority.
    pub keys_b: NodeKeys,
    /// The namespaces.
    pub lab: Lab,
}

impl WorldSpec {
    /// Namespaces, keys and settings, with certificates on the wire and compact tokens.
    ///
    /// # Panics
    /// If the machine or the program does not do its part.
    #[must_use]
    pub fn new() -> Self {
        let program = program();
        let mut lab = Lab::new().expect("the lab can be built");
        let client = lab.add_pu(Side::A, "client").expect("node a has room");
        let stranger = lab.add_pu(Side::A, "stranger").expect("node a has room");
        let server = lab.add_pu(Side::B, "server").expect("node b has room");
        let authority = Authority::create(&program, lab.dir(), "ca").expect("an authority can be made");
        let [keys_a, keys_b] =
            ["node-a", "node-b"].map(|node| authority.issue(node, &[]).expect("node keys can be made"));
        let a = AgentConfig::new("node-a", keys_a.with_certificate(&authority), POLICY)
            .with(&client, &["role=client"])
            .with(&stranger, &["role=stranger"]);
        let b = AgentConfig::new("node-b", keys_b.with_certificate(&authority), POLICY)
            .with(&server, &["role=server"]);
        Self { a, b, client, stranger, server, authority, keys_a, keys_b, lab }
    }

    /// Starts both agents.
    ///
    /// # Panics
    /// With an agent's log if one does not come up.
    #[must_use]
    pub fn start(self) -> World {
        let Self { a, b, client, stranger, server, authority, keys_a: _, keys_b: _, lab } = self;
        let program = program();
        let start = |side, config| match Agent::start(&lab, side, &program, config) {
            Ok(agent) => agent,
            Err(error) => panic!("{error}"),
        };
        let (a, b) = (start(Side::A, &a), start(Side::B, &b));
        World { a, b, client, stranger, server, authority, lab }
    }
}

impl Default for WorldSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// The usual world without changes.
    ///
    /// # Panics
    /// As [`WorldSpec::start`].
    #[must_use]
    pub fn start() -> Self {
        WorldSpec::new().start()
    }

    /// What the client sees of the server, without patience.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn client_sees(&self, family: Family, port: u16) -> Reach {
        probe(&self.client.namespace, self.server.at(family, port), PROMPT).expect("the client's stack works")
    }

    /// What the stranger sees of the server, without patience.
    ///
    /// # Panics
    /// If the connection fails for a reason no peer can cause.
    #[must_use]
    pub fn stranger_sees(&self, family: Family, port: u16) -> Reach {
        probe(&self.stranger.namespace, self.server.at(family, port), PROMPT)
            .expect("the stranger's stack works")
    }

    /// Both agents' logs, for messages of failing tests.
    #[must_use]
    pub fn logs(&self) -> String {
        format!("--- node a\n{}\n--- node b\n{}", self.a.log(), self.b.log())
    }
}
