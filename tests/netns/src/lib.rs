//! Kernel tests: real agents, real programs of the kernel, real TCP stacks, in network namespaces.
//!
//! Start with [`World`] (two nodes with agents, a client, a stranger and a server) and
//! [`WorldSpec`] (what a test changes of it before it starts). The tests are the files of
//! `tests/`; they need root and fail where they cannot run. This crate must not reach around
//! the program: agents are started, configured and asked as an operator would do it.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod flood;
mod holder;
mod hosts;
mod judge;
mod live;
mod load;
mod packets;
mod script;
mod transfer;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Resource;
use trireme_testkit::lab::AgentProgram;

pub use flood::half_open;
pub use holder::hold_queue;
pub use hosts::{HostUnit, Hosts, HostsSpec, section};
pub use judge::{Fast, Judge, by_each, by_each_disturbed, by_each_with};
pub use live::{abort, connect_from, is_alive, is_alive_within};
pub use load::{Counts, Load};
pub use packets::{is_of_port, kind_of, payload_of};
pub use script::python;
pub use transfer::{Echoed, Stream, echo_megabytes, echo_megabytes_from};
pub use world::{CLOSED_PORT, POLICY, PORT, World, WorldSpec};

/// Longer than an answer takes when nothing is lost, shorter than a retransmitted SYN takes.
pub const PROMPT: Duration = Duration::from_millis(900);
/// Long enough for two retransmissions of a SYN.
pub const PATIENT: Duration = Duration::from_secs(5);
/// After so long the programs have noticed that their agent is away.
pub const AWAY: Duration = Duration::from_millis(3500);

/// The program under test: `$TRIREME_BIN`, or what `cargo build -p trireme-cli` left beside the tests.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn program() -> AgentProgram {
    let path = std::env::var_os("TRIREME_BIN").map_or_else(beside_the_tests, PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo build -p trireme-cli` first", path.display());
    AgentProgram::new(path)
}

/// Lets this process hold as many sockets as the system permits.
///
/// # Panics
/// If the system refuses its own limit.
pub fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).expect("the soft limit may rise to the hard one");
}

fn beside_the_tests() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a test lies in target/<profile>/deps");
    deps.with_file_name("trireme")
}
