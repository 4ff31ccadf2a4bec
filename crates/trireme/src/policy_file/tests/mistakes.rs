//! What is said about mistakes: place, cause, remedy.

use std::path::Path;

use super::yaml;
use crate::policy_file::{Format, PolicyFile, PolicyFileError};

/// A text and what is said about it, after the file's name.
type Case = (&'static str, &'static str);

/// Whole files.
const FILES: &[Case] = &[
    ("", "1:1: the file is empty: it needs at least apiVersion: trireme/v1 and policies: []"),
    ("policies: []\n", "1:1: the field \"apiVersion\" is missing: write apiVersion: trireme/v1"),
    ("apiVersion: trireme/v1\n", "1:1: the field \"policies\" is missing: write policies: [] for none"),
    ("apiVersion: trireme/v2\npolicies: []\n", "1:13: expected one of: trireme/v1; found \"trireme/v2\""),
    ("apiVersion: [trireme/v1]\npolicies: []\n", "1:13: expected one word"),
    (
        "apiVersion: trireme/v1\napiversion: trireme/v1\npolicies: []\n",
        "2:1: unknown field \"apiversion\", did you mean \"apiVersion\"?",
    ),
    ("apiVersion: trireme/v1\npolices: []\n", "2:1: unknown field \"polices\", did you mean \"policies\"?"),
    (
        "apiVersion: trireme/v1\npolicies: []\nfavourite: 1\n",
        "3:1: unknown field \"favourite\"; known here: apiVersion, default, mode, complete_keys, policies",
    ),
    ("apiVersion: trireme/v1\npolicies: {}\n", "2:11: expected a list, as in [a, b], or [] for none"),
    ("apiVersion: trireme/v1\npolicies:\n", "2:9: expected a list, as in [a, b], or [] for none"),
    ("apiVersion: trireme/v1\npolicies: []\npolicies: []\n", "3:1: \"policies\" is given twice"),
    (
        "apiVersion: trireme/v1\ndefault: dney\npolicies: []\n",
        "2:10: expected one of: allow, deny; found \"dney\"",
    ),
    ("apiVersion: trireme/v1\ndefault:\npolicies: []\n", "2:8: expected one of: allow, deny; found nothing"),
    (
        "apiVersion: trireme/v1\nmode: observed\npolicies: []\n",
        "2:7: expected one of: enforce, observe, off; found \"observed\"",
    ),
    ("apiVersion: trireme/v1\nmode: [off]\npolicies: []\n", "2:7: expected one word"),
    (
        "apiVersion: trireme/v1\ncomplete_keys: tier\npolicies: []\n",
        "2:16: expected a list, as in [a, b], or [] for none",
    ),
    (
        "apiVersion: trireme/v1\ncomplete_keys: ['@port']\npolicies: []\n",
        "2:17: \"@port\" is no tag of a peer: name the destination port under ports, as in ports: [80/tcp]",
    ),
    (
        "apiVersion: trireme/v1\npolicies: []\n---\napiVersion: trireme/v1\n",
        "4:1: a policy file holds one document: remove the second ---",
    ),
    ("- a\n", "1:1: expected fields, as in name: value"),
    ("text", "1:1: expected fields, as in name: value"),
    ("apiVersion: trireme/v1\npolicies: [\n", "2:11: cannot be read as YAML: unclosed bracket '['"),
    (
        "apiVersion: trireme/v1\n\tmode: off\n",
        "1:13: cannot be read as YAML: while scanning a plain scalar, found a tab",
    ),
];

/// Fields of the policy on line 3.
const POLICIES: &[Case] = &[
    (
        "subject: {}",
        "3:6: the field \"name\" is missing: write name: and a name for reports, as in name: frontend",
    ),
    (
        "name: p",
        "3:6: the field \"subject\" is missing: write the tags of the units it is about, as in subject: {tier: frontend}, or {} for all of them",
    ),
    (
        "name: '', subject: {}",
        "3:12: a name has 1 to 128 bytes and no control characters, as in \"frontend\"",
    ),
    ("name: [p], subject: {}", "3:12: expected a single value"),
    ("name: , subject: {}", "3:10: expected a text, found nothing"),
    ("name: p, subject: tier", "3:24: expected fields, as in name: value"),
    ("name: p, subject: ", "3:22: expected fields, as in name: value"),
    ("name: p, subject: {}, ingres: []", "3:28: unknown field \"ingres\", did you mean \"ingress\"?"),
    (
        "name: p, subject: {}, network-acls: []",
        "3:28: unknown field \"network-acls\", did you mean \"network_acls\"?",
    ),
    ("name: p, subject: {}, ingress: ", "3:35: expected a list, as in [a, b], or [] for none"),
    ("name: p, subject: {}, ingress: deny", "3:37: expected a list, as in [a, b], or [] for none"),
    ("name: p, subject: {}, ingress: [web]", "3:38: expected fields, as in name: value"),
    ("name: p, subject: {}, egress: 5", "3:36: expected a list, as in [a, b], or [] for none"),
    ("name: p, subject: {}, network_acls: {}", "3:42: expected a list, as in [a, b], or [] for none"),
    ("name: p, subject: {}, application_acls: ~", "3:46: expected a list, as in [a, b], or [] for none"),
    (
        "name: p, subject: {}, egress: [{from: []}]",
        "3:38: unknown field \"from\"; known here: name, to, ports, action, observe, priority, log, encrypt",
    ),
    (
        "name: p, subject: {}, egress: [{}]",
        "3:37: the field \"to\" is missing: write the peers, as in to: [{tier: backend}], or to: [{}] for every peer with an identity",
    ),
    (
        "name: p, subject: {}, ingress: [{ports: [80/tcp]}]",
        "3:39: the field \"from\" is missing: write the peers, as in from: [{tier: frontend}], or from: [{}] for every peer with an identity",
    ),
    (
        "name: p, subject: {}, ingress: [{to: [{}]}]",
        "3:39: unknown field \"to\"; known here: name, from, ports, action, observe, priority, log, encrypt",
    ),
    (
        "name: p, subject: {}, ingress: [{from: tier=web}]",
        "3:45: expected a list, as in [a, b], or [] for none",
    ),
];

/// Fields of an ingress rule on line 6, behind its peers.
const RULES: &[Case] = &[
    ("prots: [80/tcp]", "6:22: unknown field \"prots\", did you mean \"ports\"?"),
    ("ports: 80/tcp", "6:29: expected a list, as in [a, b], or [] for none"),
    ("ports: ", "6:27: expected a list, as in [a, b], or [] for none"),
    ("ports: [80]", "6:30: 80 names no protocol: write 80/tcp or 80/udp"),
    (
        "ports: [80/tpc]",
        "6:30: \"tpc\" names no protocol: write tcp, udp, sctp, dccp, udplite, icmp, icmpv6, igmp or a number from 0 to 255, as in \"80/tcp\"",
    ),
    (
        "ports: [http/tcp]",
        "6:30: \"http\" is not a port from 0 to 65535, as in \"80/tcp\" or \"8000-8100/tcp\"",
    ),
    (
        "ports: [70000/tcp]",
        "6:30: \"70000\" is not a port from 0 to 65535, as in \"80/tcp\" or \"8000-8100/tcp\"",
    ),
    ("ports: [90-80/tcp]", "6:30: the port range 90-80 is empty: write the lower port first"),
    (
        "ports: [icmp/300]",
        "6:30: \"300\" is not an ICMP type or code from 0 to 255, as in \"icmp/8\" or \"icmp/3/4\"",
    ),
    ("ports: [80/icmp]", "6:30: icmp has no ports: write icmp alone"),
    ("ports: [{port: 80}]", "6:30: expected a single value"),
    ("action: allow", "6:30: expected one of: reject, accept; found \"allow\""),
    ("action: pass", "6:30: expected one of: reject, accept; found \"pass\""),
    ("action: ", "6:28: expected one of: reject, accept; found nothing"),
    ("action: [accept]", "6:30: expected one word"),
    ("observe: true", "6:31: expected one of: none, continue, apply; found \"true\""),
    ("priority: -1", "6:32: expected a whole number from 0 to 4294967295"),
    ("priority: high", "6:32: expected a whole number from 0 to 4294967295"),
    ("priority: 4294967296", "6:32: expected a whole number from 0 to 4294967295"),
    ("priority: ", "6:30: expected a whole number from 0 to 4294967295"),
    ("log: maybe", "6:27: expected true or false"),
    ("log: ", "6:25: expected true or false"),
    ("encrypt: 1", "6:31: expected true or false"),
    ("name: ", "6:26: expected a text, found nothing"),
    ("name: \"a\\u0007\"", "6:28: a name has 1 to 128 bytes and no control characters, as in \"frontend\""),
];

/// Fields of an address rule on line 6.
const ACLS: &[Case] = &[
    (
        "except: []",
        "6:10: the field \"networks\" is missing: write the networks, as in networks: [10.0.0.0/8]",
    ),
    ("networks: 10.0.0.0/8", "6:20: expected a list, as in [a, b], or [] for none"),
    ("networks: [ten]", "6:21: \"ten\" is no network: write it as \"10.0.0.0/8\" or \"fd00::/8\""),
    (
        "networks: [10.0.0.0/33]",
        "6:21: \"10.0.0.0/33\" is no network: write it as \"10.0.0.0/8\" or \"fd00::/8\"",
    ),
    ("networks: ", "6:18: expected a list, as in [a, b], or [] for none"),
    (
        "networks: [10.0.0.0/8], except: [10.1.0.0/16, 11.0.0.0/9]",
        "6:56: 11.0.0.0/9 lies in none of the rule's networks: remove it, or write it as a rule that rejects",
    ),
    (
        "networks: [10.1.0.0/16], except: [10.0.0.0/8]",
        "6:44: 10.0.0.0/8 lies in none of the rule's networks: remove it, or write it as a rule that rejects",
    ),
    (
        "networks: [fd00::/8], ports: [icmp/8]",
        "6:20: icmp belongs to IPv4 networks and icmpv6 to IPv6 networks: this rule can match nothing",
    ),
    (
        "networks: [10.0.0.0/8], ports: [icmpv6/128, icmpv6/1]",
        "6:20: icmp belongs to IPv4 networks and icmpv6 to IPv6 networks: this rule can match nothing",
    ),
    ("networks: [10.0.0.0/8], except: ", "6:40: expected a list, as in [a, b], or [] for none"),
    ("networks: [10.0.0.0/8], any_peer: often", "6:44: expected true or false"),
    ("networks: [10.0.0.0/8], anypeer: true", "6:34: unknown field \"anypeer\", did you mean \"any_peer\"?"),
    (
        "networks: [10.0.0.0/8], encrypt: true",
        "6:34: unknown field \"encrypt\"; known here: name, networks, except, ports, action, observe, priority, any_peer, log",
    ),
    ("networks: [10.0.0.0/8], log: [true]", "6:39: expected a single value"),
];

/// The one selector of an ingress rule on line 6.
const SELECTORS: &[Case] = &[
    ("web", "6:16: expected fields, as in name: value"),
    ("[tier, web]", "6:16: expected fields, as in name: value"),
    (
        "{tier: }",
        "6:17: expected a text (in quotes if it looks like a number or truth value), a list of texts, or operators as in {not: [test]}, found nothing",
    ),
    (
        "{tier: 1.10}",
        "6:17: expected a text (in quotes if it looks like a number or truth value), a list of texts, or operators as in {not: [test]}, found floating point `1.1`",
    ),
    (
        "{tier: true}",
        "6:17: expected a text (in quotes if it looks like a number or truth value), a list of texts, or operators as in {not: [test]}, found boolean `true`",
    ),
    ("{tier: [web, 7]}", "6:29: expected a text in quotes, as in \"1.10\", found integer `7`"),
    ("{tier: []}", "6:23: the list of values is empty: name at least one value"),
    (
        "{tier: 'web*'}",
        "6:23: \"web*\" ends with a star: write {prefix: \"web\"} for every value that begins so, or {equal: \"web*\"} for the star itself",
    ),
    (
        "{tier: [app, 'web*']}",
        "6:23: \"web*\" ends with a star: write {prefix: \"web\"} for every value that begins so, or {equal: \"web*\"} for the star itself",
    ),
    ("{tier: {}}", "6:23: no operator is given: write equal, all, not, prefix or exists"),
    ("{tier: {note: x}}", "6:24: unknown field \"note\", did you mean \"not\"?"),
    ("{tier: {not: []}}", "6:29: the list of values is empty: name at least one value"),
    (
        "{tier: {not: 5}}",
        "6:24: expected a text (in quotes if it looks like a number or truth value) or a list of texts, found integer `5`",
    ),
    (
        "{tier: {not: {a: b}}}",
        "6:29: expected a text (in quotes if it looks like a number or truth value) or a list of texts, found map",
    ),
    ("{tier: {exists: maybe}}", "6:32: expected true or false"),
    ("{tier: {exists: }}", "6:30: expected true or false"),
    (
        "{tier: {prefix: }}",
        "6:24: expected a text (in quotes if it looks like a number or truth value) or a list of texts, found nothing",
    ),
    ("{'': web}", "6:17: a tag needs a key before the '=', as in tier: frontend"),
    ("{tier=web: web}", "6:17: a key holds no '=': write tier: frontend, not \"tier=web\""),
    ("{tier=web}", "6:17: a key holds no '=': write tier: frontend, not \"tier=web\""),
    (
        "{'@port': '80'}",
        "6:17: \"@port\" is no tag of a peer: name the destination port under ports, as in ports: [80/tcp]",
    ),
    ("{tier: web, tier: app}", "6:28: \"tier\" is given twice"),
    ("{tier: \"a\\u0007\"}", "6:23: a tag holds no control characters"),
];

/// Whole JSON files.
const JSON: &[Case] = &[
    ("apiVersion: trireme/v1\n", "1:1: not JSON: expected value"),
    ("{\"apiVersion\": \"trireme/v1\",\n \"policies\": [],}", "2:17: not JSON: key must be a string"),
    ("{\"apiVersion\": \"trireme/v1\",\n \"policies\": [", "2:14: not JSON: EOF while parsing a list"),
    (
        "{\"apiVersion\": \"trireme/v1\",\n \"polices\": []}",
        "2:2: unknown field \"polices\", did you mean \"policies\"?",
    ),
    (
        "{\"apiVersion\": \"trireme/v1\", \"policies\": [\n\t{\"name\": \"p\", \"subject\": {\"tier\": 1}}]}",
        "2:28: expected a text (in quotes if it looks like a number or truth value), a list of texts, or operators as in {not: [test]}, found integer `1`",
    ),
    (
        "{\"apiVersion\": \"trireme/v1\", \"policies\": [\n {\"name\": \"p\", \"subject\": {}, \"ingress\": null}]}",
        "2:42: expected a list, as in [a, b], or [] for none",
    ),
];

#[test]
fn every_mistake_in_the_file_as_a_whole_is_placed_and_answered() {
    check(FILES, str::to_owned);
}

#[test]
fn every_mistake_in_a_policy_is_placed_and_answered() {
    check(POLICIES, |fields| format!("apiVersion: trireme/v1\npolicies:\n  - {{{fields}}}\n"));
}

#[test]
fn every_mistake_in_a_rule_is_placed_and_answered() {
    check(RULES, |fields| policy("ingress", &format!("{{from: [{{}}], {fields}}}")));
}

#[test]
fn every_mistake_in_an_address_rule_is_placed_and_answered() {
    check(ACLS, |fields| policy("network_acls", &format!("{{{fields}}}")));
}

#[test]
fn every_mistake_in_a_selector_is_placed_and_answered() {
    check(SELECTORS, |selector| policy("ingress", &format!("from: [{selector}]")));
}

#[test]
fn json_is_held_to_json_and_its_mistakes_are_placed_too() {
    for (text, expected) in JSON {
        let error = PolicyFile::parse(text, Format::Json, "policy.json").unwrap_err();
        assert_eq!(error.to_string(), format!("policy.json:{expected}"), "in {text:?}");
    }
}

#[test]
fn a_policy_name_stands_for_one_policy() {
    let text =
        "apiVersion: trireme/v1\npolicies:\n  - name: p\n    subject: {}\n  - name: p\n    subject: {}\n";
    let expected = "policy.yaml:5:11: the policy name \"p\" is used twice: give each policy its own";
    assert_eq!(yaml(text).unwrap_err(), expected);
}

#[test]
fn a_file_of_another_ending_or_without_content_to_read_is_named() {
    let error = PolicyFile::load(Path::new("/etc/policy.toml")).unwrap_err();
    assert_eq!(error.to_string(), "/etc/policy.toml: a policy file's name ends with .yaml, .yml or .json");
    let error = PolicyFile::load(Path::new("/nonexistent/policy.yaml")).unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/policy.yaml: cannot read the policy file");
    assert!(
        matches!(error, PolicyFileError::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_read_and_never_a_panic() {
    let text = include_str!("../../../../../examples/three-tier/policy.yaml");
    let accepted = (0..=text.len())
        .filter_map(|end| text.get(..end))
        .filter(|cut| PolicyFile::parse(cut, Format::Yaml, "policy.yaml").is_ok())
        .count();
    assert!((1..text.len()).contains(&accepted), "{accepted} of {}", text.len());
}

/// A valid file but for the item on line 6, the first of the list `field` of the only policy.
fn policy(field: &str, item: &str) -> String {
    format!(
        "apiVersion: trireme/v1\npolicies:\n  - name: p\n    subject: {{}}\n    {field}:\n      - {item}\n"
    )
}

fn check(cases: &[Case], file: impl Fn(&str) -> String) {
    for (text, expected) in cases {
        let said = yaml(&file(text)).map_or_else(|error| error, |_| "accepted".to_owned());
        assert_eq!(said, format!("policy.yaml:{expected}"), "in {text:?}");
    }
}
