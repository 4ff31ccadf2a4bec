//! What keeps an agent from starting, found before anything is changed.

use std::process::Command;

use trireme_identity::time::WallTime;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::{Constraints, SeededRandom, SigningKey};

use crate::stage::{Netns, PSK, Stage, outcome};

const PKI: &str = "[secrets.pki]\nkey = \"a.key.pem\"\ncredential = { certificate = \"a.cert.pem\" }\n[[secrets.pki.roots]]\nname = \"demo\"\ncertificate = \"ca.cert.pem\"\n";
const PSK_FILE: &str = "[secrets.psk]\nfile = \"psk\"\n";
const PU: &str = "[[pu]]\nname = \"web\"\ntags = [\"role=web\"]\ninterface = \"veth-web\"\n";

/// Writes agent.toml from its parts.
fn configure(stage: &Stage, secrets: &str, rest: &str) {
    let instance = format!("cli-{}", std::process::id());
    stage.write(
        "agent.toml",
        &format!(
            "[node]\nid = \"node-a\"\nstate_dir = \"state\"\nsocket = \"agent.sock\"\n[datapath]\ninstance = \"{instance}\"\n[policy]\nfile = \"policy.yaml\"\n{secrets}{rest}"
        ),
    );
}

fn check(stage: &Stage, netns: Option<&Netns>, psk: Option<&str>) -> (i32, String, String) {
    let mut command = stage.command();
    command.args(["agent", "--config", "agent.toml", "--check"]);
    if let Some(psk) = psk {
        command.env("TRIREME_PSK", psk);
    }
    match netns {
        Some(netns) => outcome(&mut netns.wrap(&command)),
        None => outcome(&mut command),
    }
}

fn pki_stage() -> Stage {
    let stage = Stage::new();
    assert_eq!(stage.run(&["keys", "ca", "--name", "demo", "--out", "ca"]).0, 0);
    assert_eq!(stage.run(&["keys", "node", "--id", "node-a", "--ca", "ca", "--out", "a"]).0, 0);
    stage
}

#[track_caller]
fn refused(found: (i32, String, String), expected: &str) {
    let (code, _, error) = found;
    assert_eq!(code, 2, "{error}");
    assert!(error.contains(expected), "expected {expected:?} in {error}");
    assert!(!error.contains(PSK), "{error}");
}

#[test]
fn a_complete_configuration_passes_and_changes_nothing() {
    let (stage, netns) = (pki_stage(), Netns::new("pass"));
    configure(&stage, PKI, PU);
    let (code, out, error) = check(&stage, Some(&netns), None);
    assert_eq!(code, 0, "{error}");
    assert!(out.ends_with("everything a start needs is there\n"), "{out}");
    assert!(
        out.contains("warning: no rule speaks about web: it is unrestricted in both directions"),
        "{out}"
    );
    assert!(!stage.path().join("state").exists() && !stage.path().join("agent.sock").exists());
}

#[test]
fn pre_shared_keys_that_are_none_are_refused() {
    let stage = Stage::new();
    configure(&stage, "", "");
    refused(check(&stage, None, None), "there is no pre-shared key: set secrets.psk.file or TRIREME_PSK");
    refused(check(&stage, None, Some("")), "TRIREME_PSK is not usable: the pre-shared key is empty");
    refused(check(&stage, None, Some("short")), "the pre-shared key has 5 bytes, it needs at least 16");
    refused(check(&stage, None, Some("BADPASSBADPASSBADPASS")), "well-known default");
    configure(&stage, PSK_FILE, "");
    refused(check(&stage, None, None), "cannot read");
    stage.write("psk", "short\n");
    refused(check(&stage, None, None), "psk is not usable: the pre-shared key has 5 bytes");
    let path = stage.write("psk", PSK);
    refused(check(&stage, None, Some(PSK)), "secrets.psk.file and TRIREME_PSK both give a key: keep one");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(check(&stage, None, None), "can be read by other users (mode 644): chmod 600 it");
}

#[test]
fn keys_and_credentials_that_do_not_fit_are_refused() {
    let stage = pki_stage();
    configure(&stage, PKI, PU);
    refused(check(&stage, None, Some(PSK)), "TRIREME_PSK is set, but [secrets.pki] is configured");
    assert_eq!(stage.run(&["keys", "node", "--id", "node-b", "--ca", "ca", "--out", "b"]).0, 0);
    configure(&stage, &PKI.replace("\"a.cert.pem", "\"b.cert.pem"), PU);
    refused(check(&stage, None, None), "b.cert.pem is for node node-b, but node.id is node-a");
    assert_eq!(stage.run(&["keys", "node", "--id", "node-a", "--ca", "ca", "--out", "other"]).0, 0);
    configure(&stage, &PKI.replace("\"a.cert.pem", "\"other.cert.pem"), PU);
    refused(check(&stage, None, None), "is for another key than the node's");
    configure(&stage, &PKI.replace("\"a.cert.pem", "\"a.token.pem"), PU);
    refused(check(&stage, None, None), "holds a key token: write credential = { key_token = … }");
    configure(&stage, &PKI.replace("a.key.pem", "ca.cert.pem"), PU);
    refused(check(&stage, None, None), "ca.cert.pem is not a node's key; make one with `trireme keys node`");
    configure(&stage, &PKI.replace("ca.cert.pem", "a.cert.pem"), PU);
    refused(check(&stage, None, None), "trust root demo");
    assert_eq!(stage.run(&["keys", "ca", "--name", "foreign", "--out", "foreign"]).0, 0);
    configure(&stage, &PKI.replace("ca.cert.pem", "foreign.cert.pem"), PU);
    refused(check(&stage, None, None), "no root in secrets.pki.roots vouches for");
    configure(&stage, &PKI.replace("ca.cert.pem", "none.pem"), PU);
    refused(check(&stage, None, None), "cannot read the trust root");
}

#[test]
fn a_tag_that_the_node_may_not_claim_is_refused() {
    let stage = pki_stage();
    let node = ["keys", "node", "--id", "node-a", "--ca", "ca", "--out", "bound", "--allow", "role=db"];
    assert_eq!(stage.run(&node).0, 0);
    configure(&stage, &PKI.replace("\"a.", "\"bound."), PU);
    refused(check(&stage, None, None), "web may not claim role=web");
    configure(&stage, &format!("{PKI}allow = [\"env\"]\n"), PU);
    refused(check(&stage, None, None), "web may not claim role=web");
}

#[test]
fn an_expired_credential_is_refused_with_its_date() {
    let stage = Stage::new();
    let mut random = SeededRandom::new([3; 32]);
    let period = |lifetime_secs| Period { now: WallTime(1_600_000_000), lifetime_secs };
    let ca =
        Authority::create("old", &Constraints::Unrestricted, period(4_000_000_000), &mut random).unwrap();
    let key = SigningKey::generate(&mut random).unwrap();
    let request = NodeRequest {
        node: "node-a".parse().unwrap(),
        key: key.public().clone(),
        constraints: Constraints::Unrestricted,
        period: period(1000),
    };
    stage.write("a.key.pem", &key.to_pem());
    stage.write("ca.cert.pem", &ca.certificate_pem());
    stage.write("a.cert.pem", &ca.certify(&request, &mut random).unwrap().to_pem());
    configure(&stage, PKI, PU);
    refused(
        check(&stage, None, None),
        "a.cert.pem expired on 2020-09-13T12:43:20Z: make a new one with `trireme keys node`",
    );
}

#[test]
fn a_token_over_the_budget_is_refused_with_its_longest_tags() {
    let (stage, netns) = (pki_stage(), Netns::new("budget"));
    let long = format!(
        "[[pu]]\nname = \"web\"\ntags = [\"role=web\", \"note={}\"]\ninterface = \"veth-web\"\n",
        "x".repeat(500)
    );
    configure(&stage, PKI, &format!("[token]\nsize_budget = 600\n{long}"));
    let found = check(&stage, Some(&netns), None);
    assert!(found.2.contains("note (505 bytes)") && found.2.contains("the limit is 600"), "{}", found.2);
    refused(found, "web cannot be enforced");
    configure(
        &stage,
        PKI,
        &format!("[identity.tags]\nexclude = [\"note\"]\n[token]\nsize_budget = 900\n{long}"),
    );
    assert_eq!(check(&stage, Some(&netns), None).0, 0);
}

#[test]
fn an_edge_that_is_not_there_is_refused() {
    let (stage, netns) = (pki_stage(), Netns::new("edge"));
    configure(&stage, PKI, &PU.replace("veth-web", "veth-none"));
    let absent = "web cannot be enforced: there is no interface veth-none: create it before the agent starts, or correct its name";
    refused(check(&stage, Some(&netns), None), absent);
    configure(&stage, PKI, &PU.replace("interface = \"veth-web\"", "netns = \"/run/netns/trcli-none\""));
    refused(check(&stage, Some(&netns), None), "the network namespace /run/netns/trcli-none cannot be used");
    configure(&stage, PKI, &PU.replace("interface = \"veth-web\"", "netns = \"/etc/hostname\""));
    refused(check(&stage, Some(&netns), None), "/etc/hostname is not a network namespace");
}

/// Sets keys of the section about the data path.
fn set_datapath(stage: &Stage, lines: &str) {
    let text = stage.read("agent.toml").replace("[datapath]\n", &format!("[datapath]\n{lines}\n"));
    stage.write("agent.toml", &text);
}

#[test]
fn a_fail_mode_that_netfilter_queues_do_not_have_is_refused() {
    let stage = pki_stage();
    configure(&stage, PKI, &format!("{PU}fail_mode = \"last-known-for 60s\"\n"));
    set_datapath(&stage, "kind = \"nfqueue\"");
    let expected = "fail_mode last-known-for needs the bpf data path: choose closed or open";
    refused(check(&stage, None, None), expected);
}

#[test]
fn missing_privileges_are_named() {
    let stage = pki_stage();
    configure(&stage, PKI, PU);
    set_datapath(&stage, "kind = \"bpf\"");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-bpf", "--inh-caps=-bpf"]).arg(stage.command().get_program());
    command.args(["agent", "--config", "agent.toml", "--check"]).current_dir(stage.path());
    let (code, _, error) = outcome(&mut command);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("the bpf data path needs CAP_BPF: run the agent as root"), "{error}");
}

#[test]
fn a_policy_file_that_is_wrong_or_absent_is_refused_with_its_place() {
    let stage = pki_stage();
    configure(&stage, PKI, PU);
    stage.write("policy.yaml", "apiVersion: trireme/v1\npolicies: []\ntypo: 1\n");
    refused(check(&stage, None, None), "policy.yaml:3:1: unknown field \"typo\"");
    std::fs::remove_file(stage.path().join("policy.yaml")).unwrap();
    refused(check(&stage, None, None), "policy.yaml");
}
