//! The agent's configuration file: one typed structure, parsed once.
//!
//! Every error names file, line, column and key. Values are checked while they are read: a [`Config`] that
//! exists is well formed; whether files, interfaces and keys exist is checked before the kernel is touched.

mod error;
mod fail_mode;
mod limits;
mod network;
mod pu;
mod secrets;
mod values;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use trireme::Edge;
use trireme::datapath::nfqueue::host_units;
use trireme_identity::NodeId;

pub(crate) use error::ConfigError;
pub(crate) use fail_mode::FailModeText;
pub(crate) use limits::Limits;
pub(crate) use network::Network;
pub(crate) use pu::{Pu, PuMode};
pub(crate) use secrets::{CredentialSource, Pki, Root, Secrets};
pub(crate) use values::{
    AdoptExisting, Authorization, BudgetBytes, Count, DatapathKind, EncodingName, FastPath, InstanceName,
    KeyPatternText, LevelName, LifetimeSecs, LogFormatName, MarkText, OnPolicyChange, OtherProtocols,
    Refusal, RulesKind,
};

/// The file as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) node: Node,
    #[serde(default)]
    pub(crate) datapath: Datapath,
    /// Absent: a pre-shared key from the environment.
    #[serde(default)]
    pub(crate) secrets: Secrets,
    #[serde(default)]
    pub(crate) token: Token,
    #[serde(default)]
    pub(crate) identity: Identity,
    #[serde(default)]
    pub(crate) network: Network,
    #[serde(default)]
    pub(crate) enforcement: Enforcement,
    pub(crate) policy: Policy,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) log: Log,
    #[serde(default)]
    pub(crate) pu: Vec<Pu>,
}

/// Who this agent is and where it keeps its things.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    #[serde(default = "default_state_dir")]
    pub(crate) state_dir: PathBuf,
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
}

/// Where the agent's socket is when nothing else is said.
pub(crate) const DEFAULT_SOCKET: &str = "/run/trireme/agent.sock";

fn default_state_dir() -> PathBuf {
    "/var/lib/trireme".into()
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

/// What enforces.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Datapath {
    pub(crate) kind: DatapathKind,
    /// Separates the kernel state of several agents on one machine.
    pub(crate) instance: InstanceName,
    pub(crate) bpffs: PathBuf,
    pub(crate) verify_threads: Count<1, 64>,
    /// Of nfqueue: number of the queue in each unit's namespace.
    pub(crate) queue: u16,
    /// Of nfqueue: bits of marks in units' namespaces that are Trireme's.
    pub(crate) mark: MarkText,
    /// Of nfqueue: how rules are written.
    pub(crate) rules: RulesKind,
}

impl Default for Datapath {
    fn default() -> Self {
        Self {
            kind: DatapathKind::Auto,
            instance: InstanceName::default(),
            bpffs: "/sys/fs/bpf".into(),
            verify_threads: Count(1),
            queue: 0,
            mark: MarkText::default(),
            rules: RulesKind::Auto,
        }
    }
}

/// The identity token.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Token {
    pub(crate) encoding: EncodingName,
    pub(crate) lifetime_secs: LifetimeSecs,
    pub(crate) size_budget: BudgetBytes,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            encoding: EncodingName::Cwt,
            lifetime_secs: LifetimeSecs::default(),
            size_budget: BudgetBytes::default(),
        }
    }
}

/// Which tags leave the node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    pub(crate) tags: Tags,
}

/// Keys that are sent, keys that are not; `*` at the end stands for any rest.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tags {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) include: Option<Vec<KeyPatternText>>,
    pub(crate) exclude: Vec<KeyPatternText>,
}

/// How strictly connections are judged.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Enforcement {
    pub(crate) authorization: Authorization,
    pub(crate) refusal: Refusal,
    /// Whether the agent of a refused peer is told why, under a MAC; its workload sees `refusal` all the same.
    pub(crate) notify_peer: bool,
    pub(crate) strict_identity: bool,
    pub(crate) other_protocols: OtherProtocols,
    /// Whether handshakes of identities that know each other stay in the kernel.
    pub(crate) fast_path: FastPath,
    pub(crate) fail_mode: FailModeText,
    pub(crate) adopt_existing: AdoptExisting,
    pub(crate) on_policy_change: OnPolicyChange,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            authorization: Authorization::default(),
            refusal: Refusal::default(),
            notify_peer: true,
            strict_identity: false,
            other_protocols: OtherProtocols::default(),
            fast_path: FastPath::default(),
            fail_mode: FailModeText::default(),
            adopt_existing: AdoptExisting::default(),
            on_policy_change: OnPolicyChange::default(),
        }
    }
}

/// Where policy comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) file: PathBuf,
    /// Keys, tokens and nodes that are refused although they verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deny_list: Option<PathBuf>,
}

/// The agent's own log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) level: LevelName,
    pub(crate) format: LogFormatName,
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, source))?;
        let mut config = Self::parse(&text, path)?;
        if let Some(folder) = path.parent() {
            config.rebase(folder);
        }
        Ok(config)
    }

    /// Reads and checks the text of a file; `path` only names it in errors.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::at(path, text, &error))?;
        config.check_units(text, path)?;
        config.check_fail_modes(text, path)?;
        config.check_cgroups(text, path)?;
        Ok(config)
    }

    /// No two units may share an id or an edge.
    fn check_units(&self, text: &str, path: &Path) -> Result<(), ConfigError> {
        for (index, unit) in self.pu.iter().enumerate() {
            for earlier in self.pu.iter().take(index) {
                let clash = if earlier.name == unit.name {
                    format!("the name {} is given to two units: each needs one of its own", unit.name)
                } else if earlier.edge == unit.edge {
                    format!(
                        "{} and {} share {}: units on one edge cannot be told apart, merge them",
                        earlier.name, unit.name, unit.edge
                    )
                } else {
                    continue;
                };
                return Err(ConfigError::in_unit(path, text, index, clash));
            }
        }
        Ok(())
    }

    /// What was known last is trusted at most as long as a token.
    fn check_fail_modes(&self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let lifetime = self.token.lifetime_secs.0;
        if let Some(problem) = self.enforcement.fail_mode.beyond(lifetime) {
            return Err(ConfigError::of_key(path, text, ("enforcement", None), "fail_mode", problem));
        }
        for (index, unit) in self.pu.iter().enumerate() {
            if let Some(problem) = unit.settings.fail_mode.and_then(|mode| mode.beyond(lifetime)) {
                return Err(ConfigError::of_key(path, text, ("pu", Some(index)), "fail_mode", problem));
            }
        }
        Ok(())
    }

    /// Each unit of the host has a number in the mark and a queue of its own.
    fn check_cgroups(&self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let room = host_units(self.datapath.mark.0).min(u32::from(u16::MAX - self.datapath.queue));
        let cgroups = self.pu.iter().enumerate().filter(|(_, unit)| matches!(unit.edge, Edge::Cgroup { .. }));
        let beyond = cgroups.zip(1_u32..).find(|(_, number)| *number > room);
        let Some(((index, unit), number)) = beyond else { return Ok(()) };
        let problem = format!(
            "{} is the {number}. cgroup, and datapath.mark and datapath.queue have room for {room}: give mark more bits, \
             or queue a lower number",
            unit.name
        );
        Err(ConfigError::in_unit(path, text, index, problem))
    }

    fn rebase(&mut self, folder: &Path) {
        for path in
            [&mut self.node.state_dir, &mut self.node.socket, &mut self.policy.file, &mut self.datapath.bpffs]
        {
            rebase(folder, path);
        }
        self.policy.deny_list.iter_mut().for_each(|file| rebase(folder, file));
        self.secrets.rebase(folder);
        for unit in &mut self.pu {
            unit.rebase(folder);
        }
    }

    /// The configuration with every default filled in and every secret left out, as TOML.
    pub(crate) fn redacted(&self) -> String {
        // Holds paths and names only: secrets are read from files and the environment, never kept here.
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

fn rebase(folder: &Path, path: &mut PathBuf) {
    if path.is_relative() {
        *path = folder.join(&*path);
    }
}

#[cfg(test)]
mod tests;
