//! What keeps an agent of netfilter queues from starting is told, and by which remedy it goes away.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::Command;

use trireme_testkit::lab::{Agent, Family, Reach, Server, Side};
use trireme_tests_netns::{Judge, PORT, WorldSpec, echo_megabytes, hold_queue, program};

fn spec_with(datapath: &str) -> WorldSpec {
    let mut spec = WorldSpec::new().judged_by(Judge::Queue);
    spec.b.datapath_more.push_str(datapath);
    spec
}

/// Runs a program where those of the administrator do not exist.
const WITHOUT_PROGRAMS: &str = "mount -t tmpfs hidden /usr/sbin && exec \"$@\"";

/// What the agent says when it does not start, or does not find everything that a start needs.
fn refusal(spec: &WorldSpec, more: &[&str]) -> String {
    refusal_within(spec, more, &[])
}

fn refusal_within(spec: &WorldSpec, more: &[&str], wrapper: &[&str]) -> String {
    let agent = Agent::command(&spec.lab, Side::B, &program(), &spec.b, more).unwrap();
    // An agent that starts all the same is not waited for.
    let mut command = Command::new("timeout");
    command.arg("20").args(wrapper).arg(agent.get_program()).args(agent.get_args());
    let output = spec.lab.node(Side::B).namespace.output(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code() != Some(124), "it starts: {more:?}\n{text}");
    text
}

#[test]
fn a_fail_mode_that_needs_programs_is_refused_and_the_message_names_what_to_choose() {
    let mut spec = spec_with("");
    spec.b.enforcement.push_str("fail_mode = \"last-known-for 60s\"\n");
    for more in [&["--check"][..], &[]] {
        let text = refusal(&spec, more);
        for part in ["server", "fail_mode last-known-for needs the bpf data path: choose closed or open"] {
            assert!(text.contains(part), "{more:?}: {text}");
        }
    }
}

#[test]
fn a_queue_that_another_program_holds_is_named() {
    let spec = spec_with("queue = 7\n");
    let holder = hold_queue(&spec.lab, &spec.server.namespace, 7);
    let text = refusal(&spec, &[]);
    for part in ["server", "queue 7 is held by another program: stop it, or use another number"] {
        assert!(text.contains(part), "{text}");
    }
    // What could not be enforced is left as it was.
    assert_eq!(spec.server.namespace.run("nft", &["list", "ruleset"]).unwrap(), "");
    holder.stop().unwrap();
    let world = spec.start();
    assert!(world.b.status().unwrap().to_string().contains("queue 7"));
}

#[test]
fn a_mark_with_holes_is_refused_with_file_and_line() {
    let spec = spec_with("mark = \"0xf0f0\"\n");
    for more in [&["--check"][..], &[]] {
        let text = refusal(&spec, more);
        for part in ["agent.toml:10:8: datapath.mark: mark field 0x0000f0f0 has holes", "such as 0xff000000"]
        {
            assert!(text.contains(part), "{more:?}: {text}");
        }
    }
}

#[test]
fn rules_by_a_name_that_is_none_are_refused_with_file_and_line() {
    let spec = spec_with("rules = \"pf\"\n");
    for more in [&["--check"][..], &[]] {
        let text = refusal(&spec, more);
        assert!(text.contains("agent.toml:10:9: datapath.rules: unknown variant `pf`"), "{more:?}: {text}");
        assert!(["nft", "iptables-nft", "iptables-legacy"].iter().all(|name| text.contains(name)), "{text}");
    }
}

#[test]
fn rules_by_programs_that_are_not_installed_are_refused_and_the_package_is_named() {
    for (rules, program, package) in [
        ("nft", "nft", "nftables"),
        ("iptables-nft", "iptables-nft-save", "iptables"),
        ("iptables-legacy", "iptables-legacy-save", "iptables"),
    ] {
        let spec = spec_with(&format!("rules = \"{rules}\"\n"));
        let wrapper = ["unshare", "--mount", "sh", "-c", WITHOUT_PROGRAMS, "sh"];
        let text = refusal_within(&spec, &[], &wrapper);
        let told = format!(
            "back end {rules} cannot be used here: program {program} is not installed: install the package {package}"
        );
        assert!(text.contains(&told) && text.contains("server"), "{rules}: {text}");
    }
}

#[test]
fn rules_of_nft_are_taken_or_the_message_names_what_the_kernel_lacks() {
    let spec = spec_with("rules = \"nft\"\n");
    let namespace = &spec.server.namespace;
    let queues = "table inet probe { chain in { type filter hook input priority 0; queue num 9; }; }\n";
    if namespace.nft(queues).is_ok() {
        namespace.nft("delete table inet probe\n").unwrap();
        let world = spec.start();
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.look());
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent, "{}", world.look());
    } else {
        let text = refusal(&spec, &[]);
        for part in ["server", "back end nft cannot be used here", "a kernel with", "NFT_QUEUE", "is needed"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_chain_of_somebody_else_under_our_name_is_named_and_left_alone() {
    let spec = spec_with("rules = \"iptables-nft\"\n");
    let namespace = &spec.server.namespace;
    namespace.run("iptables-nft", &["-t", "mangle", "-N", "TRIREME-FROM"]).unwrap();
    namespace.run("iptables-nft", &["-t", "mangle", "-A", "TRIREME-FROM", "-j", "ACCEPT"]).unwrap();
    let before = namespace.run("nft", &["list", "ruleset"]).unwrap();
    let text = refusal(&spec, &[]);
    for part in ["server", "chain TRIREME-FROM of IPv4 table mangle"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(namespace.run("nft", &["list", "ruleset"]).unwrap(), before);
}

#[test]
fn one_unit_whose_namespace_is_gone_keeps_the_start_from_leaving_anything_with_the_others() {
    let mut spec = spec_with("rules = \"iptables-nft\"\n");
    spec.b.more.push_str("[[pu]]\nname = \"gone\"\nnetns = \"/run/netns/gone\"\ntags = [\"a=b\"]\n");
    for more in [&["--check"][..], &[]] {
        let text = refusal(&spec, more);
        for part in ["gone", "/run/netns/gone"] {
            assert!(text.contains(part), "{more:?}: {text}");
        }
        assert_eq!(spec.server.namespace.run("nft", &["list", "ruleset"]).unwrap(), "", "{more:?}");
    }
}

#[test]
fn connections_that_somebody_keeps_untracked_are_judged_packet_by_packet_and_work() {
    let world = spec_with("rules = \"iptables-nft\"\n").start();
    for chain in ["PREROUTING", "OUTPUT"] {
        for tables in ["iptables-nft", "ip6tables-nft"] {
            let rule = ["-t", "raw", "-A", chain, "-p", "tcp", "-j", "NOTRACK"];
            world.server.namespace.run(tables, &rule).unwrap();
        }
    }
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 1);
        assert_eq!(echoed.sent, echoed.received, "{family}\n{}", world.look());
        let before = server.accepted();
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
        assert_eq!(server.accepted(), before, "{family}");
    }
}
