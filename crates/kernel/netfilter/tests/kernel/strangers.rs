//! Rules of others, before, between and after, survive and are not touched.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use trireme_netfilter::{BackEnd, RuleSet, apply, intact, remove};

use crate::lab::{BOTH, feed, inside, program, rule_set, run, tables};

const DOCKER: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
";

const KUBE_PROXY: &str = "*mangle
:KUBE-PROXY-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A POSTROUTING -m comment --comment \"kubernetes \\\"-j TRIREME-TO\\\" rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
";

const FIREWALLD: &str = "*raw
:PREROUTING_direct - [0:0]
-A PREROUTING -j PREROUTING_direct
COMMIT
*mangle
:PREROUTING_ZONES - [0:0]
-A PREROUTING -j PREROUTING_ZONES
-A OUTPUT -p udp -m udp --dport 53 -j DSCP --set-dscp 0x2e
-A POSTROUTING -o eth0 -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
COMMIT
*filter
:INPUT DROP [0:0]
:INPUT_ZONES - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -j INPUT_ZONES
-A INPUT -j REJECT
COMMIT
";

const FIREWALLD_NATIVE: &str = "table inet firewalld {
	chain mangle_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		jump zones
	}
	chain zones {
		ct state { established, related } accept
		meta mark set meta mark | 0x00000010
	}
}
";

fn restore(back_end: BackEnd, rules: &str) {
    for family in ["iptables", "ip6tables"] {
        // The fixtures are written for IPv4.
        let rules = match family {
            "iptables" => rules.to_owned(),
            _ => rules.replace("172.17.0.0/16", "2001:db8::/64").replace("172.17.0.2/32", "2001:db8::2/128"),
        };
        let rules = match family {
            "iptables" => rules,
            _ => rules.replace("172.17.0.2:80", "[2001:db8::2]:80").replace("127.0.0.0/8", "::1/128"),
        };
        feed(&format!("{} --noflush", program(back_end, family, "restore")), &rules);
    }
}

/// What `tables` shows, without what is ours.
fn without_ours(tables: &str) -> Vec<&str> {
    tables.lines().filter(|line| line.starts_with("-A") && !line.contains("TRIREME-")).collect()
}

#[test]
fn rules_of_docker_kube_proxy_and_firewalld_survive() {
    for back_end in BOTH {
        for fixtures in [&[DOCKER][..], &[KUBE_PROXY], &[FIREWALLD], &[DOCKER, KUBE_PROXY, FIREWALLD]] {
            inside(|| {
                if back_end == BackEnd::IptablesNft {
                    feed("nft -f -", FIREWALLD_NATIVE);
                }
                fixtures.iter().for_each(|fixture| restore(back_end, fixture));
                let before = tables(back_end);

                let in_force = apply(back_end, &rule_set()).unwrap();

                let during = tables(back_end);
                let quoting = |line: &&str| line.contains("\\\"-j TRIREME-TO");
                let mut expected = without_ours(&before);
                expected.retain(|line| !quoting(line));
                assert_eq!(without_ours(&during), expected);
                assert_eq!(intact(back_end, &in_force).unwrap(), Ok(()));
                assert!(remove(back_end).unwrap());
                assert_eq!(tables(back_end), before);
            });
        }
    }
}

#[test]
fn rules_that_come_later_survive_as_well() {
    for back_end in BOTH {
        let later = |ours: bool| {
            inside(|| {
                restore(back_end, DOCKER);
                if ours {
                    apply(back_end, &rule_set()).unwrap();
                }
                restore(back_end, FIREWALLD);
                if ours {
                    apply(back_end, &RuleSet { released: 8, ..rule_set() }).unwrap();
                }
                restore(back_end, KUBE_PROXY);
                if ours {
                    assert!(remove(back_end).unwrap());
                }
                tables(back_end)
            })
        };
        let (with, without) = (later(true), later(false));
        // nft lists base chains in the order in which they were made.
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&with), sorted(&without));
        assert_eq!(without_ours(&with), without_ours(&without));
    }
}

#[test]
fn empty_base_chain_that_was_there_before_stays() {
    inside(|| {
        run("iptables-nft -t mangle -A INPUT -j ACCEPT");
        run("iptables-nft -t mangle -F INPUT");
        let before = run("nft -s list ruleset");
        assert!(before.contains("chain INPUT"), "{before}");

        apply(BackEnd::IptablesNft, &rule_set()).unwrap();
        remove(BackEnd::IptablesNft).unwrap();

        assert_eq!(run("nft -s list ruleset"), before);
    });
}

/// A table with its built-in chains.
const TABLES: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("nat", &["PREROUTING", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

const RULES: [&str; 10] = [
    "-j ACCEPT",
    "-p tcp -m tcp --dport 80 -j ACCEPT",
    "-p udp -j RETURN",
    "-m mark --mark 0x1/0xff -j ACCEPT",
    "-m comment --comment \"trireme\" -j ACCEPT",
    "-m comment --comment \"-j TRIREME-FROM\" -j RETURN",
    "-m comment --comment \"a \\\"quoted\\\" word\"",
    "-m conntrack --ctstate ESTABLISHED -j ACCEPT",
    "-p tcp -m tcp --tcp-flags SYN,ACK SYN -j RETURN",
    "-j USER",
];

#[derive(Clone, Debug)]
pub(crate) struct Stranger {
    table: usize,
    chain: usize,
    rule: usize,
}

pub(crate) fn strangers() -> impl Strategy<Value = Vec<Stranger>> {
    let one = (0..TABLES.len(), 0..6usize, 0..RULES.len());
    let one = one.prop_map(|(table, chain, rule)| Stranger { table, chain, rule });
    prop::collection::vec(one, 0..12)
}

pub(crate) fn write(back_end: BackEnd, family: &str, strangers: &[Stranger]) {
    let mut text = String::new();
    for (number, (table, chains)) in TABLES.iter().enumerate() {
        let inside: Vec<_> = strangers.iter().filter(|stranger| stranger.table == number).collect();
        if inside.is_empty() {
            continue;
        }
        text += &format!("*{table}\n:USER - [0:0]\n:OTHER - [0:0]\n");
        for stranger in inside {
            let (chain, rule) = (chains.get(stranger.chain).unwrap_or(&"OTHER"), RULES[stranger.rule]);
            text += &format!("-A {chain} {rule}\n");
        }
        text += "COMMIT\n";
    }
    if !text.is_empty() {
        feed(&format!("{} --noflush", program(back_end, family, "restore")), &text);
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 24,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    })]

    #[test]
    fn random_rules_of_others_are_the_same_after_remove(
        legacy: bool,
        v4 in strangers(),
        v6 in strangers(),
        released in prop::collection::vec(1u32..254, 1..3),
    ) {
        let back_end = BOTH[usize::from(legacy)];
        inside(|| {
            write(back_end, "iptables", &v4);
            write(back_end, "ip6tables", &v6);
            let before = tables(back_end);
            for released in released {
                let in_force = apply(back_end, &RuleSet { released, ..rule_set() }).unwrap();
                assert_eq!(intact(back_end, &in_force).unwrap(), Ok(()));
            }
            assert!(remove(back_end).unwrap());
            assert_eq!(tables(back_end), before);
        });
    }
}
