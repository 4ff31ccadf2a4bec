//! Being told of changes.

use trireme_netfilter::{BackEnd, Changes, apply, remove};

use crate::lab::{inside, rule_set, run};

#[test]
fn every_change_of_nftables_is_told_once_whoever_makes_it() {
    inside(|| {
        let changes = Changes::open().unwrap();
        assert!(!changes.forget());

        apply(BackEnd::IptablesNft, &rule_set()).unwrap();
        assert!(changes.forget());
        assert!(!changes.forget(), "told twice");

        run("nft flush ruleset");
        assert!(changes.forget());

        remove(BackEnd::IptablesNft).unwrap();
        assert!(!changes.forget(), "nothing was there to be removed");
    });
}

#[test]
fn changes_of_other_namespaces_are_not_told() {
    inside(|| {
        let changes = Changes::open().unwrap();
        inside(|| run("nft add table inet somebody"));
        assert!(!changes.forget());
    });
}
