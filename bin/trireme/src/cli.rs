//! The command line. Every verb's help ends with an example; a test runs the examples through this parser.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trireme_identity::{NodeId, Protocol, PuId, TagSet};
use trireme_token::TagPattern;

use crate::config::{DEFAULT_SOCKET, LevelName, LogFormatName};
use crate::demo::DemoArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; the answer is yes
  1  the answer is no: a connection would be refused, a check failed
  2  the command line, the configuration or a key is wrong
  3  the machine or the agent did not do its part";

/// Zero-trust segmentation: workloads prove who they are inside the TCP handshake.
#[derive(Debug, Parser)]
#[command(name = "trireme", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the agent of this node: enforce the processing units of a configuration file.
    Agent(AgentArgs),
    /// Make keys: a certificate authority, a node, a pre-shared key.
    Keys(KeysArgs),
    /// Show what was decided about connections.
    Flows(FlowsArgs),
    /// Show what the agent is and does.
    Status(StatusArgs),
    /// Ask whether a connection would be allowed, and why.
    Explain(ExplainArgs),
    /// Look at the machine and at a configuration: what would be in the way of an agent, and what to do.
    Doctor(DoctorArgs),
    /// Show it all at work: two nodes in network namespaces, four tiers of real programs, checked.
    Demo(DemoArgs),
}

/// `trireme agent`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme agent --config /etc/trireme/agent.toml
  trireme agent --config agent.toml --check
  trireme agent --config agent.toml --cleanup

SIGTERM stops the agent and leaves its kernel state: established connections go on, known identities go on connecting
while their tokens are valid, the rest is up to fail_mode. --cleanup removes that state. SIGHUP reads the policy file again.
TRIREME_PSK holds the pre-shared key if the configuration names no file; TRIREME_LOG filters the log.")]
pub(crate) struct AgentArgs {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Check everything a start needs, change nothing, and end.
    #[arg(long, conflicts_with = "cleanup")]
    pub(crate) check: bool,
    /// Remove all kernel state of this agent's instance, and end.
    #[arg(long)]
    pub(crate) cleanup: bool,
    /// Serve the local API here instead of at `node.socket`.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Log from this level on instead of `log.level`.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LevelName>,
    /// Log in this form instead of `log.format`.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormatName>,
}

/// `trireme keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme keys ca --name demo --out ca
  trireme keys node --id node-a --ca ca --out node-a --allow role=web --allow env=*
  trireme keys psk --out cluster.psk
  trireme keys show node-a.cert.pem
  trireme keys revoke node node-b --deny-list /etc/trireme/deny-list")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) verb: KeysVerb,
}

/// What kind of key to make.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Make a certificate authority: <OUT>.key.pem (keep it off the nodes) and <OUT>.cert.pem (every node trusts it).
    #[command(after_help = "Example:\n  trireme keys ca --name demo --out ca --days 3650")]
    Ca {
        /// The authority's name.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Where the files go: a path without the endings.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// Days until it expires.
        #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make a node's key with a certificate, a key token and the bare public key, for the one way that is used.
    #[command(
        after_help = "Example:\n  trireme keys node --id node-a --ca ca --out node-a --allow role=web --days 365"
    )]
    Node {
        /// The node's id, as `node.id` has it.
        #[arg(long, value_name = "ID")]
        id: NodeId,
        /// The authority's files: a path without the endings.
        #[arg(long, value_name = "PATH")]
        ca: PathBuf,
        /// Where the files go: a path without the endings.
        #[arg(long, value_name = "PATH")]
        out: PathBuf,
        /// A tag the node may claim: key, key=value or key=prefix*; repeatable; without any it may claim all.
        #[arg(long, value_name = "PATTERN")]
        allow: Vec<TagPattern>,
        /// Days until its credentials expire.
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make a pre-shared key, for tests: whoever has it can claim any identity.
    #[command(after_help = "Example:\n  trireme keys psk --out cluster.psk")]
    Psk {
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what a key, certificate or key token says; private parts are never shown.
    #[command(after_help = "Example:\n  trireme keys show node-a.cert.pem node-a.key.pem")]
    Show {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Add a key, a token or a node to a deny list: agents that read it refuse it from then on and cut what it has open.
    #[command(after_help = "\
Examples:
  trireme keys revoke node node-b
  trireme keys revoke token 90ab12cd34ef56789012ab34cd56ef78 --deny-list deny-list

The id of a key is what `trireme keys show` prints. Agents read the file that policy.deny_list names as soon as it
changes.")]
    Revoke {
        /// What is refused: a signing key, one token, or all that a node issues.
        #[arg(value_name = "KIND")]
        kind: RevokedKind,
        /// The id of the key (64 hexadecimal digits), of the token (32) or of the node.
        #[arg(value_name = "ID")]
        id: String,
        /// The deny list; made if there is none.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_DENY_LIST, env = "TRIREME_DENY_LIST")]
        deny_list: PathBuf,
    },
}

/// Where the deny list is when nothing else is said.
const DEFAULT_DENY_LIST: &str = "/etc/trireme/deny-list";

/// What `trireme keys revoke` refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RevokedKind {
    Key,
    Token,
    Node,
}

/// Where the agent listens.
#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "TRIREME_SOCKET")]
    pub(crate) socket: PathBuf,
}

/// `trireme flows`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme flows
  trireme flows --follow --format json
  trireme flows --limit 20 --socket /run/trireme/agent.sock")]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) agent: SocketArgs,
    /// Go on with new records as they happen.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the newest records to begin with.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) limit: usize,
    /// How to print them; json is one object per line.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: FlowsFormat,
}

/// How flow records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowsFormat {
    Table,
    Json,
}

/// `trireme status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme status
  trireme status -o wide
  trireme status --pu
  trireme status --pu web -o json")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) agent: SocketArgs,
    /// Show one processing unit, or without an id each of them: how it is enforced and what was counted, by reason.
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "absent, without an id, with one")]
    pub(crate) pu: Option<Option<PuId>>,
    /// How to print it.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: StatusFormat,
}

/// How status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusFormat {
    /// The essentials.
    Table,
    /// With tags, counters and table sizes.
    Wide,
    Json,
    Yaml,
}

/// `trireme explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme explain --from role=web --to role=database --port 5432/tcp
  trireme explain --policy policy.yaml --from role=web,env=prod --to role=backend,env=prod --port 8080
  trireme explain --from role=web --to role=backend --port 80/tcp -o json

Asks the running agent, or a policy file. Exit code 0: allowed by both ends; 1: refused by one of them.")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) agent: SocketArgs,
    /// Ask this policy file instead of the agent.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The initiator's tags: key=value, separated by commas.
    #[arg(long, value_name = "TAGS", value_parser = parse_tags)]
    pub(crate) from: TagSet,
    /// The responder's tags: key=value, separated by commas.
    #[arg(long, value_name = "TAGS", value_parser = parse_tags)]
    pub(crate) to: TagSet,
    /// The responder's port, and protocol if it is not tcp: 80, 80/tcp, 53/udp.
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Service,
    /// How to print the answer.
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: ExplainFormat,
}

/// How an explanation is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    Text,
    Json,
}

/// `trireme doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trireme doctor
  trireme doctor --config /etc/trireme/agent.toml
  trireme doctor -o json

Changes nothing. A line for each finding: ok, note (good to know) or problem, what was found, and behind an arrow what to
do. Exit code 0: no problem; 1: at least one. Run it as the agent's user, with the agent's capabilities.")]
pub(crate) struct DoctorArgs {
    /// Look at this configuration, its units and keys, too.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to print it.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: DoctorFormat,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorFormat {
    Table,
    Json,
}

/// A port with its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl std::str::FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("a port is 1 to 65535, as in 80/tcp, not {text:?}"))?;
        let protocol = [Protocol::TCP, Protocol::UDP, Protocol::SCTP]
            .into_iter()
            .find(|known| known.to_string() == protocol)
            .ok_or_else(|| format!("a protocol is tcp, udp or sctp, not {protocol:?}"))?;
        Ok(Self { port, protocol })
    }
}

fn parse_tags(text: &str) -> Result<TagSet, String> {
    TagSet::parse(text.split(',')).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
