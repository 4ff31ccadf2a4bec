//! The table of nft, on any kernel: what would queue goes on instead, so that a kernel without `queue` takes the rules.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use trireme_netfilter::{
    BackEnd, Denied, MarkField, NetfilterError, OtherProtocols, Programs, RuleSet, Unanswered,
};

use crate::lab::{Wire, connmarks, inside, rule_set, run};

fn without_queue() -> (TempDir, Programs) {
    with("continue")
}

/// `nft` that reads something else where `queue` is written.
fn with(statement: &str) -> (TempDir, Programs) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("nft");
    let text = format!(
        "#!/bin/sh\nsed -E 's/queue num [0-9]+( bypass)?/{statement}/' | exec /usr/sbin/nft \"$@\"\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let programs = Programs::in_directory(directory.path());
    (directory, programs)
}

#[test]
fn table_is_read_back_intact_replaced_and_removed_without_a_trace() {
    let (_directory, programs) = without_queue();
    let nft = BackEnd::Nft;
    for set in [
        rule_set(),
        RuleSet { unanswered: Unanswered::Accept, other_protocols: OtherProtocols::Allow, ..rule_set() },
        RuleSet { field: MarkField::new(0xf).unwrap(), released: 14, queue: 65535, ..rule_set() },
        RuleSet { field: MarkField::new(u32::MAX).unwrap(), released: u32::MAX - 1, ..rule_set() },
    ] {
        inside(|| {
            run("nft add table inet other");
            let before = run("nft list ruleset");
            assert_eq!(programs.read(nft).unwrap(), None);

            let in_force = programs.apply(nft, &set).unwrap();

            assert_eq!(in_force.rule_set, set);
            assert_eq!(programs.read(nft).unwrap(), Some(in_force));
            assert_eq!(programs.intact(nft, &in_force).unwrap(), Ok(()));
            let listed = run("nft -a list ruleset");
            assert_eq!(programs.apply(nft, &set).unwrap(), in_force);
            assert_eq!(run("nft -a list ruleset"), listed);
            let other = programs.apply(nft, &RuleSet { released: 3, ..set }).unwrap();
            assert_ne!(other.fingerprint, in_force.fingerprint);
            assert_eq!(run("nft list ruleset").matches("chain").count(), 5);
            assert!(programs.remove(nft).unwrap());
            assert!(!programs.remove(nft).unwrap());
            assert_eq!(run("nft list ruleset"), before);
        });
    }
}

#[test]
fn each_damage_is_named_and_repaired_by_apply() {
    let (_directory, programs) = without_queue();
    let nft = BackEnd::Nft;
    for (change, said) in [
        ("nft flush table inet trireme", "chain from of table inet trireme lacks `meta mark set"),
        ("nft flush chain inet trireme to", "chain to of table inet trireme lacks"),
        ("nft insert rule inet trireme to accept", "has `accept` instead of `meta mark set"),
        (
            "nft add rule inet trireme from accept",
            "chain from of table inet trireme has `accept` in addition",
        ),
        ("nft add chain inet trireme more", "chain more of table inet trireme was added"),
        (
            "nft add table inet trireme { flags dormant ; }",
            "table inet trireme has `flags dormant` in addition",
        ),
        ("nft delete table inet trireme", "table inet trireme is gone"),
    ] {
        inside(|| {
            let in_force = programs.apply(nft, &rule_set()).unwrap();
            run(change);

            let damage = programs.intact(nft, &in_force).unwrap().unwrap_err().to_string();

            assert!(damage.contains(said), "{change}: {damage}");
            assert_eq!(programs.apply(nft, &rule_set()).unwrap(), in_force, "{change}");
            assert!(programs.remove(nft).unwrap());
        });
    }
}

#[test]
fn table_of_our_name_that_is_not_ours_is_refused() {
    let (_directory, programs) = without_queue();
    inside(|| {
        run("nft add table inet trireme");
        run("nft add chain inet trireme mine");
        let before = run("nft list ruleset");

        let errors =
            [programs.apply(BackEnd::Nft, &rule_set()).map(drop), programs.remove(BackEnd::Nft).map(drop)];

        for error in errors {
            assert!(matches!(error, Err(NetfilterError::Taken { .. })), "{error:?}");
        }
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn other_protocols_are_denied_and_counted() {
    let (_directory, programs) = without_queue();
    let wire = Wire::new();
    wire.unit.run(|| programs.apply(BackEnd::Nft, &rule_set()).unwrap()).unwrap();
    for (unit, peer) in crate::lab::families() {
        let sender = wire.unit.run(|| std::net::UdpSocket::bind((unit, 0)).unwrap()).unwrap();
        drop(sender.send_to(b"x", (peer, 9)));
        let sender = wire.peer.run(|| std::net::UdpSocket::bind((peer, 0)).unwrap()).unwrap();
        sender.send_to(b"x", (unit, 9)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(200));

    let denied = wire.unit.run(|| programs.denied(BackEnd::Nft).unwrap()).unwrap();

    assert_eq!(denied, Denied { from: 2, to: 2 });
}

/// Instead of the queue the table itself writes what an agent's verdict would, so that all behind the queue is real.
#[test]
fn verdict_is_saved_whatever_its_value_is() {
    // The first releases now, the last is reset.
    for (value, saved) in [(5, 5), (4, 4), (6, 6), (0xfa, 0xfa), (1, 1), (255, 0)] {
        let (_directory, programs) =
            with(&format!("counter meta mark set {:#x} accept", value << 24 | 0x70u32));
        for (unit, peer) in crate::lab::families() {
            let wire = Wire::new();
            let set = RuleSet { released: 5, ..rule_set() };
            wire.unit.run(|| programs.apply(BackEnd::Nft, &set).unwrap()).unwrap();
            let tally = |chain: &str, part: &str| {
                let table = wire.unit.run(|| run(&format!("nft list chain inet trireme {chain}"))).unwrap();
                let lines =
                    table.lines().filter(|line| line.contains(part) && line.contains("counter packets"));
                let packets =
                    lines.map(|line| line.split("packets ").nth(1).unwrap().split(' ').next().unwrap());
                packets.map(|packets| packets.parse::<u32>().unwrap()).sum::<u32>()
            };
            let listener = wire.peer.run(|| TcpListener::bind((peer, 0)).unwrap()).unwrap();
            let to = listener.local_addr().unwrap();
            let mut ours = wire.unit.run(|| TcpStream::connect(to).unwrap()).unwrap();
            let mut theirs = listener.accept().unwrap().0;
            assert_eq!((tally("from", "syn"), tally("to", "syn")), (1, 1), "{unit}");
            let queued = tally("from", "l4proto tcp");
            for _ in 0..3 {
                ours.write_all(b"ping").unwrap();
                theirs.read_exact(&mut [0; 4]).unwrap();
            }
            assert_eq!(tally("from", "l4proto tcp") == queued, value == 5, "{value}");
            assert_eq!(tally("to", "doff"), 0);
            theirs.write_all(b"TAP\x01").unwrap();
            ours.read_exact(&mut [0; 4]).unwrap();
            assert_eq!(tally("to", "doff"), 1);

            assert_eq!(wire.unit.run(connmarks).unwrap(), [saved << 24], "{value}");
        }
    }
}
