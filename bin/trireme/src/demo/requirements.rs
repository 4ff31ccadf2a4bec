//! What the machine must have.

use std::collections::BTreeSet;
use std::env;
use std::path::Path;

use anyhow::bail;

/// Programs and the packages they come in.
const PROGRAMS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("nginx", "nginx"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("curl", "curl"),
    ("mount", "mount"),
];

/// Names everything that is missing, with the command that installs it.
pub(super) fn check() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demonstration makes network namespaces and needs root: sudo trireme demo");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !found(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    if missing.iter().all(|(program, _)| Path::new("/usr/sbin").join(program).is_file()) {
        bail!(
            "not in PATH, but in /usr/sbin: {}; run it as PATH=$PATH:/usr/sbin trireme demo",
            programs.join(", ")
        );
    }
    let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
    let packages: Vec<_> = packages.into_iter().collect();
    bail!("missing: {}; install with: apt-get install -y {}", programs.join(", "), packages.join(" "));
}
