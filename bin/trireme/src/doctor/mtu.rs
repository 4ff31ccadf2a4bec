//! Whether the largest handshake segments fit the interfaces.

use trireme::datapath::bpf::{self, Link};
use trireme::datapath::nfqueue;

use super::finding::Finding;
use super::interfaces;
use crate::config::{BudgetBytes, Config};

/// The longest headers in front of a token's payload.
const HEADERS: u32 = 120;

/// Packets below this no IPv4 passes: a bus, not a network.
const NO_NETWORK: u32 = 68;

/// Looks at the interfaces of this namespace and at those inside of units.
pub(super) fn look(config: Option<&Config>) -> Vec<Finding> {
    let budget = config.map(|config| config.token.size_budget).unwrap_or_default();
    let here = match interfaces::own(config) {
        Ok(links) => links,
        Err(error) => return vec![Finding::note("mtu", error, "run it as root")],
    };
    let mut places: Vec<(String, Link)> = here.into_iter().map(|link| (String::new(), link)).collect();
    for unit in config.iter().flat_map(|config| &config.pu) {
        // A unit that is not there is told by the check of units.
        if let Ok(Ok(links)) = nfqueue::inside(&unit.edge, bpf::interfaces) {
            let inside = links.into_iter().filter(|link| link.name != "lo");
            places.extend(inside.map(|link| (format!(" inside {}", unit.name), link)));
        }
    }
    judge(&places, budget)
}

fn judge(places: &[(String, Link)], budget: BudgetBytes) -> Vec<Finding> {
    let needed = u32::from(budget.bytes()) + HEADERS;
    let networks = || places.iter().filter(|(_, link)| link.mtu >= NO_NETWORK);
    let small: Vec<_> = networks()
        .filter(|(_, link)| link.mtu < needed)
        .map(|(place, link)| small(place, link, needed))
        .collect();
    if !small.is_empty() {
        return small;
    }
    vec![Finding::ok(
        "mtu",
        format!("handshake segments of {needed} bytes fit every interface ({})", networks().count()),
    )]
}

fn small(place: &str, link: &Link, needed: u32) -> Finding {
    let Link { name, mtu, .. } = link;
    let raise = format!("ip link set dev {name} mtu {needed}{place}");
    let fits = mtu.saturating_sub(HEADERS);
    let remedy = match BudgetBytes::try_from(u64::from(fits)) {
        Ok(_) => format!("set token.size_budget = {fits} on all nodes, or {raise}"),
        // Not even a token without tags fits.
        Err(_) => raise,
    };
    Finding::problem(
        "mtu",
        format!(
            "{name}{place} carries {mtu} bytes, a handshake segment with a full token has {needed}: first contacts are lost"
        ),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::interfaces::link;
    use super::*;

    fn at(mtu: u32) -> Vec<Finding> {
        judge(&[(String::new(), link("eth0", mtu))], BudgetBytes::default())
    }

    #[test]
    fn the_default_budget_needs_the_smallest_ipv6_mtu() {
        assert_eq!(
            at(1280),
            [Finding::ok("mtu", "handshake segments of 1280 bytes fit every interface (1)")]
        );
        let [finding] = at(1279).try_into().unwrap();
        assert_eq!(finding.level, Level::Problem);
        assert_eq!(
            finding.remedy.unwrap(),
            "set token.size_budget = 1159 on all nodes, or ip link set dev eth0 mtu 1280"
        );
    }

    #[test]
    fn a_smaller_budget_makes_a_small_mtu_enough() {
        let budget = BudgetBytes::try_from(880).unwrap();
        let [finding] = judge(&[(String::new(), link("eth0", 1000))], budget).try_into().unwrap();
        assert_eq!(finding.level, Level::Ok);
    }

    #[test]
    fn where_no_budget_fits_the_interface_is_named_alone() {
        let [finding] = judge(&[(" inside web".to_owned(), link("eth0", 500))], BudgetBytes::default())
            .try_into()
            .unwrap();
        assert!(finding.found.starts_with("eth0 inside web carries 500 bytes"), "{finding:?}");
        assert_eq!(finding.remedy.unwrap(), "ip link set dev eth0 mtu 1280 inside web");
        // A CAN bus.
        assert_eq!(at(16)[0].found, "handshake segments of 1280 bytes fit every interface (0)");
    }
}
