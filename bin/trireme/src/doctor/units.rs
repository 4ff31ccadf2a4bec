//! The configured units: whether they are there, and whether the data path can do what they ask.

use trireme::datapath::{bpf, nfqueue};
use trireme::{Edge, FailMode};

use super::finding::Finding;
use crate::config::{Config, DatapathKind, Pu};

const CHECK: &str = "units";

/// Looks at every unit.
pub(super) fn look(config: &Config, chosen: Option<DatapathKind>) -> Vec<Finding> {
    if config.pu.is_empty() {
        return vec![Finding::note(
            CHECK,
            "there is none: nothing is enforced",
            "add [[pu]] to the configuration",
        )];
    }
    let queues = chosen == Some(DatapathKind::Nfqueue);
    let mut findings = Vec::new();
    for unit in &config.pu {
        let place = if queues {
            nfqueue::inside(&unit.edge, || ()).map(|()| match unit.edge {
                Edge::Cgroup { .. } => format!("as {}", unit.edge),
                Edge::Interface(_) | Edge::Netns { .. } => "inside its network namespace".to_owned(),
            })
        } else {
            bpf::edge_of(&unit.edge).map(|(name, inside)| {
                if inside { format!("at {name} inside its network namespace") } else { format!("at {name}") }
            })
        };
        findings.push(place_of(unit, place.map_err(|error| error.to_string())));
        let mode = unit.settings.fail_mode.unwrap_or(config.enforcement.fail_mode).0;
        if queues {
            findings.extend(fail_mode(unit, mode));
        }
    }
    findings
}

fn place_of(unit: &Pu, place: Result<String, String>) -> Finding {
    let name = &unit.name;
    match place {
        Ok(place) => Finding::ok(CHECK, format!("{name} is caught {place}")),
        Err(error) => {
            let (found, remedy) = match error.split_once(": ") {
                // What is below other errors is what the kernel said.
                Some((found, remedy)) if remedy.contains("create it") || remedy.contains("name ") => {
                    (found, remedy)
                }
                _ => (
                    error.as_str(),
                    "start the unit first, or correct interface, netns or cgroup of its [[pu]]",
                ),
            };
            Finding::problem(CHECK, format!("{name} cannot be enforced: {found}"), remedy)
        }
    }
}

fn fail_mode(unit: &Pu, mode: FailMode) -> Option<Finding> {
    match mode {
        FailMode::Closed | FailMode::Open => None,
        FailMode::LastKnownFor(_) => Some(Finding::problem(
            CHECK,
            format!("{} has fail_mode {mode}, which nfqueue does not have", unit.name),
            "set fail_mode = \"closed\" or \"open\", or give the agent what bpf needs",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finding::Level;
    use super::*;

    fn unit() -> Pu {
        Pu {
            name: "web".parse().unwrap(),
            tags: trireme_identity::TagSet::parse(["role=web"]).unwrap(),
            edge: Edge::Interface("veth0".to_owned()),
            mode: None,
            settings: Default::default(),
        }
    }

    #[test]
    fn a_unit_that_is_not_there_is_named_with_its_remedy() {
        let absent = "there is no interface veth0: create it before the agent starts, or correct its name";
        assert_eq!(
            place_of(&unit(), Err(absent.to_owned())),
            Finding::problem(
                "units",
                "web cannot be enforced: there is no interface veth0",
                "create it before the agent starts, or correct its name"
            )
        );
        let closed =
            "the network namespace /n cannot be used: cannot open network namespace /n: No such file";
        let finding = place_of(&unit(), Err(closed.to_owned()));
        assert_eq!(finding.found, format!("web cannot be enforced: {closed}"));
        assert!(finding.remedy.unwrap().starts_with("start the unit first"));
    }

    #[test]
    fn a_fail_mode_that_queues_do_not_have_is_a_problem() {
        let finding = fail_mode(&unit(), FailMode::LastKnownFor(Duration::from_secs(60))).unwrap();
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.found.starts_with("web has fail_mode last-known-for "), "{finding:?}");
        assert_eq!(fail_mode(&unit(), FailMode::Open), None);
    }
}
