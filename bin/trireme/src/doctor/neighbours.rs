//! Other software that handles packets on this machine, by what it leaves visible.

use std::path::Path;

use trireme::datapath::bpf::Link;

use super::finding::Finding;
use super::read;
use crate::config::{Config, DEFAULT_SOCKET};

const CHECK: &str = "neighbours";

/// Who drops packets that connection tracking calls invalid, by a word of its rules.
const FIREWALLS: [(&str, &str); 4] =
    [("ufw", "ufw"), ("firewalld", "firewalld"), ("DOCKER", "Docker"), ("KUBE-", "kube-proxy")];

/// Looks for others.
pub(super) fn look(config: Option<&Config>) -> Vec<Finding> {
    let links = trireme::datapath::bpf::interfaces().unwrap_or_default();
    let socket = config.map_or_else(|| Path::new(DEFAULT_SOCKET), |config| &config.node.socket);
    let mut findings = vec![agent(trireme_api::probe(socket).map_err(|error| error.to_string()), socket)];
    findings.extend(shortcuts(&links));
    findings.extend(invalid(&all_rules()));
    findings.extend(ipvs(&read::text("/proc/net/ip_vs").unwrap_or_default()));
    findings
}

/// Asking for legacy rules where there are none would create their tables.
fn all_rules() -> String {
    let mut lists = vec![read::output("nft", &["list", "ruleset"])];
    for (program, names) in [("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")] {
        lists.push(read::output(&format!("{program}-nft-save"), &[]));
        if read::text(&format!("/proc/net/{names}")).is_some_and(|names| !names.is_empty()) {
            lists.push(read::output(&format!("{program}-legacy-save"), &[]));
        }
    }
    lists.into_iter().flatten().collect()
}

fn agent(free: Result<(), String>, socket: &Path) -> Finding {
    match free {
        Ok(()) => Finding::ok(CHECK, format!("no agent answers on {}", socket.display())),
        Err(error) => {
            let (found, remedy) = error
                .split_once(": ")
                .unwrap_or((&error, "look at it with `trireme status`, or choose another node.socket"));
            Finding::note(CHECK, found, remedy)
        }
    }
}

/// Redirection to the peer of a device passes the programs on the device itself.
fn shortcuts(links: &[Link]) -> Vec<Finding> {
    let remedy = "name units by netns, so that they are caught inside, or turn the shortcut off";
    let has = |beginning: &str| links.iter().any(|link| link.name.starts_with(beginning));
    let mut findings = Vec::new();
    if has("cilium_") || has("lxc") {
        findings.push(Finding::note(
            CHECK,
            "Cilium: it may redirect to the peers of veths, which skips the egress of the host side",
            "name units by netns, so that they are caught inside, or set bpf.hostLegacyRouting=true",
        ));
    }
    if has("bpfin.cali") || has("bpfout.cali") {
        findings.push(Finding::note(
            CHECK,
            "Calico with eBPF: it may redirect to the peers of veths, which skips the egress of the host side",
            "name units by netns, so that they are caught inside, or set bpfRedirectToPeer: Disabled",
        ));
    }
    if let Some(link) = links.iter().find(|link| link.netkit) {
        findings.push(Finding::note(
            CHECK,
            format!("{} is a netkit device: its packets skip the egress of the host side", link.name),
            remedy,
        ));
    }
    findings
}

/// What Trireme adds to a handshake is the payload of segments that tracking knows: none of them is invalid.
fn invalid(rules: &str) -> Option<Finding> {
    let drops = rules.lines().any(|line| {
        let nft = line.contains("ct state") && line.contains("invalid") && line.contains("drop");
        nft || line.contains("--ctstate") && line.contains("INVALID") && line.contains("-j DROP")
    });
    if !drops {
        return None;
    }
    let owners = FIREWALLS.iter().filter(|(word, _)| rules.contains(word)).map(|(_, name)| *name);
    let owners: Vec<_> = owners.collect();
    let whose = if owners.is_empty() {
        String::new()
    } else {
        format!(" (there are rules of {})", owners.join(", "))
    };
    Some(Finding::note(
        CHECK,
        format!(
            "rules drop packets that connection tracking calls invalid{whose}: none of a handshake with tokens is"
        ),
        "nothing to do",
    ))
}

fn ipvs(table: &str) -> Option<Finding> {
    let is_service = |line: &str| ["TCP", "UDP", "FWM"].iter().any(|kind| line.starts_with(kind));
    table.lines().any(is_service).then(|| {
        Finding::note(
            CHECK,
            "IPVS balances services: a unit's peer is the server behind the address, not the balancer",
            "let both ends run agents, and write policies about the servers' identities",
        )
    })
}

#[cfg(test)]
mod tests;
