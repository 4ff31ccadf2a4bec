//! A laboratory of Linux network namespaces: two nodes, a router between them, workloads on each.
//!
//! ```text
//!  workload --veth-- bridge [node a] up0 --------- [router] --------- up0 [node b] bridge --veth-- workload
//!  10.10.1.N         10.10.1.1   10.200.1.2   .1.1    .2.1   10.200.2.2   10.10.2.1       10.10.2.N
//!  fd00:10:1::N      fd00:10:1::1                                         fd00:10:2::1    fd00:10:2::N
//! ```
//!
//! Nothing leads out of a laboratory, nothing of the machine's own network is touched, and dropping
//! [`Lab`] removes every namespace, file and process it made, also while a test is panicking.
//! Sockets of workloads live in this process: [`Namespace::enter`] opens them on a thread inside.

mod agent;
mod attacker;
mod cgroup;
mod ip_tap;
mod keys;
mod namespace;
mod process;
mod relay;
mod router;
mod topology;
mod traffic;

use std::io;
use std::time::Duration;

pub use agent::{Agent, AgentConfig, AgentProgram, Credential, Root, Trust};
pub use attacker::{Recording, Replay};
pub use cgroup::Cgroup;
pub use ip_tap::{IpTap, RawSender};
pub use keys::{Authority, NodeKeys};
pub use namespace::Namespace;
pub use process::Process;
pub use relay::{Fate, Relay};
pub use router::Translation;
pub use topology::{Family, Lab, Node, Pu, Side};
pub use traffic::{Reach, Server, connect, connect_times, echo, eventually, probe, uninterrupted};

/// Why the laboratory could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces and interfaces are made by root only.
    #[error("network namespaces need root: run it with sudo")]
    NotRoot,
    /// A file, socket or thread operation failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{command} failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its standard error (or output, if that is empty).
        output: String,
    },
    /// Something awaited did not come.
    #[error("{what} did not happen within {limit:?}: {detail}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// How long.
        limit: Duration,
        /// What is known instead, a log's end for example.
        detail: String,
    },
    /// The code run inside a namespace panicked.
    #[error("the thread inside namespace {0} panicked")]
    Panicked(String),
    /// A node has no room for another workload.
    #[error("node {0} has no free address left")]
    Full(String),
    /// A program's output was not what it should be.
    #[error("{what} is not understood: {output}")]
    Output {
        /// Which output.
        what: String,
        /// The text.
        output: String,
    },
}

impl LabError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
