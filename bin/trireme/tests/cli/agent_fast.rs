//! A real agent whose units are judged in the kernel: deny list, counters and settings, from the outside.

use serde_json::Value;

use crate::agent_run::{Agent, clean_up, instance, wait};
use crate::stage::{Netns, Stage};

fn configure(stage: &Stage) {
    let instance = instance(stage);
    stage.write("deny", "# nobody yet\n");
    stage.write(
        "agent.toml",
        &format!(
            "[node]\nid = \"node-a\"\nstate_dir = \"state\"\nsocket = \"agent.sock\"\n[datapath]\ninstance = \"{instance}\"\n\
             [enforcement]\nfail_mode = \"last-known-for 2m\"\n[policy]\nfile = \"policy.yaml\"\ndeny_list = \"deny\"\n\
             [[pu]]\nname = \"web\"\ntags = [\"tier=backend\"]\ninterface = \"veth-web\"\n"
        ),
    );
}

fn unit(stage: &Stage) -> Value {
    let (code, json, error) = stage.run(&["status", "--pu", "web", "--socket", "agent.sock", "-o", "json"]);
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&json).unwrap()
}

#[test]
fn a_unit_shows_how_it_is_enforced() {
    let (stage, netns) = (Stage::new(), Netns::new("unit"));
    configure(&stage);
    let agent = Agent::start(&stage, &netns);
    let shown = unit(&stage);
    for (place, value) in [
        ("/id", "web".into()),
        ("/datapath/fast_path", true.into()),
        ("/datapath/fail_mode", "last-known-for 120s".into()),
        ("/datapath/edge", "attached".into()),
        ("/datapath/adopted", Value::from(0)),
        ("/datapath/repairs", Value::from(0)),
    ] {
        assert_eq!(shown.pointer(place), Some(&value), "{place} in {shown}");
    }
    let (code, _, error) = stage.run(&["status", "--pu", "db", "--socket", "agent.sock"]);
    assert_eq!((code, error.as_str()), (2, "trireme: there is no processing unit db on node node-a\n"));
    let (_, table, _) = stage.run(&["status", "--pu", "--socket", "agent.sock"]);
    assert!(table.starts_with("web\n") && table.contains("veth-web: attached"), "{table}");
    agent.stop();
    clean_up(&stage, &netns);
}

#[test]
fn a_revocation_reaches_the_running_agent_and_a_bad_list_does_not() {
    let (stage, netns) = (Stage::new(), Netns::new("deny"));
    configure(&stage);
    let agent = Agent::start(&stage, &netns);
    assert_eq!(unit(&stage).pointer("/epoch"), Some(&1.into()));
    assert_eq!(stage.run(&["keys", "revoke", "node", "node-b", "--deny-list", "deny"]).0, 0);
    wait(|| unit(&stage).pointer("/epoch") == Some(&2.into()));
    stage.write("deny", "node node-b\nrubbish\n");
    let status = || stage.run(&["status", "--socket", "agent.sock"]).1;
    wait(|| status().contains("deny list error"));
    assert!(status().contains("deny:2: an entry is"), "{}", status());
    assert!(status().contains("1 entries"), "{}", status());
    assert_eq!(unit(&stage).pointer("/epoch"), Some(&2.into()), "the last good list stays in force");
    // A start refuses what a running agent refuses.
    agent.stop();
    let mut check = stage.command();
    check.args(["agent", "--config", "agent.toml", "--check"]).env("TRIREME_PSK", crate::stage::PSK);
    let (code, _, error) = crate::stage::outcome(&mut netns.wrap(&check));
    assert_eq!(code, 2);
    assert!(error.contains("deny:2: an entry is"), "{error}");
    // Nobody else is denied meanwhile: connections keep their epoch; with another list they are judged again.
    stage.write("deny", "node node-b\n");
    Agent::start(&stage, &netns).stop();
    stage.write("deny", "");
    let again = Agent::start(&stage, &netns);
    assert_eq!(unit(&stage).pointer("/epoch"), Some(&3.into()));
    again.stop();
    clean_up(&stage, &netns);
}

#[test]
fn what_somebody_else_removed_is_put_back_and_shown() {
    let (stage, netns) = (Stage::new(), Netns::new("fixed"));
    configure(&stage);
    let agent = Agent::start(&stage, &netns);
    let pins = || std::fs::read_dir(links(&stage)).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(pins().count(), 2, "a program for each direction");
    std::fs::remove_file(pins().next().unwrap()).unwrap();
    wait(|| unit(&stage).pointer("/datapath/repairs") == Some(&1.into()));
    let shown = unit(&stage);
    let text = shown.pointer("/datapath/last_repair/text").and_then(Value::as_str).unwrap();
    assert!(text.contains("lost its pin"), "{text}");
    assert_eq!(shown.pointer("/datapath/edge"), Some(&"attached".into()));
    assert_eq!(pins().count(), 2, "and it is back");
    assert!(stage.run(&["status", "--socket", "agent.sock"]).1.contains("web: repaired at "));
    agent.stop();
    clean_up(&stage, &netns);
}

fn links(stage: &Stage) -> std::path::PathBuf {
    let instance = std::path::Path::new("/sys/fs/bpf/trireme").join(instance(stage));
    let mut versions = std::fs::read_dir(instance).unwrap().map(|entry| entry.unwrap().path());
    versions.find(|path| path.join("links").is_dir()).unwrap().join("links")
}

#[test]
fn counters_outlive_a_crash() {
    let (stage, netns) = (Stage::new(), Netns::new("count"));
    configure(&stage);
    let agent = Agent::start(&stage, &netns);
    netns.send_datagrams();
    let denied = |shown: &Value| {
        shown.pointer("/counters/kernel~1punted-from-pu").and_then(Value::as_u64).unwrap_or(0)
    };
    wait(|| denied(&unit(&stage)) > 0);
    let before = denied(&unit(&stage));
    agent.kill();
    let again = Agent::start(&stage, &netns);
    let after = denied(&unit(&stage));
    assert!(after >= before, "{before} became {after}");
    assert_eq!(unit(&stage).pointer("/epoch"), Some(&1.into()), "a crash changes no policy");
    again.stop();
    clean_up(&stage, &netns);
}
