//! What a monitor found out about a processing unit on this machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::TagSet;

/// What sort of workload a processing unit is.
///
/// Open for extension: a monitor of your own names its kind with [`PuKind::Other`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PuKind {
    /// A container with a network namespace of its own.
    Container,
    /// A Kubernetes pod.
    Pod,
    /// A group of processes on the host.
    Process,
    /// A service of the host itself.
    Host,
    /// The sessions of one user.
    User,
    /// A network namespace or interface named in the configuration.
    Static,
    /// Any other kind, by name.
    Other(String),
}

/// Facts about a running workload: reported, never matched by policy, never sent to peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuRuntime {
    /// The name people know it by.
    pub name: String,
    /// What sort of workload it is.
    pub kind: PuKind,
    /// Its first process, if it has one.
    pub pid: Option<u32>,
    /// The path of its network namespace, if it is not the agent's own.
    pub netns: Option<PathBuf>,
    /// Its network interface as the agent sees it.
    pub interface: Option<String>,
    /// Its addresses, by network name.
    pub addresses: BTreeMap<String, IpAddr>,
    /// The image it was started from.
    pub image: Option<String>,
    /// The user it runs as.
    pub user: Option<String>,
    /// Attributes found by the monitor, offered to the policy resolver as identity.
    pub tags: TagSet,
}
