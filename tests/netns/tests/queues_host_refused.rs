//! What keeps units of the host from being enforced is told, with its remedy, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::Command;

use trireme_testkit::lab::{Agent, Side};
use trireme_tests_netns::{HostsSpec, hold_queue, program, section};

/// Runs a program with a mount table of its own, which this changes before.
fn within(change: &str) -> Vec<String> {
    let script = format!("{change} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

/// What the agent says when it does not start, or does not find everything that a start needs; the host is as before.
fn refusal(spec: &HostsSpec, more: &[&str], wrapper: &[String]) -> String {
    let agent = Agent::command(&spec.lab, Side::B, &program(), &spec.b, more).unwrap();
    // An agent that starts all the same is not waited for.
    let mut command = Command::new("timeout");
    command.arg("20").args(wrapper).arg(agent.get_program()).args(agent.get_args());
    let host = &spec.server.host;
    let output = host.output(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code() != Some(124), "it starts: {more:?}\n{text}");
    assert_eq!(host.run("nft", &["list", "ruleset"]).unwrap(), "", "left behind: {more:?}");
    text
}

fn refused_both_ways(spec: &HostsSpec, wrapper: &[String], parts: &[&str]) {
    for more in [&["--check"][..], &[]] {
        let text = refusal(spec, more, wrapper);
        assert!(parts.iter().all(|part| text.contains(part)), "{more:?}: {parts:?}: {text}");
    }
}

/// The section of a unit with this cgroup.
fn with(cgroup: &str) -> HostsSpec {
    let mut spec = HostsSpec::new();
    spec.b.more = format!("\n[[pu]]\nname = \"server\"\ncgroup = \"{cgroup}\"\ntags = [\"role=server\"]\n");
    spec
}

#[test]
fn cgroups_that_are_absent_outside_or_everything_are_named() {
    for (cgroup, parts) in [
        (
            "trireme-absent",
            &["server", "there is no cgroup /sys/fs/cgroup/", "trireme-absent: create it"][..],
        ),
        ("/etc", &["/etc is not below /sys/fs/cgroup", "name the cgroup by its path there"]),
        ("../../etc", &["../../etc is not below /sys/fs/cgroup"]),
        ("/", &["/ is not below /sys/fs/cgroup"]),
        (".", &["is the cgroup of all processes: name one below it"]),
    ] {
        refused_both_ways(&with(cgroup), &[], parts);
    }
}

#[test]
fn a_cgroup_that_the_agent_itself_is_in_is_refused() {
    let spec = HostsSpec::new();
    let path = spec.server.cgroup.path().with_extension("agents");
    std::fs::create_dir(&path).unwrap();
    let mut spec = spec;
    spec.b.more =
        format!("\n[[pu]]\nname = \"server\"\ncgroup = \"{}\"\ntags = [\"role=server\"]\n", path.display());
    let wrapper = ["sh", "-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"", path.to_str().unwrap()];
    let wrapper: Vec<String> = wrapper.map(str::to_owned).into();
    let refused = || {
        refused_both_ways(&spec, &wrapper, &["has the agent itself in it: start the agent in another one"]);
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(refused));
    std::fs::remove_dir(&path).unwrap();
    outcome.unwrap();
}

#[test]
fn programs_in_the_kernel_are_refused_as_the_data_path_of_a_cgroup() {
    let mut spec = HostsSpec::new();
    spec.b.datapath = "bpf";
    refused_both_ways(
        &spec,
        &[],
        &["server", "can be enforced by netfilter queues only: set kind = \"nfqueue\""],
    );
}

#[test]
fn cgroups_that_are_not_mounted_or_where_nft_does_not_see_them_are_told() {
    let spec = HostsSpec::new();
    let folder = spec.lab.dir().join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    let unmount = "umount $(awk '$9 == \"cgroup2\" || $8 == \"cgroup2\" { print $5 }' /proc/self/mountinfo)";
    refused_both_ways(
        &spec,
        &within(unmount),
        &["cgroups of version 2 are not mounted here: mount -t cgroup2"],
    );
    let elsewhere = format!("{unmount} && mount -t cgroup2 none {}", folder.display());
    let told =
        format!("are mounted at {}, and nft looks for them below /sys/fs/cgroup only", folder.display());
    refused_both_ways(&spec, &within(&elsewhere), &[&told]);
}

#[test]
fn nft_that_is_not_installed_is_asked_for_whatever_writes_the_queues() {
    let without = within("mount --bind /dev/null $(readlink -f $(command -v nft || echo /usr/sbin/nft))");
    for rules in ["iptables-nft", "iptables-legacy", "auto"] {
        let mut spec = HostsSpec::new();
        spec.b.datapath_more.push_str(&format!("rules = \"{rules}\"\n"));
        let text = refusal(&spec, &[], &without);
        for part in ["server", "program nft is not installed: install the package nftables"] {
            assert!(text.contains(part), "{rules}: {text}");
        }
    }
}

#[test]
fn more_cgroups_than_the_mark_has_room_for_are_refused_with_file_and_line() {
    let mut spec = HostsSpec::new();
    spec.b.datapath_more.push_str("mark = \"0xf0000\"\n");
    let more: Vec<_> =
        (1..=3).map(|number| spec.server.cgroup.child(&format!("c{number}")).unwrap()).collect();
    for (number, cgroup) in (1..).zip(&more) {
        spec.b.more.push_str(&section(&format!("c{number}"), cgroup, "server"));
    }
    refused_both_ways(&spec, &[], &["agent.toml:", "c3 is the 4. cgroup", "have room for 3"]);
}

#[test]
fn the_queue_of_a_unit_that_another_program_holds_is_named() {
    let mut spec = HostsSpec::new();
    spec.b.datapath_more.push_str("queue = 7\n");
    let holder = hold_queue(&spec.lab, &spec.server.host, 8);
    let text = refusal(&spec, &[], &[]);
    assert!(
        text.contains("server") && text.contains("queue 8 is held by another program: stop it"),
        "{text}"
    );
    holder.stop().unwrap();
    let hosts = spec.start();
    assert!(hosts.b.status().unwrap().to_string().contains("queue 7"));
}

#[test]
fn a_namespace_that_is_a_unit_as_a_whole_has_no_cgroups_that_are() {
    let mut spec = HostsSpec::new();
    spec.b.more.push_str(&format!(
        "\n[[pu]]\nname = \"whole\"\nnetns = \"{}\"\ntags = [\"role=server\"]\n",
        spec.server.host.path().display()
    ));
    let agent = Agent::command(&spec.lab, Side::B, &program(), &spec.b, &[]).unwrap();
    let mut command = Command::new("timeout");
    command.arg("20").arg(agent.get_program()).args(agent.get_args());
    let output = spec.server.host.output(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("are in one network namespace: units are the whole of it, or cgroups of it"),
        "{text}"
    );
}
