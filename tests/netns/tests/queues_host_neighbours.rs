//! Rules of other software on a host beside ours: everything works meanwhile, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use trireme_testkit::lab::{Family, Namespace, Reach, Server, Side, probe};
use trireme_tests_netns::{HostsSpec, PATIENT, PORT, PROMPT, echo_megabytes_from, is_alive};

/// What Docker and kube-proxy write, a firewall that is closed, and an administrator who distrusts what connection tracking
/// calls invalid.
const OTHERS: &str = "*nat
:DOCKER - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d LOOPBACK -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s BRIDGE ! -o docker0 -j MASQUERADE
-A POSTROUTING -j KUBE-POSTROUTING
-A DOCKER -i docker0 -j RETURN
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*mangle
:KUBE-PROXY-CANARY - [0:0]
-A POSTROUTING -o up0 -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
-A OUTPUT -p udp -m udp --dport 53 -j DSCP --set-dscp 0x2e
COMMIT
*filter
:INPUT DROP [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A OUTPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p ICMP -j ACCEPT
-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 9090 -j ACCEPT
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
";

/// Tables of nft that look at everything and keep marks of their own.
const NATIVE: &str = "table inet firewall {
	chain first { type filter hook input priority mangle - 20; policy accept; ct state invalid counter; }
	chain marks { type route hook output priority mangle; policy accept; meta mark set meta mark | 0x00000010; }
	chain last { type filter hook input priority filter + 10; policy accept; ct state established,related accept; }
}
";

/// Writes rules with the programs of this variant, in both families.
fn restore(host: &Namespace, variant: &str) {
    for (program, bridge, loopback, icmp) in [
        ("iptables", "172.17.0.0/16", "127.0.0.0/8", "icmp"),
        ("ip6tables", "2001:db8::/64", "::1/128", "ipv6-icmp"),
    ] {
        let rules = OTHERS.replace("BRIDGE", bridge).replace("LOOPBACK", loopback).replace("ICMP", icmp);
        let command = format!("{program}-{variant}-restore --noflush <<'END'\n{rules}END\n");
        host.run("sh", &["-c", &command]).unwrap();
    }
    host.nft(NATIVE).unwrap();
}

/// What every program lists, without counters and dates, and every setting of the network.
fn everything(host: &Namespace) -> BTreeMap<&'static str, String> {
    const LISTS: [&str; 6] = [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "nft -s list ruleset",
        // How many entries are tracked is a count, and no setting.
        "grep -rs . /proc/sys/net | grep -v /nf_conntrack_count: | sort",
    ];
    let listed = LISTS.map(|command| {
        let text = host.run("sh", &["-c", command]).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| match line.starts_with(':') {
            true => line.split(" [").next().unwrap_or_default(),
            false => line,
        });
        (command, lines.flat_map(|line| [line, "\n"]).collect())
    });
    listed.into()
}

/// Marks of tracked connections that have any of our bits.
fn marked(host: &Namespace) -> Vec<String> {
    let text = host.run("cat", &["/proc/self/net/nf_conntrack"]).unwrap();
    let has = |line: &&str| {
        let mark = line.split("mark=").nth(1).and_then(|rest| rest.split(' ').next());
        mark.is_some_and(|mark| mark.parse::<u32>().unwrap() & 0xffff_0000 != 0)
    };
    text.lines().filter(has).map(str::to_owned).collect()
}

fn works_beside_others_and_leaves_nothing(rules: &str, variant: &str) {
    let mut spec = HostsSpec::new();
    for config in [&mut spec.a, &mut spec.b] {
        config.datapath_more.push_str(&format!("rules = \"{rules}\"\n"));
    }
    let namespaces = [spec.client.host.clone(), spec.server.host.clone()];
    for host in &namespaces {
        restore(host, variant);
    }
    let before: Vec<_> = namespaces.iter().map(everything).collect();
    let mut hosts = spec.start();
    let server = hosts.server.echo(PORT);
    let _others = Server::echo(&hosts.server.host, 9090).unwrap();
    let mut live = Vec::new();
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, PORT);
        for _ in 0..5 {
            assert_eq!(hosts.client.sees(to, PATIENT), Reach::Answered, "{family}\n{}", hosts.look());
        }
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        let elsewhere = probe(&hosts.client.host, hosts.at(Side::B, family, 9090), PROMPT).unwrap();
        assert_eq!(elsewhere, Reach::Answered, "{family}: between processes of no unit\n{}", hosts.look());
        let echoed = hosts.client.cgroup.enter(|| echo_megabytes_from(&hosts.client.host, to, 2)).unwrap();
        assert_eq!(echoed.sent, echoed.received, "{family}");
        live.push(hosts.client.connect(to, PATIENT));
    }
    assert!(live.iter().all(is_alive), "{}", hosts.look());
    assert!(!marked(&hosts.server.host).is_empty());
    for agent in [&mut hosts.a, &mut hosts.b] {
        agent.stop().unwrap();
        let said = agent.clean_up().unwrap();
        assert!(said.contains("rules in 1 network namespaces"), "{said}");
    }
    for (host, before) in namespaces.iter().zip(before) {
        for (list, after) in everything(host) {
            assert_eq!(Some(&after), before.get(list), "{}: {list}", host.name());
        }
        assert_eq!(marked(host), Vec::<String>::new(), "{}", host.name());
    }
    assert!(live.iter().all(is_alive), "a live connection ended with the clean-up");
    drop(server);
    let _server = hosts.server.echo(PORT);
    for family in Family::BOTH {
        assert_eq!(hosts.stranger_sees(family), Reach::Answered, "{family}: nothing enforces any more");
    }
}

#[test]
fn rules_by_iptables_nft_live_beside_those_of_others_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("iptables-nft", "nft");
}

#[test]
fn rules_by_iptables_legacy_live_beside_those_of_others_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("iptables-legacy", "legacy");
}

#[test]
fn rules_of_which_nobody_says_how_follow_the_legacy_ones_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("auto", "legacy");
}
