//! The rules of the host: written, changed, looked after and removed beside those of others.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use trireme_netfilter::{
    BackEnd, HostField, HostJudged, HostSet, HostUnit, MarkField, NetfilterError, OtherProtocols, Programs,
    Unanswered,
};

use crate::lab::{BOTH, inside, program, run, tables};
use crate::strangers::{strangers, write};

/// A cgroup of the test's own, removed with this.
pub(crate) struct Cgroup {
    path: PathBuf,
    level: u32,
}

impl Cgroup {
    /// Makes one right below the root.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = root.into_iter().find(|root| root.join("cgroup.procs").exists()).unwrap();
        let path = root.join(format!("trireme-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path, level: 1 }
    }

    pub(crate) fn below(&self, name: &str) -> Self {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap();
        Self { path, level: self.level + 1 }
    }

    pub(crate) fn unit(&self, number: u32) -> HostUnit {
        HostUnit {
            number,
            cgroup: self.path.strip_prefix("/sys/fs/cgroup").unwrap().to_str().unwrap().to_owned(),
            level: self.level,
            judged: Some(HostJudged {
                queue: 40 + u16::try_from(number).unwrap(),
                unanswered: Unanswered::Drop,
                other_protocols: OtherProtocols::Deny,
            }),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.path));
    }
}

fn set(units: &[HostUnit]) -> HostSet {
    HostSet { field: MarkField::UPPER_HALF, released: 5, tap_magic: *b"TAP\x01", units: units.to_vec() }
}

#[test]
fn set_is_written_changed_and_removed_without_a_trace_and_what_was_learned_stays() {
    for back_end in BOTH {
        let (outer, other) = (Cgroup::new(), Cgroup::new());
        let inner = outer.below("inner");
        let programs = Programs::default();
        inside(|| {
            let before = tables(back_end) + &run("nft -s list ruleset");
            assert!(!programs.has_host().unwrap());
            let first = set(&[outer.unit(1), inner.unit(2)]);
            let seen = [(1, "192.0.2.1:80".parse().unwrap()), (2, "[2001:db8::1]:81".parse().unwrap())];

            let in_force = programs.apply_host(back_end, &first, &seen, None).unwrap().unwrap();

            assert_eq!(programs.look_host(&in_force).unwrap().damage, None);
            assert!(programs.has_host().unwrap() && programs.queues_host(back_end).unwrap());
            let listed = run("nft list table inet trireme_host");
            let at = |part: &str| listed.find(part).unwrap_or_else(|| panic!("{part} in {listed}"));
            assert!(at("level 2") < at("level 1"), "{listed}");
            let other_set = HostSet { released: 6, ..set(&[outer.unit(1), other.unit(3)]) };
            let in_force = programs.apply_host(back_end, &other_set, &[], Some(&in_force)).unwrap().unwrap();
            assert_eq!(programs.look_host(&in_force).unwrap().damage, None);
            let listed = run("nft list table inet trireme_host");
            assert!(listed.contains("192.0.2.1 . 80") && !listed.contains("2001:db8::1"), "{listed}");
            assert!(!listed.contains("unit_2") && listed.contains("unit_3"), "{listed}");
            let queues = run(&program(back_end, "ip6tables", "save"));
            assert!(queues.contains("0x3000000/0xffff0000 -j NFQUEUE --queue-num 43"), "{queues}");
            assert!(!queues.contains("0x2000000/0xffff0000"), "{queues}");

            let off = HostUnit { judged: None, ..outer.unit(1) };
            assert_eq!(programs.apply_host(back_end, &set(&[off]), &[], None).unwrap(), None);
            assert!(!programs.remove_host(back_end).unwrap());
            assert_eq!(tables(back_end) + &run("nft -s list ruleset"), before);
        });
    }
}

#[test]
fn each_damage_is_named_and_repaired() {
    for back_end in BOTH {
        let cgroup = Cgroup::new();
        let wanted = set(&[cgroup.unit(1)]);
        let programs = Programs::default();
        let iptables = program(back_end, "iptables", "");
        for (change, said) in [
            ("nft flush table inet trireme_host", "of table inet trireme_host lacks"),
            ("nft flush chain inet trireme_host to", "chain to of table inet trireme_host lacks"),
            ("nft delete table inet trireme_host", "table inet trireme_host is gone"),
            ("nft insert rule inet trireme_host from accept", "has `accept` instead of `meta mark set"),
            ("nft add chain inet trireme_host more", "chain more of table inet trireme_host was added"),
            ("IPT -t mangle -F TRIREME-HOST-TO", "chain TRIREME-HOST-TO of IPv4 table mangle lacks"),
            (
                "IPT -t mangle -D OUTPUT -j TRIREME-HOST-FROM",
                "the jump from OUTPUT to TRIREME-HOST-FROM of IPv4",
            ),
            (
                "IPT -t mangle -I INPUT -j ACCEPT",
                "(rule 2)` instead of `-A INPUT -j TRIREME-HOST-TO (rule 1)`",
            ),
        ] {
            inside(|| {
                let in_force = programs.apply_host(back_end, &wanted, &[], None).unwrap().unwrap();
                run(&change.replace("IPT", &iptables));

                let damage = programs.look_host(&in_force).unwrap().damage.unwrap().to_string();

                assert!(damage.contains(said), "{change}: {damage}");
                let repaired = programs.apply_host(back_end, &wanted, &[], None).unwrap().unwrap();
                assert_eq!(repaired, in_force, "{change}");
                assert!(programs.remove_host(back_end).unwrap());
            });
        }
    }
}

#[test]
fn a_cgroup_that_goes_and_counters_are_no_damage() {
    let (kept, going) = (Cgroup::new(), Cgroup::new());
    let programs = Programs::default();
    inside(|| {
        run("ip link set lo up");
        let wanted = set(&[kept.unit(1), going.unit(2)]);
        let in_force = programs.apply_host(BackEnd::IptablesNft, &wanted, &[], None).unwrap().unwrap();
        drop(going);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();

        assert_eq!(programs.look_host(&in_force).unwrap().damage, None);
    });
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let cgroup = Cgroup::new();
    let programs = Programs::default();
    let absent = HostUnit { cgroup: "absent-for-sure".to_owned(), ..cgroup.unit(1) };
    inside(|| {
        let before = run("nft list ruleset");
        let error = programs.apply_host(BackEnd::IptablesNft, &set(&[absent]), &[], None).unwrap_err();
        assert!(matches!(error, NetfilterError::Lacking { .. }), "{error:?}");
        assert!(error.to_string().contains("cgroupv2 path fails"), "{error}");
        let max = HostField::new(MarkField::UPPER_HALF).max_unit();
        let error =
            programs.apply_host(BackEnd::IptablesNft, &set(&[cgroup.unit(max + 1)]), &[], None).unwrap_err();
        assert!(
            error.to_string().contains("room for 255 units of the host, and 256 is one too many"),
            "{error}"
        );
        let none = tempfile::TempDir::new().unwrap();
        let programs = Programs::in_directory(none.path());
        let error =
            programs.apply_host(BackEnd::IptablesNft, &set(&[cgroup.unit(1)]), &[], None).unwrap_err();
        assert!(error.to_string().contains("program nft is not installed"), "{error}");
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn what_stands_under_our_names_and_is_not_ours_is_refused() {
    let cgroup = Cgroup::new();
    let programs = Programs::default();
    for command in ["nft -f /dev/stdin", "iptables-nft-restore --noflush"] {
        let rules = match command.starts_with("nft") {
            true => "add table inet trireme_host\nadd chain inet trireme_host mine\n",
            false => "*mangle\n:TRIREME-HOST-TO - [0:0]\n-A TRIREME-HOST-TO -j ACCEPT\nCOMMIT\n",
        };
        inside(|| {
            crate::lab::feed(command, rules);
            let before = run("nft list ruleset");
            for error in [
                programs.apply_host(BackEnd::IptablesNft, &set(&[cgroup.unit(1)]), &[], None).map(drop),
                programs.remove_host(BackEnd::IptablesNft).map(drop),
            ] {
                assert!(matches!(error, Err(NetfilterError::Taken { .. })), "{error:?}");
            }
            assert_eq!(run("nft list ruleset"), before);
        });
    }
}

proptest! {
    #![proptest_config(Config {
        cases: 16,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    })]

    #[test]
    fn random_rules_of_others_are_the_same_after_remove(
        legacy: bool,
        v4 in strangers(),
        v6 in strangers(),
        sets in prop::collection::vec((1u32..254, 1u32..255, 1u32..255), 1..3),
    ) {
        let back_end = BOTH[usize::from(legacy)];
        let (one, two) = (Cgroup::new(), Cgroup::new());
        let programs = Programs::default();
        inside(|| {
            write(back_end, "iptables", &v4);
            write(back_end, "ip6tables", &v6);
            let before = tables(back_end);
            for (released, first, second) in sets {
                let mut units = vec![one.unit(first)];
                if second != first {
                    units.push(two.unit(second));
                }
                let wanted = HostSet { released, ..set(&units) };
                let in_force = programs.apply_host(back_end, &wanted, &[], None).unwrap().unwrap();
                assert_eq!(programs.look_host(&in_force).unwrap().damage, None);
            }
            assert!(programs.remove_host(back_end).unwrap());
            assert_eq!(tables(back_end), before);
            assert!(!run("nft list ruleset").contains("trireme"));
        });
    }
}

/// `nft` that does something else where a packet would be queued.
fn instead_of_queues(statement: &str) -> (tempfile::TempDir, Programs) {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("nft");
    let text = format!(
        "#!/bin/sh\nsed -E 's/queue num [0-9]+( bypass)?/{statement}/' | exec /usr/sbin/nft \"$@\"\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let programs = Programs::in_directory(directory.path());
    (directory, programs)
}

/// Instead of the queue the table itself writes what an agent's verdict would, so that all behind the queue is real.
#[test]
fn table_that_queues_by_itself_saves_verdicts_of_units_and_leaves_others_alone() {
    // Released now, judged, released under an older number, and not queued at all.
    for (verdict, saved) in [
        ("meta mark set 0x01050070 accept", Some(0x0105_0000)),
        ("meta mark set 0x01ff0070 accept", Some(0x0100_0000)),
        ("meta mark set 0x01040070 accept", Some(0x0100_0000)),
        ("continue", None),
    ] {
        let (_directory, programs) = instead_of_queues(verdict);
        let cgroup = Cgroup::new();
        fs::write(cgroup.path.join("cgroup.type"), "threaded").unwrap();
        for (unit, peer) in crate::lab::families() {
            let wire = crate::lab::Wire::new();
            let apply =
                || programs.apply_host(BackEnd::Nft, &set(&[cgroup.unit(1)]), &[], None).unwrap().unwrap();
            let in_force = wire.unit.run(apply).unwrap();
            let look = wire.unit.run(|| programs.look_host(&in_force).unwrap()).unwrap();
            assert_eq!(look.damage, None);
            let listener = wire.peer.run(|| std::net::TcpListener::bind((peer, 0)).unwrap()).unwrap();
            let to = listener.local_addr().unwrap();
            let connect = || std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(500));
            let others = wire.unit.run(connect).unwrap().unwrap();
            let ours = wire
                .unit
                .run(|| {
                    let tasks = fs::read_link("/proc/thread-self").unwrap();
                    let id = tasks.file_name().unwrap().to_str().unwrap().to_owned();
                    fs::write(cgroup.path.join("cgroup.threads"), id).unwrap();
                    connect()
                })
                .unwrap();
            let mut marks = wire.unit.run(crate::lab::connmarks).unwrap();
            marks.sort_unstable();
            match saved {
                Some(saved) => assert_eq!((ours.is_ok(), marks), (true, vec![0, saved]), "{unit} {verdict}"),
                None => {
                    assert!(ours.is_err(), "{unit}: what was not queued passed");
                    let look = wire.unit.run(|| programs.look_host(&in_force).unwrap()).unwrap();
                    assert!(matches!(look.units[..], [(1, _, trireme_netfilter::Unqueued(1..))]), "{look:?}");
                }
            }
            drop(others);
        }
    }
}
