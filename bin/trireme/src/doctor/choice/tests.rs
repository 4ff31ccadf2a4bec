use super::super::finding::Level;
use super::*;

const NO_BPF: &str = "the bpf data path needs CAP_BPF: run the agent as root, or grant it these capabilities";

fn everything() -> Abilities {
    Abilities {
        bpf_privileges: Ok(()),
        queue_privileges: Ok(()),
        bpf: Ok(()),
        rules: vec![(RuleBackEnd::Nft, Ok(()))],
    }
}

fn without_bpf() -> Abilities {
    Abilities { bpf_privileges: Err(NO_BPF.to_owned()), bpf: Err(NO_BPF.to_owned()), ..everything() }
}

#[test]
fn auto_takes_bpf_and_falls_back_to_queues_with_the_reason() {
    let chosen = judge(DatapathKind::Auto, &everything(), Held::default());
    assert_eq!(chosen.kind(), Some(DatapathKind::Bpf));
    assert_eq!(chosen.finding().level, Level::Ok);
    let chosen = judge(DatapathKind::Auto, &without_bpf(), Held::default());
    assert_eq!(chosen.kind(), Some(DatapathKind::Nfqueue));
    let finding = chosen.finding();
    assert_eq!(finding.level, Level::Note);
    assert!(finding.found.starts_with("auto chooses nfqueue because bpf cannot be used: "), "{finding:?}");
}

#[test]
fn auto_goes_on_with_queues_that_hold_units() {
    let chosen = judge(DatapathKind::Auto, &everything(), Held { bpf: 0, queues: 2 });
    assert_eq!(
        chosen.finding(),
        Finding::ok("data path", "auto chooses nfqueue because it holds 2 units from an earlier run")
    );
}

#[test]
fn units_are_never_left_to_two_data_paths() {
    for (kind, held, other) in [
        (DatapathKind::Bpf, Held { bpf: 0, queues: 1 }, "nfqueue"),
        (DatapathKind::Nfqueue, Held { bpf: 1, queues: 0 }, "bpf"),
    ] {
        let finding = judge(kind, &everything(), held).finding();
        assert_eq!(finding.level, Level::Problem);
        assert_eq!(finding.found, format!("1 units are still enforced by {other}"));
        assert!(finding.remedy.unwrap().contains(&format!("datapath.kind = \"{other}\"")));
    }
}

#[test]
fn a_configured_data_path_that_cannot_be_used_is_a_problem() {
    let finding = judge(DatapathKind::Bpf, &without_bpf(), Held::default()).finding();
    assert_eq!((finding.level, finding.found.contains("CAP_BPF")), (Level::Problem, true));
    let no_rules = Abilities { rules: vec![(RuleBackEnd::Nft, Err("x".to_owned()))], ..without_bpf() };
    for kind in [DatapathKind::Nfqueue, DatapathKind::Auto] {
        let chosen = judge(kind, &no_rules, Held::default());
        assert_eq!(chosen.kind(), None);
        assert!(chosen.finding().found.ends_with("nfqueue cannot be used: no way to write rules works"));
    }
}

#[test]
fn missing_capabilities_are_named_and_are_a_problem_only_where_they_are_wanted() {
    for (kind, level) in [
        (DatapathKind::Auto, Level::Note),
        (DatapathKind::Nfqueue, Level::Note),
        (DatapathKind::Bpf, Level::Problem),
    ] {
        let [bpf, queues] = capabilities(kind, &without_bpf()).try_into().unwrap();
        assert_eq!((bpf.level, bpf.found.as_str()), (level, "the bpf data path needs CAP_BPF"));
        assert_eq!(bpf.remedy.unwrap(), "run the agent as root, or grant it these capabilities");
        assert_eq!(queues, Finding::ok("capabilities", "enough for the nfqueue data path"));
    }
}
