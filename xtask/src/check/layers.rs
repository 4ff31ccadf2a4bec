//! Who may depend on whom, read from `cargo metadata`.

use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, MetadataCommand};

/// The pure crates in their order: each may use only those before it.
const CORE: [&str; 7] = [
    "trireme-identity",
    "trireme-policy",
    "trireme-wire",
    "trireme-token",
    "trireme-handshake",
    "trireme-flow",
    "trireme-datapath",
];

/// Pairs of core crates that must not know each other although the order would allow it.
const STRANGERS: [(&str, &str); 2] =
    [("trireme-handshake", "trireme-policy"), ("trireme-wire", "trireme-policy")];

/// Folders whose crates meet only in `crates/trireme` and `bin/`, never each other.
const GROUPS: [&str; 6] = ["kernel", "monitor", "kubernetes", "statistics", "csr", "api"];

/// Every dependency that breaks a layer rule, as a sentence.
pub(super) fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("reading cargo metadata")?;
    let ours = |name: &str| metadata.packages.iter().find(|package| package.name.as_str() == name);

    let mut findings = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let from = group(root, package.manifest_path.as_std_path());
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            let Some(target) = ours(&dependency.name) else { continue };
            let to = group(root, target.manifest_path.as_std_path());
            if let Some(rule) = broken_rule(name, &from, &dependency.name, &to) {
                findings.push(format!("{name} depends on {}: {rule}", dependency.name));
            }
        }
    }
    Ok(findings)
}

/// The folder under `crates/` that a manifest lies in, or the top folder outside of it.
fn group(root: &Path, manifest: &Path) -> String {
    let relative = manifest.strip_prefix(root).unwrap_or(manifest);
    let mut parts = relative.iter().map(|part| part.to_string_lossy().into_owned());
    match (parts.next(), parts.next()) {
        (Some(top), Some(second)) if top == "crates" => second,
        (Some(top), _) => top,
        (None, _) => String::new(),
    }
}

fn broken_rule(from: &str, from_group: &str, to: &str, to_group: &str) -> Option<&'static str> {
    let place = |name: &str| CORE.iter().position(|core| *core == name);
    if let Some(own) = place(from) {
        return match place(to) {
            Some(other) if other < own && !STRANGERS.contains(&(from, to)) => None,
            Some(_) => Some("core crates use only those before them, and handshake and policy are strangers"),
            None => Some("core depends only on core"),
        };
    }
    if place(to).is_some() {
        return None;
    }
    let grouped = |group: &str| GROUPS.contains(&group);
    if grouped(from_group) && grouped(to_group) && from_group != to_group {
        return Some("groups meet in crates/trireme and bin/, never each other");
    }
    if from_group == "kernel" && to_group != "kernel" {
        return Some("kernel crates know core and each other, nothing above");
    }
    if to_group == "bin" || to_group == "xtask" {
        return Some("nothing depends on a program");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_may_look_back_but_not_forward_or_out() {
        assert_eq!(broken_rule("trireme-token", "core", "trireme-identity", "core"), None);
        assert!(broken_rule("trireme-identity", "core", "trireme-token", "core").is_some());
        assert!(broken_rule("trireme-handshake", "core", "trireme-policy", "core").is_some());
        assert!(broken_rule("trireme-token", "core", "trireme-bpf", "kernel").is_some());
    }

    #[test]
    fn groups_do_not_meet_outside_the_library() {
        assert!(broken_rule("trireme-bpf", "kernel", "trireme", "trireme").is_some());
        assert!(broken_rule("trireme-api", "api", "trireme-bpf", "kernel").is_some());
        assert_eq!(broken_rule("trireme-bpf", "kernel", "trireme-netns", "kernel"), None);
        assert_eq!(broken_rule("trireme", "trireme", "trireme-bpf", "kernel"), None);
    }
}
