//! What others do to our rules is noticed, named and repaired.

use trireme_netfilter::{BackEnd, apply, intact, read, remove};

use crate::lab::{BOTH, inside, program, rule_set, run, tables};

/// What somebody does, and what is said about it.
const DAMAGES: [(&str, &str, &str); 9] = [
    ("iptables", "-t mangle -F TRIREME-FROM", "chain TRIREME-FROM of IPv4 table mangle lacks `-m comment"),
    ("ip6tables", "-t mangle -D TRIREME-TO 2", "chain TRIREME-TO of IPv6 table mangle has `-p tcp"),
    ("iptables", "-t mangle -A TRIREME-TO -j ACCEPT", "of IPv4 table mangle has `-j ACCEPT` in addition"),
    ("iptables", "-t mangle -I TRIREME-SAVE 1 -j ACCEPT", "has `-j ACCEPT` instead of `-m comment"),
    (
        "ip6tables",
        "-t mangle -D OUTPUT -j TRIREME-FROM",
        "the jump from OUTPUT to TRIREME-FROM of IPv6 table mangle lacks",
    ),
    ("iptables", "-t mangle -I INPUT 1 -j ACCEPT", "(rule 2)` instead of `-A INPUT -j TRIREME-TO (rule 1)`"),
    (
        "ip6tables",
        "-t filter -A INPUT -j TRIREME-SAVE",
        "has `-A INPUT -j TRIREME-SAVE (rule 2)` in addition",
    ),
    ("iptables", "-t filter -F", "chain TRIREME-SAVE of IPv4 table filter lacks"),
    ("ip6tables", "-t mangle -F", "chain TRIREME-FROM of IPv6 table mangle lacks"),
];

#[test]
fn each_damage_is_named_and_repaired_by_apply() {
    for back_end in BOTH {
        for (family, change, said) in DAMAGES {
            inside(|| {
                let in_force = apply(back_end, &rule_set()).unwrap();
                run(&format!("{} {change}", program(back_end, family, "")));

                let damage = intact(back_end, &in_force).unwrap().unwrap_err().to_string();

                assert!(damage.contains(said), "{change}: {damage}");
                let found = read(back_end).unwrap().unwrap();
                assert_eq!(found.rule_set, in_force.rule_set);
                assert_ne!(found.fingerprint, in_force.fingerprint);
                assert_eq!(apply(back_end, &rule_set()).unwrap(), in_force, "{change}");
                assert_eq!(intact(back_end, &in_force).unwrap(), Ok(()));
            });
        }
    }
}

#[test]
fn damaged_rules_are_removed_whole() {
    for back_end in BOTH {
        for (family, change, _) in DAMAGES {
            inside(|| {
                apply(back_end, &rule_set()).unwrap();
                run(&format!("{} {change}", program(back_end, family, "")));
                assert!(remove(back_end).unwrap());
                assert!(!tables(back_end).contains("TRIREME"), "{change}");
            });
        }
    }
}

/// Counters of our rules that are not zero.
fn counters(back_end: BackEnd) -> Vec<String> {
    let text = run(&format!("{} -c", program(back_end, "iptables", "save")));
    let counted = text.lines().filter(|line| line.contains("-A TRIREME") && !line.starts_with("[0:0]"));
    counted.map(str::to_owned).collect()
}

#[test]
fn counters_and_rules_of_others_are_no_damage() {
    for back_end in BOTH {
        inside(|| {
            let in_force = apply(back_end, &rule_set()).unwrap();
            run("ip link set lo up");
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            assert!(!counters(back_end).is_empty());
            run(&format!("{} -t mangle -A OUTPUT -j ACCEPT", program(back_end, "iptables", "")));

            assert_eq!(intact(back_end, &in_force).unwrap(), Ok(()));
            assert_eq!(read(back_end).unwrap(), Some(in_force));
        });
    }
}

#[test]
fn base_chain_that_somebody_else_began_to_use_stays() {
    inside(|| {
        apply(BackEnd::IptablesNft, &rule_set()).unwrap();
        run("iptables-nft -t mangle -A INPUT -j ACCEPT");
        run("ip6tables-nft -t mangle -P FORWARD DROP");
        remove(BackEnd::IptablesNft).unwrap();

        let left = run("nft -s list ruleset");

        assert_eq!(left.matches("chain").count(), 2, "{left}");
        assert_eq!(run("iptables-nft -t mangle -S INPUT"), "-P INPUT ACCEPT\n-A INPUT -j ACCEPT\n");
        assert_eq!(run("ip6tables-nft -t mangle -S FORWARD"), "-P FORWARD DROP\n");
    });
}
