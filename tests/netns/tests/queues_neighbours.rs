//! Rules of other software beside ours: everything works meanwhile, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use trireme_testkit::lab::{Family, Namespace, Reach, Server, Side};
use trireme_tests_netns::{Judge, PATIENT, PORT, World, WorldSpec, echo_megabytes};

/// What Docker and kube-proxy write, and an administrator who distrusts what connection tracking calls invalid.
const IN_UNITS: &str = "*nat
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
-A POSTROUTING -o eth0 -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
COMMIT
*filter
:DOCKER-USER - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A OUTPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
";

const ON_NODES: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s BRIDGE ! -o docker0 -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i br0 -j ACCEPT
-A FORWARD -o br0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
";

/// Writes rules with the programs of this variant, in both families.
fn restore(namespace: &Namespace, variant: &str, rules: &str) {
    for (program, bridge, loopback) in
        [("iptables", "172.17.0.0/16", "127.0.0.0/8"), ("ip6tables", "2001:db8::/64", "::1/128")]
    {
        let rules = rules.replace("BRIDGE", bridge).replace("LOOPBACK", loopback);
        let command = format!("{program}-{variant}-restore --noflush <<'END'\n{rules}END\n");
        namespace.run("sh", &["-c", &command]).unwrap();
    }
}

/// What every program lists, without counters and dates, and every setting of the network.
fn everything(namespace: &Namespace) -> BTreeMap<&'static str, String> {
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
        let text = namespace.run("sh", &["-c", command]).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| match line.starts_with(':') {
            true => line.split(" [").next().unwrap_or_default(),
            false => line,
        });
        (command, lines.flat_map(|line| [line, "\n"]).collect())
    });
    listed.into()
}

/// Packets that the rules against invalid ones dropped, in both families.
fn invalid(namespace: &Namespace, variant: &str) -> u64 {
    let counted = |program: &str| -> u64 {
        let text = namespace.run(&format!("{program}-{variant}-save"), &["-c"]).unwrap();
        let rules = text.lines().filter(|line| line.contains("--ctstate INVALID"));
        rules.map(|line| line.split(['[', ':']).nth(1).unwrap().parse::<u64>().unwrap()).sum()
    };
    counted("iptables") + counted("ip6tables")
}

/// Namespaces of which nothing may have changed, by what they are called in messages.
fn namespaces(spec: &WorldSpec) -> Vec<(&'static str, Namespace)> {
    let units = [("client", &spec.client), ("stranger", &spec.stranger), ("server", &spec.server)];
    let units = units.map(|(name, pu)| (name, pu.namespace.clone()));
    let nodes = [("node a", Side::A), ("node b", Side::B)];
    let nodes = nodes.map(|(name, side)| (name, spec.lab.node(side).namespace.clone()));
    units.into_iter().chain(nodes).collect()
}

fn works_beside_others_and_leaves_nothing(rules: &str, variant: &str) {
    let mut spec = WorldSpec::new().judged_by(Judge::Queue);
    for config in [&mut spec.a, &mut spec.b] {
        config.datapath_more.push_str(&format!("rules = \"{rules}\"\n"));
    }
    let namespaces = namespaces(&spec);
    for (name, namespace) in &namespaces {
        restore(namespace, variant, if name.starts_with("node") { ON_NODES } else { IN_UNITS });
    }
    let before: Vec<_> = namespaces.iter().map(|(_, namespace)| everything(namespace)).collect();

    let mut world = spec.start();
    let chosen = if rules == "auto" { format!("iptables-{variant}") } else { rules.to_owned() };
    let status = world.b.status().unwrap().to_string();
    assert!(status.contains(&format!("rules by {chosen},")), "{status}");
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    works(&world);
    drop(server);
    for (name, namespace) in &namespaces {
        assert_eq!(invalid(namespace, variant), 0, "{name}: packets that connection tracking calls invalid");
    }

    for agent in [&mut world.a, &mut world.b] {
        agent.stop().unwrap();
        agent.clean_up().unwrap();
    }
    for ((name, namespace), before) in namespaces.iter().zip(before) {
        for (list, after) in everything(namespace) {
            assert_eq!(Some(&after), before.get(list), "{name}: {list}");
        }
    }
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.stranger_sees(family, PORT), Reach::Answered, "{family}: nothing enforces any more");
    }
}

fn works(world: &World) {
    for family in Family::BOTH {
        for _ in 0..10 {
            let reach = world.client_sees_within(family, PATIENT);
            assert_eq!(reach, Reach::Answered, "{family}\n{}", world.look());
        }
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
        let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 2);
        assert_eq!(echoed.sent, echoed.received, "{family}");
    }
}

#[test]
fn rules_of_iptables_nft_live_beside_those_of_others_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("iptables-nft", "nft");
}

#[test]
fn rules_of_iptables_legacy_live_beside_those_of_others_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("iptables-legacy", "legacy");
}

#[test]
fn rules_of_iptables_nft_live_beside_legacy_ones_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("iptables-nft", "legacy");
}

#[test]
fn rules_of_which_nobody_says_how_follow_the_legacy_ones_and_clean_up_leaves_everything_as_it_was() {
    works_beside_others_and_leaves_nothing("auto", "legacy");
}
