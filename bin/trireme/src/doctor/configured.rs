//! The configuration, and the files that it names besides keys.

use std::path::Path;

use trireme::DenyListFile;
use trireme::policy_file::PolicyFile;

use super::finding::Finding;
use crate::config::Config;
use crate::exit::one_line;

/// Reads the configuration; what is wrong with it is a finding like any other.
pub(super) fn load(path: &Path) -> (Option<Config>, Vec<Finding>) {
    const CHECK: &str = "configuration";
    match Config::load(path) {
        Ok(config) => {
            let found = format!("{} is well formed", path.display());
            (Some(config), vec![Finding::ok(CHECK, found)])
        }
        Err(error) => {
            let remedy = "correct the place that is named; see docs/guide/agent.md for every key";
            (None, vec![Finding::problem(CHECK, one_line(&error.into()), remedy)])
        }
    }
}

/// Looks at policy and deny list.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = policy(&config.policy.file);
    if let Some(path) = &config.policy.deny_list {
        findings.push(match DenyListFile::open(path) {
            Ok(_) => Finding::ok("deny list", format!("{} is well formed", path.display())),
            Err(error) => Finding::problem(
                "deny list",
                one_line(&error.into()),
                "correct the file, or make it with `trireme keys revoke`",
            ),
        });
    }
    findings
}

fn policy(path: &Path) -> Vec<Finding> {
    const CHECK: &str = "policy";
    match PolicyFile::load(path) {
        Ok(file) => {
            let remarks = file.warnings().iter();
            let remarks =
                remarks.map(|remark| Finding::note(CHECK, remark.to_string(), "write what is meant"));
            let well = Finding::ok(CHECK, format!("{} is well formed", path.display()));
            std::iter::once(well).chain(remarks).collect()
        }
        Err(error) => {
            vec![Finding::problem(CHECK, one_line(&error.into()), "correct the place that is named")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, "[node]\nid = \"a\"\nsocke = \"x\"\n").unwrap();
        let (config, findings) = load(&path);
        assert!(config.is_none());
        assert!(
            findings[0].found.starts_with(&format!("{}:3:1: node: unknown field `socke`", path.display())),
            "{findings:?}"
        );

        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "apiVersion: trireme/v1\npolicies: []\ntypo: 1\n").unwrap();
        let findings = policy(&path);
        assert_eq!(findings[0].level, Level::Problem);
        assert!(findings[0].found.contains("policy.yaml:3:1: "), "{findings:?}");
    }

    #[test]
    fn remarks_about_a_policy_are_notes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, "apiVersion: trireme/v1\npolicies: []\n").unwrap();
        let levels: Vec<_> = policy(&path).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Note]);
    }
}
