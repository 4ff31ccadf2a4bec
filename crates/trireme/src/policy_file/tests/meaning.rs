//! What a policy file says about a processing unit.

use trireme_identity::{Direction, Protocol, TagSet};
use trireme_policy::Action::{self, Accept, Reject};
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, IpRule, Mode, Observe, Order, Peer, PuPolicy, Rule, Ruleset,
    Selector, Service, Services,
};

use super::yaml;
use crate::policy_file::{Format, PolicyFile};

const THREE_TIERS: &str = include_str!("../../../../../examples/three-tier/policy.yaml");

fn tags(list: &[&str]) -> TagSet {
    TagSet::parse(list.iter().copied()).unwrap()
}

/// The verdict about a peer with `from` reaching a unit with `to` on a TCP port.
fn admit(file: &PolicyFile, from: &[&str], to: &[&str], port: u16) -> Action {
    let policy = CompiledPolicy::compile(&file.policy_for(&tags(to))).unwrap();
    let from = tags(from);
    policy.decide(Direction::Ingress, &Peer { tags: &from, partial: false }, port, Protocol::TCP).action
}

/// A file with one policy for tier=web; `lines` are its fields from line 5 on.
fn web(lines: &str) -> PolicyFile {
    let fields: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    yaml(&format!("apiVersion: trireme/v1\npolicies:\n  - name: web\n    subject: {{tier: web}}\n{fields}"))
        .unwrap()
}

#[test]
fn the_three_tiers_admit_what_their_matrix_says() {
    let file = PolicyFile::parse(THREE_TIERS, Format::Yaml, "policy.yaml").unwrap();
    let tiers = ["tier=external", "tier=frontend", "tier=backend", "tier=database"];
    for port in [80, 8080, 6379] {
        let matrix = tiers.map(|from| tiers.map(|to| admit(&file, &[from], &[to], port)));
        let (a, d) = (Accept, Reject);
        assert_eq!(matrix, [[a, d, d, d], [a, a, a, d], [a, d, a, a], [a, d, d, a]]);
    }
    assert_eq!(admit(&file, &["tier=frontend"], &["tier=frontend"], 22), Reject);
    assert_eq!(file.warnings(), []);
    assert_eq!(file.policy_for(&tags(&["tier=external"])), PuPolicy::unrestricted());
    assert!(matches!(file.policy_for(&tags(&["tier=backend"])).egress, Ruleset::Unrestricted));
    assert_eq!(file.selecting(&tags(&["tier=backend"])).collect::<Vec<_>>(), ["backend"]);
}

#[test]
fn json_says_the_same_as_yaml() {
    let json = r#"{
	"apiVersion": "trireme/v1",
	"policies": [
		{"name": "backend", "subject": {"tier": "backend"}, "ingress": [
			{"name": "from-frontend-and-backend", "from": [{"tier": ["frontend", "backend"]}],
			 "ports": ["80/tcp", "8080/tcp", "6379/tcp"]}]}
	]
}"#;
    let json = PolicyFile::parse(json, Format::Json, "policy.json").unwrap();
    let yaml = PolicyFile::parse(THREE_TIERS, Format::Yaml, "policy.yaml").unwrap();
    let backend = tags(&["tier=backend"]);
    assert_eq!(json.policy_for(&backend), yaml.policy_for(&backend));
}

#[test]
fn a_file_is_read_in_the_format_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("p.yaml", "apiVersion: trireme/v1\npolicies: []\n"),
        ("p.json", r#"{"apiVersion": "trireme/v1", "policies": []}"#),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        assert_eq!(PolicyFile::load(&path).unwrap().policy_for(&TagSet::new()), PuPolicy::unrestricted());
    }
}

#[test]
fn absent_and_empty_directions_differ_and_default_deny_closes_the_absent_ones() {
    let empty = web("ingress: []").policy_for(&tags(&["tier=web"]));
    let closed = PuPolicy {
        ingress: Ruleset::Rules(Vec::new()),
        network_acls: Ruleset::Rules(Vec::new()),
        ..PuPolicy::unrestricted()
    };
    assert_eq!(empty, closed);
    assert_eq!(web("ingress: []").policy_for(&tags(&["tier=db"])), PuPolicy::unrestricted());
    let deny = yaml("apiVersion: trireme/v1\ndefault: deny\npolicies:\n  - {name: p, subject: {tier: web}, ingress: []}\n").unwrap();
    assert_eq!(deny.policy_for(&tags(&["tier=db"])), PuPolicy::deny_all());
    assert_eq!(deny.policy_for(&tags(&["tier=web"])), PuPolicy::deny_all());
}

#[test]
fn address_rules_restrict_the_whole_direction() {
    let file = web(
        "network_acls:\n  - {networks: [10.0.0.0/8, 192.0.2.1], except: [10.1.0.0/16], ports: [443/tcp, icmp/8]}",
    );
    let policy = file.policy_for(&tags(&["tier=web"]));
    assert!(policy.ingress.is_restricted() && !policy.egress.is_restricted());
    let compiled = CompiledPolicy::compile(&policy).unwrap();
    let from = |address: &str, port| {
        compiled.decide_ip(Direction::Ingress, address.parse().unwrap(), port, Protocol::TCP).action
    };
    let cases =
        [("10.0.0.1", 443), ("10.1.0.1", 443), ("192.0.2.1", 443), ("192.0.2.2", 443), ("10.0.0.1", 80)];
    assert_eq!(cases.map(|(address, port)| from(address, port)), [Accept, Reject, Accept, Reject, Reject]);
    assert_eq!(admit(&file, &["tier=app"], &["tier=web"], 443), Reject);
}

#[test]
fn policies_that_select_one_unit_add_up() {
    let file = yaml(
        "apiVersion: trireme/v1
policies:
  - {name: one, subject: {tier: web}, ingress: [{from: [{app: a}]}]}
  - {name: two, subject: {}, ingress: [{from: [{app: b}]}, {from: [{env: test}], action: reject}]}
  - {name: three, subject: {tier: db}, ingress: [{from: [{app: c}]}]}
",
    )
    .unwrap();
    let actions = |to: &str| ["app=a", "app=b", "app=c"].map(|from| admit(&file, &[from], &[to], 80));
    assert_eq!(actions("tier=web"), [Accept, Accept, Reject]);
    assert_eq!(actions("tier=db"), [Reject, Accept, Accept]);
    assert_eq!(admit(&file, &["app=a", "env=test"], &["tier=web"], 80), Reject);
}

#[test]
fn a_higher_priority_number_is_asked_later() {
    let file = web(
        "ingress:\n  - {from: [{app: a}], action: reject, priority: 2}\n  - {from: [{env: prod}], priority: 1}",
    );
    assert_eq!(admit(&file, &["app=a", "env=prod"], &["tier=web"], 80), Accept);
    assert_eq!(admit(&file, &["app=a"], &["tier=web"], 80), Reject);
}

#[test]
fn every_operator_means_what_it_says() {
    let admits = |selector: &str, from: &[&str]| {
        admit(&web(&format!("ingress:\n  - from: [{selector}]")), from, &["tier=web"], 80) == Accept
    };
    let cases: &[(&str, &[&str], bool)] = &[
        ("{}", &[], true),
        ("{k: a}", &["k=a"], true),
        ("{k: a}", &["k=ab"], false),
        ("{k: [a, b]}", &["k=b"], true),
        ("{k: [a, b]}", &["k=c"], false),
        ("{k: {equal: 'a*'}}", &["k=a*"], true),
        ("{k: {equal: 'a*'}}", &["k=ab"], false),
        ("{k: {all: [a, b]}}", &["k=a", "k=b"], true),
        ("{k: {all: [a, b]}}", &["k=a"], false),
        ("{k: {not: [a, b]}}", &["k=c"], true),
        ("{k: {not: [a, b]}}", &[], true),
        ("{k: {not: a}}", &["k=b", "k=a"], false),
        ("{k: {prefix: ab}}", &["k=abc"], true),
        ("{k: {prefix: [x, ab]}}", &["k=a"], false),
        ("{k: {exists: true}}", &["k="], true),
        ("{k: {exists: true}}", &["l="], false),
        ("{k: {exists: false}}", &["l="], true),
        ("{k: {exists: false}}", &["k="], false),
        ("{k: {exists: true, not: a}}", &["k=b"], true),
        ("{k: {exists: true, not: a}}", &[], false),
        ("{k: a, l: b}", &["k=a"], false),
        ("{k: a, l: b}", &["k=a", "l=b"], true),
        ("{k: a}, {l: b}", &["l=b"], true),
        ("{k: ''}", &["k="], true),
    ];
    for (selector, from, expected) in cases {
        assert_eq!(admits(selector, from), *expected, "{selector} about {from:?}");
    }
}

#[test]
fn every_field_of_a_rule_reaches_the_policy() {
    let file = yaml(
        "apiVersion: trireme/v1
mode: observe
complete_keys: [tier]
policies:
  - name: p
    subject: {}
    egress:
      - {name: r, to: [{a: b}], ports: [1-2/udp], action: reject, observe: apply, priority: 7, log: true, encrypt: true}
    application_acls:
      - {name: s, networks: [10.0.0.0/8], any_peer: true, observe: continue, log: true}
",
    )
    .unwrap();
    let policy = file.policy_for(&TagSet::new());
    assert_eq!(
        (policy.mode, policy.complete_keys.iter().map(|key| &**key).collect::<Vec<_>>()),
        (Mode::Observe, vec!["tier"])
    );
    let selector = Selector::new([Clause::equal("a", ["b"])]);
    let services = Services::Only(vec![Service::ports(Protocol::UDP, 1, 2).unwrap()]);
    let flow = FlowPolicy { observe: Observe::Apply, log: true, encrypt: true, ..FlowPolicy::reject() };
    let order = Order { tier: 0, priority: 7 };
    let rule = Rule { order, ..Rule::new([selector], services, flow.named("p", "r")) };
    assert_eq!(policy.egress, Ruleset::Rules(vec![rule]));
    let flow = FlowPolicy { observe: Observe::Continue, log: true, ..FlowPolicy::accept() };
    let networks = ["10.0.0.0/8".parse().unwrap()];
    let acl = IpRule { any_peer: true, ..IpRule::new(networks, Services::Any, flow.named("p", "s")) };
    assert_eq!(policy.application_acls, Ruleset::Rules(vec![acl]));
}

#[test]
fn what_could_be_misread_as_protection_is_said() {
    let said =
        |text: &str| yaml(text).unwrap().warnings().iter().map(ToString::to_string).collect::<Vec<_>>();
    let head = "apiVersion: trireme/v1\n";
    let one = |fields: &str| said(&format!("{head}policies:\n  - {{name: p, subject: {{}}, {fields}}}\n"));
    assert_eq!(
        said(&format!("{head}policies: []\n")),
        ["policy.yaml:1:1: there is no policy: everything is admitted"]
    );
    assert_eq!(
        said(&format!("{head}mode: observe\ndefault: deny\npolicies: []\n")),
        [
            "policy.yaml:1:1: mode is observe: verdicts are recorded and nothing is refused",
            "policy.yaml:1:1: there is no policy and default is deny: everything is refused"
        ]
    );
    assert_eq!(
        said(&format!("{head}policies:\n  - {{name: p, subject: {{}}}}\n")),
        ["policy.yaml:3:12: policy \"p\" says nothing about any direction and has no effect"]
    );
    assert_eq!(
        one("ingress: []"),
        ["policy.yaml:3:12: policy \"p\" is empty for ingress: by itself it admits nothing"]
    );
    assert_eq!(
        one("network_acls: [{networks: [0.0.0.0/0]}]"),
        [
            "policy.yaml:3:12: policy \"p\" has network_acls and no ingress: it admits no peer with an identity",
            "policy.yaml:3:54: policy \"p\" admits peers without an identity from every address: identity can be avoided"
        ]
    );
    assert_eq!(
        one("egress: [{name: r, to: [{}], observe: continue, ports: []}]"),
        [
            "policy.yaml:3:51: policy \"p\", rule \"r\" only observes: it reports and decides nothing",
            "policy.yaml:3:51: policy \"p\", rule \"r\" has an empty list of ports and matches nothing"
        ]
    );
    assert_eq!(
        one("ingress: [], network_acls: [{networks: [10.1.2.3/8], except: [10.1.2.3/16], ports: [80/udp]}]"),
        [
            "policy.yaml:3:67: policy \"p\", 10.1.2.3/8 has bits behind its prefix and is read as 10.0.0.0/8: write that for the network or 10.1.2.3/32 for the address",
            "policy.yaml:3:67: policy \"p\", 10.1.2.3/16 has bits behind its prefix and is read as 10.1.0.0/16: write that for the network or 10.1.2.3/32 for the address"
        ]
    );
    assert_eq!(
        one("ingress: [{from: [], observe: apply}]"),
        [
            "policy.yaml:3:45: policy \"p\" only observes: it acts where no other rule does",
            "policy.yaml:3:45: policy \"p\" has a rule with an empty from list, which matches nothing"
        ]
    );
}

#[test]
fn the_example_of_the_specification_is_a_valid_file() {
    let specification = include_str!("../../../../../docs/spec/policy.md");
    let (_, rest) = specification.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let file = PolicyFile::parse(example, Format::Yaml, "policy.md").unwrap();
    assert_eq!(file.warnings(), []);
    assert_eq!(admit(&file, &["tier=backend", "env=prod"], &["tier=backend"], 8000), Accept);
    assert_eq!(admit(&file, &["tier=backend", "env=test"], &["tier=backend"], 8000), Reject);
}
