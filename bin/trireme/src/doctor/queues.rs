//! What the kernel has for queues and rules.

use std::path::Path;

use trireme::datapath::nfqueue::RuleBackEnd;

use super::choice::Abilities;
use super::finding::Finding;
use super::read;
use crate::config::DatapathKind;

/// Looks at queues and rules.
pub(super) fn look(kind: DatapathKind, abilities: &Abilities) -> Vec<Finding> {
    if kind == DatapathKind::Bpf {
        return Vec::new();
    }
    // Modules that are not loaded yet are asked for only by whoever opens a queue.
    let loaded = Path::new("/proc/net/netfilter/nfnetlink_queue").exists();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let modules =
        ["modules.dep", "modules.builtin"].map(|file| read::text(&format!("/lib/modules/{release}/{file}")));
    let loadable = modules.iter().flatten().any(|list| list.contains("/nfnetlink_queue.ko"));
    let mut findings = vec![queue(kind, loaded, loadable)];
    let some = abilities.rules.iter().any(|(_, works)| works.is_ok());
    findings.extend(abilities.rules.iter().map(|(back_end, works)| rules(*back_end, works, some)));
    findings
}

fn queue(kind: DatapathKind, loaded: bool, loadable: bool) -> Finding {
    const CHECK: &str = "queues";
    if loaded {
        return Finding::ok(CHECK, "the kernel has netfilter queues");
    }
    if loadable {
        return Finding::ok(
            CHECK,
            "the kernel has netfilter queues as a module, which is loaded when it is needed",
        );
    }
    let finding = if kind == DatapathKind::Nfqueue { Finding::problem } else { Finding::note };
    finding(
        CHECK,
        "the kernel shows no netfilter queues".to_owned(),
        "modprobe nfnetlink_queue, or use a kernel with NETFILTER_NETLINK_QUEUE".to_owned(),
    )
}

/// One way to write rules is enough; what the choice makes of none is told there.
fn rules(back_end: RuleBackEnd, works: &Result<(), String>, some: bool) -> Finding {
    match works {
        Ok(()) => Finding::ok("rules", format!("{back_end} works")),
        Err(reason) => {
            let reason =
                reason.strip_prefix(&format!("back end {back_end} cannot be used here: ")).unwrap_or(reason);
            let reason = shorter(reason);
            let remedy = if some { "nothing to do: another way works" } else { "install what is missing" };
            Finding::note("rules", format!("{back_end} does not work: {reason}"), remedy)
        }
    }
}

/// Of what a program says about every rule, the first error, and what the kernel needs.
fn shorter(reason: &str) -> String {
    let Some((said, needed)) = reason.rsplit_once(": a kernel with ") else { return reason.to_owned() };
    let first = said.split_once("Error: ").map_or(said, |(_, errors)| errors);
    let first = first.split_once(';').map_or(first, |(first, _)| first);
    format!("{first}; a kernel with {needed}")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn queues_that_can_be_loaded_are_as_good_as_loaded_ones() {
        assert_eq!(queue(DatapathKind::Auto, true, false).level, Level::Ok);
        assert_eq!(queue(DatapathKind::Nfqueue, false, true).level, Level::Ok);
        assert_eq!(queue(DatapathKind::Auto, false, false).level, Level::Note);
        let finding = queue(DatapathKind::Nfqueue, false, false);
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.remedy.unwrap().starts_with("modprobe nfnetlink_queue"));
    }

    #[test]
    fn a_way_to_write_rules_that_fails_is_noted_with_its_reason() {
        let refused =
            Err("back end iptables-legacy cannot be used here: program iptables-legacy is not installed"
                .to_owned());
        let finding = rules(RuleBackEnd::IptablesLegacy, &refused, true);
        assert_eq!(
            finding,
            Finding::note(
                "rules",
                "iptables-legacy does not work: program iptables-legacy is not installed",
                "nothing to do: another way works"
            )
        );
        assert_eq!(rules(RuleBackEnd::Nft, &Ok(()), true), Finding::ok("rules", "nft works"));
    }

    #[test]
    fn of_many_errors_about_rules_the_first_is_told() {
        let said = "nft says /dev/stdin:12:51-55: Error: Could not process rule: No such file; add rule x; ^^: a kernel with NFT_QUEUE is needed";
        assert_eq!(shorter(said), "Could not process rule: No such file; a kernel with NFT_QUEUE is needed");
        assert_eq!(shorter("program nft is not installed"), "program nft is not installed");
    }
}
