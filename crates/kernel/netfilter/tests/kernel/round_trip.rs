//! Writing, reading back, replacing and removing.

use trireme_netfilter::{
    BackEnd, MarkField, NetfilterError, OtherProtocols, RuleSet, Unanswered, apply, denied, intact, read,
    remove,
};
use trireme_netns::Namespace;

use crate::lab::{BOTH, inside, ours, program, rule_set, run, tables};

#[test]
fn what_was_applied_is_read_back_intact_and_removed_without_a_trace() {
    let other_field = |mask| MarkField::new(mask).unwrap();
    for back_end in BOTH {
        for set in [
            rule_set(),
            RuleSet { unanswered: Unanswered::Accept, other_protocols: OtherProtocols::Allow, ..rule_set() },
            RuleSet { field: other_field(0xf), released: 14, queue: 65535, ..rule_set() },
            RuleSet { field: other_field(u32::MAX), released: 0x0123_4567, ..rule_set() },
            RuleSet { field: other_field(0x0fff_0000), released: 1, tap_magic: [0; 4], ..rule_set() },
        ] {
            inside(|| {
                let before = tables(back_end);
                assert_eq!(read(back_end).unwrap(), None);

                let in_force = apply(back_end, &set).unwrap();

                assert_eq!(in_force.rule_set, set);
                assert_eq!(read(back_end).unwrap(), Some(in_force));
                assert_eq!(intact(back_end, &in_force).unwrap(), Ok(()));
                assert_eq!(denied(back_end).unwrap(), trireme_netfilter::Denied { from: 0, to: 0 });
                assert!(remove(back_end).unwrap());
                assert_eq!(tables(back_end), before);
                assert_eq!(read(back_end).unwrap(), None);
                assert!(!remove(back_end).unwrap());
                let damage = intact(back_end, &in_force).unwrap().unwrap_err();
                assert_eq!(damage.to_string(), "chain TRIREME-FROM of IPv4 table mangle is gone");
            });
        }
    }
}

#[test]
fn replacing_keeps_one_jump_to_each_chain_and_the_record_of_what_was_there() {
    for back_end in BOTH {
        inside(|| {
            let before = tables(back_end);
            let first = apply(back_end, &rule_set()).unwrap();
            for released in 6..9 {
                let set = RuleSet { released, ..rule_set() };
                let next = apply(back_end, &set).unwrap();
                assert_ne!(next.fingerprint, first.fingerprint);
                assert_eq!(read(back_end).unwrap(), Some(next));
                for family in ["iptables", "ip6tables"] {
                    let lines = ours(back_end, family);
                    let jumps = lines.iter().filter(|line| line.contains("-j TRIREME"));
                    assert_eq!(jumps.count(), 5, "{lines:#?}");
                }
                assert!(intact(back_end, &first).unwrap().is_err());
            }
            assert_eq!(apply(back_end, &rule_set()).unwrap(), first);
            remove(back_end).unwrap();
            assert_eq!(tables(back_end), before);
        });
    }
}

#[test]
fn applying_the_same_again_changes_nothing_and_another_namespace_has_the_same_fingerprint() {
    for back_end in BOTH {
        let fingerprint = || {
            inside(|| {
                let first = apply(back_end, &rule_set()).unwrap();
                let lines = tables(back_end);
                assert_eq!(apply(back_end, &rule_set()).unwrap(), first);
                assert_eq!(tables(back_end), lines);
                first.fingerprint
            })
        };
        assert_eq!(fingerprint(), fingerprint());
    }
}

#[test]
fn released_value_out_of_range_is_refused_before_anything_is_written() {
    for back_end in BOTH {
        inside(|| {
            let before = tables(back_end);
            for released in [0, 255, 256] {
                let error = apply(back_end, &RuleSet { released, ..rule_set() }).unwrap_err();
                assert!(matches!(error, NetfilterError::Released { max: 254, .. }), "{error}");
            }
            assert_eq!(tables(back_end), before);
        });
    }
}

#[test]
fn threads_that_apply_at_once_leave_one_set() {
    for back_end in BOTH {
        let namespace = Namespace::anonymous().unwrap();
        std::thread::scope(|scope| {
            for released in [1, 2, 3, 3] {
                let set = RuleSet { released, ..rule_set() };
                let namespace = &namespace;
                scope.spawn(move || namespace.run(|| apply(back_end, &set).unwrap()).unwrap());
            }
        });
        assert_intact(&namespace, back_end);
    }
}

/// What another program does at the same time, again and again.
#[test]
fn program_that_deletes_our_jump_meanwhile_does_not_keep_apply_from_ending() {
    for back_end in BOTH {
        let namespace = Namespace::anonymous().unwrap();
        namespace.run(|| apply(back_end, &rule_set()).unwrap()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flush = format!("{} -t mangle -F OUTPUT", program(back_end, "iptables", ""));
                namespace.run(|| (0..10).for_each(|_| drop(run(&flush)))).unwrap();
            });
            for released in 1..6 {
                let set = RuleSet { released, ..rule_set() };
                match namespace.run(|| apply(back_end, &set)).unwrap() {
                    Ok(in_force) => assert_eq!(in_force.rule_set, set),
                    Err(error) => assert!(matches!(error, NetfilterError::Contended(_)), "{error}"),
                }
            }
        });
        namespace.run(|| apply(back_end, &rule_set()).unwrap()).unwrap();
        assert_intact(&namespace, back_end);
    }
}

fn assert_intact(namespace: &Namespace, back_end: BackEnd) {
    let damage = || {
        let in_force = read(back_end).unwrap().unwrap();
        intact(back_end, &in_force).unwrap()
    };
    assert_eq!(namespace.run(damage).unwrap(), Ok(()));
}
