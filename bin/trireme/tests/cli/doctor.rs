//! `trireme doctor` on real network namespaces: what it finds, what it advises, what it leaves alone.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::stage::{Netns, PSK, Stage, outcome};

const PU: &str = "[[pu]]\nname = \"web\"\ntags = [\"role=web\"]\ninterface = \"veth-web\"\n";

/// A namespace for the node and a folder with a configuration of one unit.
fn configured(name: &str) -> (Stage, Netns) {
    let stage = Stage::new();
    stage.write("psk", PSK);
    configure(&stage, "", PU);
    (stage, Netns::new(name))
}

fn configure(stage: &Stage, datapath: &str, units: &str) {
    let instance = format!("doctor-{}", std::process::id());
    stage.write(
        "agent.toml",
        &format!(
            "[node]\nid = \"node-a\"\nstate_dir = \"state\"\nsocket = \"agent.sock\"\n[datapath]\ninstance = \"{instance}\"\n{datapath}[policy]\nfile = \"policy.yaml\"\n[secrets.psk]\nfile = \"psk\"\n{units}"
        ),
    );
}

/// Exit code and findings, with the configuration if there is one.
fn doctor(stage: &Stage, netns: &Netns) -> (i32, Vec<Found>) {
    let mut command = stage.command();
    command.args(["doctor", "-o", "json"]);
    if stage.path().join("agent.toml").exists() {
        command.args(["--config", "agent.toml"]);
    }
    examine(&mut netns.wrap(&command))
}

fn examine(command: &mut Command) -> (i32, Vec<Found>) {
    let (code, out, error) = outcome(command);
    assert_eq!(error, "");
    let report: Report = serde_json::from_str(&out).unwrap();
    assert_eq!(report.healthy, code == 0, "{out}");
    (code, report.findings)
}

#[derive(serde::Deserialize)]
struct Report {
    findings: Vec<Found>,
    healthy: bool,
}

#[derive(Debug, serde::Deserialize)]
struct Found {
    check: String,
    level: String,
    found: String,
    #[serde(default)]
    remedy: String,
}

/// The finding that holds a text.
#[track_caller]
fn find<'a>(findings: &'a [Found], check: &str, text: &str) -> &'a Found {
    let found = findings.iter().find(|finding| finding.check == check && finding.found.contains(text));
    assert!(found.is_some(), "no {check} with {text:?} in {findings:#?}");
    found.unwrap()
}

fn inside(netns: &Netns, line: &str) {
    // What belongs together has no space.
    let mut words = line.split(' ').map(|word| word.replace('@', " "));
    let mut command = Command::new(words.next().unwrap());
    let (code, _, error) = outcome(&mut netns.wrap(command.args(words)));
    assert_eq!(code, 0, "{line}: {error}");
}

/// Killed with this.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_healthy_machine_has_exit_code_0_and_a_line_for_each_finding() {
    let (stage, netns) = (Stage::new(), Netns::new("healthy"));
    let mut command = stage.command();
    let (code, out, error) = outcome(&mut netns.wrap(command.arg("doctor")));
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    assert!(out.contains("ok      capabilities"), "{out}");
    assert!(out.contains("auto chooses bpf because the kernel has what it needs"), "{out}");
    assert!(out.contains("\nhealthy: 0 problems, ") && !out.contains('\u{1b}'), "{out}");
}

#[test]
fn a_configuration_is_looked_at_and_nothing_is_changed() {
    let (stage, netns) = configured("fine");
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 0, "{findings:#?}");
    assert_eq!(find(&findings, "units", "web is caught at veth-web").level, "ok");
    assert_eq!(find(&findings, "keys", "is a pre-shared key").level, "ok");
    assert_eq!(find(&findings, "policy", "policy.yaml is well formed").level, "ok");
    assert_eq!(find(&findings, "state", "is made at the first start").level, "ok");
    for finding in &findings {
        assert_eq!(finding.level == "ok", finding.remedy.is_empty(), "{finding:?}");
    }
    assert!(!stage.path().join("state").exists() && !stage.path().join("agent.sock").exists());
}

#[test]
fn a_missing_capability_is_named_with_what_auto_makes_of_it() {
    let (stage, netns) = configured("capability");
    configure(&stage, "", "");
    let run = || {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-bpf", "--inh-caps=-bpf"]).arg(stage.command().get_program());
        command.args(["doctor", "-o", "json", "--config", "agent.toml"]).current_dir(stage.path());
        examine(&mut netns.wrap(&command))
    };
    let (code, findings) = run();
    assert_eq!(code, 0, "{findings:#?}");
    let missing = find(&findings, "capabilities", "the bpf data path needs CAP_BPF");
    assert_eq!((missing.level.as_str(), missing.remedy.contains("run the agent as root")), ("note", true));
    find(&findings, "capabilities", "enough for the nfqueue data path");
    find(&findings, "data path", "auto chooses nfqueue because bpf cannot be used: ");

    configure(&stage, "kind = \"bpf\"\n", PU);
    let (code, findings) = run();
    assert_eq!(code, 1);
    let choice = find(&findings, "data path", "bpf is configured and cannot be used: ");
    assert_eq!((choice.level.as_str(), choice.found.contains("CAP_BPF")), ("problem", true));
}

#[test]
fn queues_refuse_a_fail_mode_and_an_interface_with_nothing_behind() {
    let (stage, netns) = configured("queues");
    configure(&stage, "kind = \"nfqueue\"\n", &format!("{PU}fail_mode = \"last-known-for 60s\"\n"));
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 1);
    assert!(
        find(&findings, "units", "web has fail_mode last-known-for")
            .remedy
            .contains("fail_mode = \"closed\"")
    );
    let nothing = find(&findings, "units", "the network namespace behind interface veth-web is not found");
    assert_eq!(nothing.remedy, "name it with `netns`, or keep a process in it");
}

#[test]
fn an_interface_too_small_for_a_token_is_found_with_the_setting_that_fits() {
    let (stage, netns) = configured("mtu");
    inside(&netns, "ip link set veth-web mtu 1000");
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 1);
    let small = find(&findings, "mtu", "veth-web carries 1000 bytes");
    assert_eq!(small.level, "problem");
    assert!(small.remedy.starts_with("set token.size_budget = 880 on all nodes"), "{small:?}");

    let text = stage.read("agent.toml").replace("[policy]", "[token]\nsize_budget = 880\n[policy]");
    stage.write("agent.toml", &text);
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 0, "{findings:#?}");
}

#[test]
fn the_inside_of_a_unit_is_looked_at() {
    let (stage, netns) = configured("outside");
    let unit = Netns::new("inside");
    let path = format!("/run/netns/trcli-inside-{}", std::process::id());
    configure(
        &stage,
        "kind = \"nfqueue\"\n",
        &PU.replace("interface = \"veth-web\"", &format!("netns = \"{path}\"")),
    );
    inside(&unit, "ip link set eth0 mtu 500");
    inside(&unit, "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0");
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 1);
    assert_eq!(find(&findings, "units", "web is caught inside its network namespace").level, "ok");
    let small = find(&findings, "mtu", "eth0 inside web carries 500 bytes");
    assert_eq!(small.remedy, "ip link set dev eth0 mtu 1280 inside web");
    find(&findings, "conntrack", "web tracks 0 of at most");
    find(&findings, "conntrack", "web does not track connections that are older than tracking");
}

#[test]
fn our_own_programs_are_known_among_those_of_others() {
    let (stage, netns) = configured("own");
    let mut command = stage.command();
    let mut command = netns.wrap(command.args(["agent", "--config", "agent.toml"]));
    let agent = Agent(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let attached = || {
        let (code, out, _) = stage.run(&["status", "--socket", "agent.sock"]);
        code == 0 && out.contains("enforced")
    };
    let began = Instant::now();
    while !attached() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (_, alone) = doctor(&stage, &netns);
    inside(&netns, "tc qdisc add dev veth-web clsact");
    inside(&netns, "tc filter add dev veth-web ingress bpf bytecode 1,6@0@0@0 flowid 1:1");
    let (_, together) = doctor(&stage, &netns);
    drop(agent);
    let mut cleanup = stage.command();
    cleanup.args(["agent", "--config", "agent.toml", "--cleanup"]);
    assert_eq!(outcome(&mut netns.wrap(&cleanup)).0, 0);

    find(&alone, "tc programs", "nobody else has programs on the units' interfaces");
    find(&together, "tc programs", "a filter without a program runs behind us at the ingress of veth-web");
    find(&together, "neighbours", "another agent answers on ");
}

#[test]
fn a_broken_file_is_named_with_its_place() {
    let (stage, netns) = configured("broken");
    stage.write("policy.yaml", "apiVersion: trireme/v1\npolicies: []\ntypo: 1\n");
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!((code, find(&findings, "policy", "policy.yaml:3:1: ").level.as_str()), (1, "problem"));

    let text = stage.read("agent.toml").replace("socket =", "sockte =");
    stage.write("agent.toml", &text);
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 1);
    let broken = find(&findings, "configuration", "agent.toml:4:1: node: unknown field `sockte`");
    assert_eq!(broken.level, "problem");
    find(&findings, "kernel", "");
}

#[test]
fn units_keys_and_state_that_do_not_fit_are_problems() {
    let (stage, netns) = configured("unfit");
    configure(&stage, "", &PU.replace("veth-web", "veth-none"));
    std::fs::create_dir(stage.path().join("state")).unwrap();
    std::fs::set_permissions(stage.path().join("psk"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 1);
    let unit = find(&findings, "units", "web cannot be enforced: there is no interface veth-none");
    assert_eq!(unit.remedy, "create it before the agent starts, or correct its name");
    find(&findings, "keys", "it can be read by other users (mode 644)");
    assert!(find(&findings, "state", "is open to other users").remedy.starts_with("chmod 700 "));
}

#[test]
fn credentials_are_told_with_their_end() {
    let (stage, netns) = configured("credentials");
    assert_eq!(stage.run(&["keys", "ca", "--name", "demo", "--out", "ca"]).0, 0);
    let node = ["keys", "node", "--id", "node-a", "--ca", "ca", "--out", "a", "--days", "3"];
    assert_eq!(stage.run(&node).0, 0);
    let pki = "[secrets.pki]\nkey = \"a.key.pem\"\ncredential = { certificate = \"a.cert.pem\" }\n[[secrets.pki.roots]]\nname = \"demo\"\ncertificate = \"ca.cert.pem\"\n";
    let text = stage.read("agent.toml").replace("[secrets.psk]\nfile = \"psk\"\n", pki);
    stage.write("agent.toml", &text);
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 0, "{findings:#?}");
    let soon = find(&findings, "keys", "a.cert.pem is valid until ");
    assert_eq!(
        (soon.level.as_str(), soon.remedy.as_str()),
        ("note", "make new ones with `trireme keys node`")
    );
    assert_eq!(find(&findings, "keys", "trust root demo is valid until ").level, "ok");
}

#[test]
fn neighbours_are_told_by_their_rules_programs_and_sockets() {
    let (stage, netns) = configured("neighbours");
    inside(&netns, "nft add table inet firewalld");
    inside(&netns, "nft add chain inet firewalld in { type filter hook input priority 0 ; }");
    inside(&netns, "nft add rule inet firewalld in ct state invalid drop");
    inside(&netns, "tc qdisc add dev veth-web clsact");
    inside(&netns, "tc filter add dev veth-web ingress bpf bytecode 1,6@0@0@0 flowid 1:1");
    inside(&netns, "sysctl -qw net.ipv4.conf.veth-web.rp_filter=1");
    let _agent = std::os::unix::net::UnixListener::bind(stage.path().join("agent.sock")).unwrap();
    let (code, findings) = doctor(&stage, &netns);
    assert_eq!(code, 0, "{findings:#?}");
    let rules = find(&findings, "neighbours", "(there are rules of firewalld)");
    assert_eq!((rules.level.as_str(), rules.remedy.as_str()), ("note", "nothing to do"));
    find(&findings, "tc programs", "a filter without a program is at the ingress of veth-web");
    find(&findings, "rp_filter", "strict on veth-web");
    find(&findings, "neighbours", "another agent answers on ");
}
