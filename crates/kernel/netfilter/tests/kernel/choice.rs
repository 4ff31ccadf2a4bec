//! Which back end a namespace gets.

use trireme_netfilter::{BackEnd, Capabilities, NetfilterError, Programs, apply};

use crate::lab::{inside, rule_set, run};

#[test]
fn untouched_namespace_gets_the_first_that_works_and_stays_untouched() {
    let capabilities = Capabilities::default();
    let works = BackEnd::ALL.into_iter().find(|back_end| capabilities.supports(*back_end).is_ok()).unwrap();
    inside(|| {
        assert_eq!(capabilities.choose().unwrap(), works);
        assert_eq!(BackEnd::detect().unwrap(), works);
        assert_eq!(run("nft list ruleset"), "");
        assert_eq!(std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap(), "");
    });
}

#[test]
fn kernel_without_a_part_is_told_what_it_lacks() {
    match Capabilities::default().supports(BackEnd::Nft) {
        Ok(()) => {}
        Err(error) => assert!(error.to_string().contains("NFT_QUEUE"), "{error}"),
    }
}

#[test]
fn namespace_with_legacy_rules_of_somebody_gets_legacy() {
    inside(|| {
        run("iptables-legacy -t nat -L");
        assert_ne!(BackEnd::detect().unwrap(), BackEnd::IptablesLegacy);
        run("iptables-legacy -t nat -A OUTPUT -p udp -j ACCEPT");
        assert_eq!(BackEnd::detect().unwrap(), BackEnd::IptablesLegacy);
    });
}

#[test]
fn namespace_with_rules_of_ours_keeps_its_back_end() {
    inside(|| {
        apply(BackEnd::IptablesNft, &rule_set()).unwrap();
        run("iptables-legacy -t nat -A OUTPUT -p udp -j ACCEPT");
        assert_eq!(BackEnd::detect().unwrap(), BackEnd::IptablesNft);
    });
}

#[test]
fn node_without_any_program_is_told_what_to_install() {
    let empty = tempfile::TempDir::new().unwrap();
    let error = inside(|| Capabilities::of(Programs::in_directory(empty.path())).choose().unwrap_err());

    assert!(matches!(error, NetfilterError::NoBackEnd { .. }), "{error:?}");
    for package in ["nftables", "iptables"] {
        assert!(error.to_string().contains(&format!("install the package {package}")), "{error}");
    }
}
