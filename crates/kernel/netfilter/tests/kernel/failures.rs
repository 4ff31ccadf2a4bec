//! What fails leaves everything as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;
use trireme_netfilter::{BackEnd, NetfilterError, Programs, RuleSet, apply, intact, remove};

use crate::lab::{BOTH, inside, program, rule_set, run, tables};

/// A directory with links to the back end's programs.
fn programs_of(back_end: BackEnd) -> TempDir {
    let directory = TempDir::new().unwrap();
    let names = ["iptables", "ip6tables"]
        .into_iter()
        .flat_map(|family| ["save", "restore"].map(|verb| program(back_end, family, verb)));
    for name in names.chain(["nft".to_owned()]) {
        symlink(format!("/usr/sbin/{name}"), directory.path().join(name)).unwrap();
    }
    directory
}

fn script(path: &Path, text: &str) {
    drop(fs::remove_file(path));
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn missing_program_is_named_with_its_package() {
    for back_end in BOTH {
        let directory = programs_of(back_end);
        let name = program(back_end, "ip6tables", "restore");
        fs::remove_file(directory.path().join(&name)).unwrap();
        inside(|| {
            let before = tables(back_end);
            let error = Programs::in_directory(directory.path()).apply(back_end, &rule_set()).unwrap_err();

            assert_eq!(
                error.to_string(),
                format!("program {name} is not installed: install the package iptables (1.8 or later)")
            );
            assert_eq!(tables(back_end), before);
        });
    }
}

#[test]
fn failure_of_the_second_family_takes_the_first_back() {
    for back_end in BOTH {
        for older in [None, Some(RuleSet { released: 9, ..rule_set() })] {
            let directory = programs_of(back_end);
            let name = program(back_end, "ip6tables", "restore");
            let armed = directory.path().join("armed");
            // Fails once, on what would write the rules.
            script(
                &directory.path().join(&name),
                &format!(
                    "if [ -e {0} ]; then rm {0}; echo no memory >&2; exit 4; fi\nexec /usr/sbin/{name} \"$@\"",
                    armed.display()
                ),
            );
            let programs = Programs::in_directory(directory.path());
            inside(|| {
                // Tries the rules in a namespace of its own first, which is remembered.
                programs.apply(back_end, &rule_set()).unwrap();
                remove(back_end).unwrap();
                let older = older.map(|older| apply(back_end, &older).unwrap());
                let before = tables(back_end);
                fs::write(&armed, "").unwrap();

                let error = programs.apply(back_end, &rule_set()).unwrap_err();

                assert_eq!(error.to_string(), format!("{name} failed: no memory"));
                assert_eq!(tables(back_end), before);
                if let Some(older) = older {
                    assert_eq!(intact(back_end, &older).unwrap(), Ok(()));
                }
                programs.apply(back_end, &rule_set()).unwrap();
            });
        }
    }
}

#[test]
fn chain_of_our_name_that_is_not_ours_is_refused_by_name() {
    for back_end in BOTH {
        inside(|| {
            let ip6tables = program(back_end, "ip6tables", "");
            run(&format!("{ip6tables} -t mangle -N TRIREME-TO"));
            run(&format!("{ip6tables} -t mangle -A TRIREME-TO -p udp -j ACCEPT"));
            let before = tables(back_end);

            let (applied, removed) = (apply(back_end, &rule_set()), remove(back_end));

            for error in [applied.map(drop), removed.map(drop)] {
                let error = error.unwrap_err();
                assert!(matches!(&error, NetfilterError::Taken { .. }), "{error}");
                assert_eq!(
                    error.to_string(),
                    "chain TRIREME-TO of IPv6 table mangle is taken by someone else: rename or delete it"
                );
            }
            assert_eq!(tables(back_end), before);
        });
    }
}

#[test]
fn rules_of_another_version_are_told_and_replaced() {
    for back_end in BOTH {
        inside(|| {
            let iptables = program(back_end, "iptables", "");
            run(&format!("{iptables} -t mangle -N TRIREME-FROM"));
            let save = "*mangle\n-A TRIREME-FROM -m comment --comment \"trireme 2 x=1\"\nCOMMIT\n";
            crate::lab::feed(&format!("{} --noflush", program(back_end, "iptables", "restore")), save);

            let error = trireme_netfilter::read(back_end).unwrap_err();

            assert!(
                matches!(&error, NetfilterError::Version { comment } if comment == "trireme 2 x=1"),
                "{error}"
            );
            apply(back_end, &rule_set()).unwrap();
        });
    }
}
