//! Connection tracking: whether it has room, and whether it takes up connections whose start it did not see.

use trireme::datapath::nfqueue;

use super::finding::Finding;
use super::read;
use crate::config::{Config, DatapathKind};

/// Fill in per cent from which new connections are about to be dropped by the kernel.
const FULL: u64 = 90;

/// What one network namespace says; without tracking it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tracking {
    count: Option<u64>,
    max: Option<u64>,
    loose: Option<u64>,
}

/// Looks at this namespace, and for queues at those of the units: their marks are in the table there.
pub(super) fn look(config: Option<&Config>, chosen: Option<DatapathKind>) -> Vec<Finding> {
    let queues = chosen == Some(DatapathKind::Nfqueue);
    let mut findings: Vec<_> = fill("this node", read_here()).into_iter().collect();
    for unit in config.filter(|_| queues).iter().flat_map(|config| &config.pu) {
        // A unit that is not there is told by the check of units.
        let Ok(inside) = nfqueue::inside(&unit.edge, read_here) else { continue };
        findings.extend(fill(unit.name.as_str(), inside));
        findings.extend(loose(unit.name.as_str(), inside));
    }
    findings
}

fn read_here() -> Tracking {
    let setting = |name| read::setting(&format!("net/netfilter/nf_conntrack_{name}"));
    Tracking { count: setting("count"), max: setting("max"), loose: setting("tcp_loose") }
}

fn fill(place: &str, tracking: Tracking) -> Option<Finding> {
    let (count, max) = (tracking.count?, tracking.max.filter(|max| *max > 0)?);
    let per_cent = count.saturating_mul(100) / max;
    let found = format!("{place} tracks {count} of at most {max} connections ({per_cent} %)");
    Some(if per_cent >= FULL {
        Finding::problem(
            "conntrack",
            format!("{found}: the kernel drops new ones when it is full"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(2)),
        )
    } else {
        Finding::ok("conntrack", found)
    })
}

fn loose(place: &str, tracking: Tracking) -> Option<Finding> {
    (tracking.loose? == 0).then(|| {
        Finding::note(
            "conntrack",
            format!("{place} does not track connections that are older than tracking: all their packets go through the queue"),
            "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1 in its network namespace",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_table_is_full_from_ninety_per_cent_on() {
        let at = |count| fill("web", Tracking { count: Some(count), max: Some(1000), loose: None }).unwrap();
        assert_eq!(at(899), Finding::ok("conntrack", "web tracks 899 of at most 1000 connections (89 %)"));
        let full = at(900);
        assert_eq!(full.level, Level::Problem);
        assert_eq!(full.remedy.unwrap(), "sysctl -w net.netfilter.nf_conntrack_max=2000");
    }

    #[test]
    fn a_kernel_that_tracks_nothing_has_no_finding() {
        assert_eq!(fill("web", Tracking::default()), None);
        assert_eq!(fill("web", Tracking { count: Some(1), max: Some(0), loose: None }), None);
        assert_eq!(loose("web", Tracking::default()), None);
    }

    #[test]
    fn strict_tracking_is_noted() {
        assert_eq!(
            loose("web", Tracking { loose: Some(0), ..Tracking::default() }).unwrap().level,
            Level::Note
        );
        assert_eq!(loose("web", Tracking { loose: Some(1), ..Tracking::default() }), None);
    }
}
