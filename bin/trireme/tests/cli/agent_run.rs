//! A real agent, from start to clean-up.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::stage::{Netns, PSK, Stage, outcome};

#[test]
fn an_agent_starts_answers_reloads_and_stops() {
    let (stage, netns) = (Stage::new(), Netns::new("run"));
    configure(&stage);
    let agent = Agent::start(&stage, &netns);

    // The key is nowhere to be seen.
    let environment = std::fs::read(format!("/proc/{}/environ", agent.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(PSK));
    let said = [stage.read("agent.out"), stage.read("agent.err")].concat();
    assert!(!said.contains(PSK) && said.contains("effective configuration"), "{said}");

    // What could be misread as protection is said at start and in status.
    for text in [
        "a pre-shared key is in use",
        "web is in observe mode",
        "web authorizes as receiver only",
        "web may send and receive anything that is not TCP",
        "no rule speaks about web",
    ] {
        assert!(stage.read("agent.err").contains(text), "{text}\n{}", stage.read("agent.err"));
        assert!(stage.run(&["status", "--socket", "agent.sock"]).1.contains(text), "{text}");
    }

    // Every form of status is what it says.
    let (code, json, _) = stage.run(&["status", "--socket", "agent.sock", "-o", "json"]);
    assert_eq!(code, 0);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status.pointer("/pus/0/state"), Some(&"enforced".into()));
    assert_eq!(status.pointer("/pus/0/epoch"), Some(&1.into()));
    let (_, yaml, _) = stage.run(&["status", "--socket", "agent.sock", "-o", "yaml"]);
    assert!(yaml.contains("node: node-a\n"), "{yaml}");

    // A second agent is turned away and the first goes on.
    let mut second = stage.command();
    second.args(["agent", "--config", "agent.toml"]).env("TRIREME_PSK", PSK);
    let (code, _, error) = outcome(&mut netns.wrap(&second));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("another agent answers on"), "{error}");
    let text = stage.read("agent.toml").replace("agent.sock", "second.sock");
    stage.write("second.toml", &text);
    let mut third = stage.command();
    third.args(["agent", "--config", "second.toml"]).env("TRIREME_PSK", PSK);
    let (code, _, error) = outcome(&mut netns.wrap(&third));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("another agent uses the state directory"), "{error}");
    let mut cleanup = stage.command();
    cleanup.args(["agent", "--config", "agent.toml", "--cleanup"]);
    let (code, _, error) = outcome(&mut netns.wrap(&cleanup));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("stop the agent before cleaning up behind it"), "{error}");

    // A bad policy keeps the old one in force and says so; a good one comes into force.
    stage.write("policy.yaml", "policies: 7\n");
    agent.signal("HUP");
    wait(|| stage.run(&["status", "--socket", "agent.sock"]).1.contains("policy error"));
    stage.write(
        "policy.yaml",
        "apiVersion: trireme/v1\npolicies:\n  - {name: p, subject: {role: web}, ingress: []}\n",
    );
    wait(|| stage.run(&["status", "--socket", "agent.sock"]).1.contains("nothing allowed"));
    let (code, _, _) = stage.run(&[
        "explain",
        "--socket",
        "agent.sock",
        "--from",
        "a=b",
        "--to",
        "role=web",
        "--port",
        "80",
    ]);
    assert_eq!(code, 1);
    assert_eq!(stage.run(&["flows", "--socket", "agent.sock", "--format", "json"]).0, 0);

    // A stop leaves the kernel's part, a restart takes it over, a clean-up removes it.
    agent.stop();
    assert!(!stage.path().join("agent.sock").exists());
    assert!(pins(&stage).exists());
    let again = Agent::start(&stage, &netns);
    let (_, json, _) = stage.run(&["status", "--socket", "agent.sock", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status.pointer("/pus/0/epoch"), Some(&2.into()), "the epoch outlives the restart");
    again.stop();
    let (code, out, error) = outcome(&mut netns.wrap(&cleanup));
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("1 units detached"), "{out}");
    assert!(!pins(&stage).exists());
}

#[test]
fn a_unit_that_is_no_longer_configured_is_released_at_the_next_start() {
    let (stage, netns) = (Stage::new(), Netns::new("gone"));
    configure(&stage);
    Agent::start(&stage, &netns).stop();
    let text = stage.read("agent.toml");
    let (head, _) = text.split_once("[[pu]]").unwrap();
    stage.write("agent.toml", head);
    let agent = Agent::start(&stage, &netns);
    assert!(stage.run(&["status", "--socket", "agent.sock"]).1.contains("no processing units"));
    wait(|| stage.read("agent.err").contains("released: no longer listed"));
    agent.stop();
    let mut cleanup = stage.command();
    cleanup.args(["agent", "--config", "agent.toml", "--cleanup"]);
    let (code, out, error) = outcome(&mut netns.wrap(&cleanup));
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("(0 units detached"), "{out}");
}

#[test]
fn an_interface_that_is_made_anew_is_enforced_again() {
    let (stage, netns) = (Stage::new(), Netns::new("anew"));
    configure(&stage);
    let agent = Agent::start(&stage, &netns);
    netns.renew_veth();
    wait(|| stage.read("agent.err").contains("enforced again: its interface is back"));
    let (_, status, _) = stage.run(&["status", "--socket", "agent.sock"]);
    assert!(status.contains("enforced") && !status.contains("is gone"), "{status}");
    agent.stop();
    let mut cleanup = stage.command();
    cleanup.args(["agent", "--config", "agent.toml", "--cleanup"]);
    let (code, out, error) = outcome(&mut netns.wrap(&cleanup));
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("(1 units detached"), "{out}");
}

pub(crate) fn instance(stage: &Stage) -> String {
    let name = stage.path().file_name().unwrap().to_str().unwrap();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("cli-{}", name.to_lowercase())
}

fn pins(stage: &Stage) -> std::path::PathBuf {
    std::path::Path::new("/sys/fs/bpf/trireme").join(instance(stage))
}

fn configure(stage: &Stage) {
    let instance = instance(stage);
    stage.write(
        "agent.toml",
        &format!(
            "[node]\nid = \"node-a\"\nstate_dir = \"state\"\nsocket = \"agent.sock\"\n[datapath]\ninstance = \"{instance}\"\n[policy]\nfile = \"policy.yaml\"\n[[pu]]\nname = \"web\"\ntags = [\"role=web\"]\ninterface = \"veth-web\"\nmode = \"observe\"\nauthorization = \"receiver-only\"\nother_protocols = \"allow\"\n"
        ),
    );
}

pub(crate) fn clean_up(stage: &Stage, netns: &Netns) {
    let mut cleanup = stage.command();
    cleanup.args(["agent", "--config", "agent.toml", "--cleanup"]);
    let (code, _, error) = outcome(&mut netns.wrap(&cleanup));
    assert_eq!(code, 0, "{error}");
}

pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    pub(crate) fn start(stage: &Stage, netns: &Netns) -> Self {
        let mut command = stage.command();
        command.args(["agent", "--config", "agent.toml"]).env("TRIREME_PSK", PSK);
        let file = |name| Stdio::from(std::fs::File::create(stage.path().join(name)).unwrap());
        let child = netns.wrap(&command).stdout(file("agent.out")).stderr(file("agent.err")).spawn().unwrap();
        let agent = Self { child };
        // The kernel checks the programs first: a second on a machine at rest.
        wait_at_most(Duration::from_mins(2), || stage.read("agent.err").contains("ready"));
        agent
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already unless the test is failing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
pub(crate) fn wait(met: impl FnMut() -> bool) {
    wait_at_most(Duration::from_secs(20), met);
}

#[track_caller]
fn wait_at_most(limit: Duration, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !met() {
        assert!(Instant::now() < end, "not met within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
