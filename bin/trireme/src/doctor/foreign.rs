//! Programs of others on the hooks where units are caught.

use trireme::datapath::bpf::{self, OnHook};
use trireme::datapath::nfqueue;

use super::finding::Finding;
use super::interfaces;
use crate::config::Config;

const CHECK: &str = "tc programs";

/// Looks at the units' interfaces, or at all of this namespace.
pub(super) fn look(config: Option<&Config>) -> Vec<Finding> {
    let listed = match config {
        Some(config) => config.pu.iter().filter_map(of_unit).collect(),
        None => all(),
    };
    let mut findings = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for (name, programs) in listed {
        match programs {
            Ok(programs) => findings.extend(judge(&name, &programs)),
            Err(error) if !unknown.contains(&error) => unknown.push(error),
            Err(_) => {}
        }
    }
    let refused =
        |error: String| Finding::note(CHECK, error, "run it as root, with all capabilities of the agent");
    findings.extend(unknown.into_iter().map(refused));
    if findings.is_empty() {
        let whose = if config.is_some() { "the units' interfaces" } else { "any interface" };
        findings.push(Finding::ok(CHECK, format!("nobody else has programs on {whose}")));
    }
    findings
}

type Listed = (String, Result<Vec<OnHook>, String>);

/// None if it is not there, which the check of units tells.
fn of_unit(unit: &crate::config::Pu) -> Option<Listed> {
    let (name, inside) = bpf::edge_of(&unit.edge).ok()?;
    if !inside {
        return Some((name.clone(), ask(&name)));
    }
    let programs = nfqueue::inside(&unit.edge, || ask(&name)).ok()?;
    Some((format!("{name} inside {}", unit.name), programs))
}

fn all() -> Vec<Listed> {
    let links = interfaces::own(None).unwrap_or_default();
    links.into_iter().map(|link| (link.name.clone(), ask(&link.name))).collect()
}

fn ask(name: &str) -> Result<Vec<OnHook>, String> {
    bpf::programs_on(name).map_err(|error| {
        // The cause is the same for every interface, and said once.
        let error = crate::exit::one_line(&error.into());
        let cause = error.split_once(": ").map_or(error.as_str(), |(_, cause)| cause);
        format!("programs on interfaces cannot be listed: {cause}")
    })
}

/// Ours goes first when it is attached; what is in front of it now came there later.
fn judge(interface: &str, programs: &[OnHook]) -> Vec<Finding> {
    [("ingress", true), ("egress", false)]
        .into_iter()
        .filter_map(|(hook, ingress)| {
            let here: Vec<_> = programs.iter().filter(|program| program.ingress == ingress).collect();
            let ours = here.iter().position(|program| program.ours);
            let foreign = |range: &[&OnHook]| -> Vec<String> {
                range.iter().filter(|program| !program.ours).map(|program| named(program)).collect()
            };
            let in_front = here.get(..ours.unwrap_or(0)).map(foreign).unwrap_or_default();
            if !in_front.is_empty() {
                return Some(Finding::problem(
                    CHECK,
                    format!(
                        "{} runs before us at the {hook} of {interface}: what it passes on or redirects is not judged",
                        in_front.join(", ")
                    ),
                    format!("detach it: bpftool net show dev {interface}"),
                ));
            }
            let others = foreign(&here).join(", ");
            let found = match ours {
                _ if others.is_empty() => return None,
                Some(_) => format!("{others} runs behind us at the {hook} of {interface}: it sees what was admitted"),
                None => format!("{others} is at the {hook} of {interface}: an agent goes in front of it"),
            };
            Some(Finding::note(CHECK, found, format!("see what it is: bpftool net show dev {interface}")))
        })
        .collect()
}

fn named(program: &OnHook) -> String {
    if program.name.is_empty() { "a filter without a program".to_owned() } else { program.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn on(ingress: bool, name: &str) -> OnHook {
        OnHook { ingress, name: name.to_owned(), ours: name == "from_pu" }
    }

    #[test]
    fn a_program_in_front_of_ours_is_a_problem_and_one_behind_is_not() {
        let [finding] = judge("veth0", &[on(true, "cil_from"), on(true, "from_pu")]).try_into().unwrap();
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.found.starts_with("cil_from runs before us at the ingress of veth0"), "{finding:?}");
        let [finding] = judge("veth0", &[on(true, "from_pu"), on(true, "cil_from")]).try_into().unwrap();
        assert_eq!(finding.level, Level::Note);
    }

    #[test]
    fn the_hooks_are_judged_apart() {
        let [finding] = judge("veth0", &[on(false, ""), on(true, "from_pu")]).try_into().unwrap();
        assert_eq!(finding.level, Level::Note);
        assert!(
            finding.found.starts_with("a filter without a program is at the egress of veth0"),
            "{finding:?}"
        );
    }

    #[test]
    fn ours_alone_is_nothing_to_tell() {
        assert!(judge("veth0", &[on(true, "from_pu")]).is_empty() && judge("veth0", &[]).is_empty());
    }
}
