use trireme_api::types::{Counter, DatapathStatus, PolicyStatus, Repair};
use trireme_identity::TagSet;
use trireme_identity::time::WallTime;

use super::*;

fn unit(name: &str) -> PuStatus {
    PuStatus {
        id: name.parse().unwrap(),
        state: PuState::Enforced,
        edge: format!("veth-{name}"),
        mode: "enforce".to_owned(),
        epoch: 3,
        tags: TagSet::parse(["role=web"]).unwrap(),
        ingress: "1 rule".to_owned(),
        egress: "nothing allowed".to_owned(),
        error: None,
        datapath: Some(PuDatapath {
            fast_path: true,
            fail_mode: "last-known-for 60s".to_owned(),
            edge: EdgeState::Attached,
            adopted: 2,
            adoption_error: None,
            repairs: 1,
            last_repair: Some(Repair { at: WallTime(60), text: "to-pu was detached".to_owned() }),
        }),
    }
}

fn status() -> Status {
    let counter = |pu: Option<&str>, reason: &str, count| Counter {
        pu: pu.map(|name| name.parse().unwrap()),
        reason: reason.to_owned(),
        count,
    };
    Status {
        version: "0.1.0".to_owned(),
        node: "node-a".parse().unwrap(),
        pid: 7,
        started_at: WallTime(1),
        datapath: DatapathStatus {
            kind: "bpf".to_owned(),
            detail: String::new(),
            gauges: BTreeMap::new(),
            counters: vec![
                counter(None, "stray", 9),
                counter(Some("web"), "accepted", 7),
                counter(Some("web"), "kernel/refused", 5),
                counter(Some("db"), "accepted", 1),
            ],
        },
        policy: PolicyStatus {
            source: "policy.yaml".to_owned(),
            revision: 1,
            loaded_at: WallTime(1),
            error: None,
        },
        secrets: "psk".to_owned(),
        authorization: "mutual".to_owned(),
        encoding: "cwt".to_owned(),
        warnings: Vec::new(),
        pus: vec![unit("web"), unit("db")],
        flow_records: 0,
        deny_list: None,
    }
}

fn shown(wanted: Option<&str>, format: StatusFormat) -> String {
    let wanted = wanted.map(|name| name.parse().unwrap());
    text(&status(), wanted.as_ref(), format).map_err(|_| "refused").unwrap()
}

#[test]
fn one_unit_is_shown_with_its_own_numbers() {
    let page = shown(Some("web"), StatusFormat::Table);
    for part in [
        "web\n",
        "  state        enforced, mode enforce, epoch 3\n",
        "  edge         veth-web: attached\n",
        "  fast path    on\n",
        "  fail mode    last-known-for 60s\n",
        "  adopted      2 connections older than the enforcement\n",
        "  repaired     1 times, last at 1970-01-01T00:01:00Z: to-pu was detached\n",
    ] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
    let numbers: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| !line.starts_with("REASON"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(numbers, [vec!["REASON", "COUNT"], vec!["accepted", "7"], vec!["kernel/refused", "5"]]);
    let wide = shown(Some("web"), StatusFormat::Wide);
    assert!(wide.contains("role=web") && wide.contains("The policy allows the connection."), "{wide}");
}

#[test]
fn json_and_yaml_hold_one_unit_or_a_list() {
    let one: serde_json::Value = serde_json::from_str(&shown(Some("db"), StatusFormat::Json)).unwrap();
    assert_eq!(one.pointer("/counters/accepted"), Some(&1.into()));
    assert_eq!(one.pointer("/datapath/edge"), Some(&"attached".into()));
    let all: serde_json::Value = serde_json::from_str(&shown(None, StatusFormat::Json)).unwrap();
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    assert_eq!(all.pointer("/0/counters/kernel~1refused"), Some(&5.into()));
    let yaml = shown(Some("db"), StatusFormat::Yaml);
    assert!(yaml.contains("id: db\n") && yaml.contains("accepted: 1\n"), "{yaml}");
    assert!(shown(None, StatusFormat::Yaml).contains("kernel/refused"), "both");
}

#[test]
fn a_unit_that_is_not_there_is_a_mistake_on_the_command_line() {
    let wanted = "cache".parse().unwrap();
    let Err(Failure::Usage(error)) = text(&status(), Some(&wanted), StatusFormat::Table) else {
        panic!("accepted");
    };
    assert_eq!(error.to_string(), "there is no processing unit cache on node node-a");
}
