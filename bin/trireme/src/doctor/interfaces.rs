//! What interfaces do to packets on their way.

use trireme::datapath::bpf::{self, Link};

use super::finding::Finding;
use super::read;
use crate::config::Config;

/// What one interface is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interface {
    name: String,
    /// 1 is strict.
    rp_filter: u64,
    forwards: bool,
    merges: bool,
}

/// Looks at the interfaces of this namespace.
pub(super) fn look(config: Option<&Config>) -> Vec<Finding> {
    // That they cannot be listed is told by the check of their size.
    let links = own(config).unwrap_or_default();
    let interfaces: Vec<_> = links.iter().map(|link| read_one(&link.name)).collect();
    let edges = config.map(edges);
    let mut findings = vec![way_back(&interfaces, edges.as_deref()), merging(&interfaces)];
    findings.extend(syn_cookies(read::setting("net/ipv4/tcp_syncookies")));
    findings
}

/// The interfaces of this namespace that matter: of veth and netkit pairs, with a configuration, only the units'.
pub(super) fn own(config: Option<&Config>) -> Result<Vec<Link>, String> {
    let links = bpf::interfaces().map_err(|error| crate::exit::one_line(&error.into()))?;
    let edges = config.map(edges);
    let matters = |link: &Link| {
        let is_edge = || edges.as_ref().is_none_or(|edges| edges.contains(&link.name));
        link.name != "lo" && (!(link.veth || link.netkit) || is_edge())
    };
    Ok(links.into_iter().filter(matters).collect())
}

/// The interfaces of this namespace at which units are caught, as far as they are there.
pub(super) fn edges(config: &Config) -> Vec<String> {
    let found = config.pu.iter().filter_map(|unit| bpf::edge_of(&unit.edge).ok());
    found.filter(|(_, inside)| !inside).map(|(name, _)| name).collect()
}

fn read_one(name: &str) -> Interface {
    let of = |place: &str, what: &str| read::setting(&format!("net/ipv4/conf/{place}/{what}")).unwrap_or(0);
    Interface {
        name: name.to_owned(),
        // The kernel takes the greater one.
        rp_filter: of("all", "rp_filter").max(of(name, "rp_filter")),
        forwards: of(name, "forwarding") == 1,
        merges: bpf::merges_received(name).unwrap_or(false),
    }
}

/// Packets are put back at the units' interfaces; without a configuration any may become one.
fn way_back(interfaces: &[Interface], edges: Option<&[String]>) -> Finding {
    const CHECK: &str = "rp_filter";
    let is_edge = |interface: &&Interface| edges.is_none_or(|edges| edges.contains(&interface.name));
    let strict: Vec<_> =
        interfaces.iter().filter(is_edge).filter(|interface| interface.rp_filter == 1).collect();
    let Some(first) = strict.first() else {
        return Finding::ok(CHECK, "no interface at which packets are put back is strict about the way back");
    };
    let names: Vec<_> = strict.iter().map(|interface| interface.name.as_str()).collect();
    Finding::note(
        CHECK,
        format!(
            "strict on {}: a packet that is put back is dropped like any other whose way back is another interface",
            names.join(", ")
        ),
        format!(
            "sysctl -w net.ipv4.conf.{}.rp_filter=2 where routes are not symmetric",
            first.name.replace('.', "/")
        ),
    )
}

/// Checksums, TSO, GSO and GRO may be on or off; what LRO merged cannot be taken apart again.
fn merging(interfaces: &[Interface]) -> Finding {
    const CHECK: &str = "offloads";
    let both: Vec<_> = interfaces.iter().filter(|interface| interface.merges && interface.forwards).collect();
    let Some(first) = both.first() else {
        return Finding::ok(
            CHECK,
            "no interface that forwards merges what it receives (LRO); other offloads are fine",
        );
    };
    let names: Vec<_> = both.iter().map(|interface| interface.name.as_str()).collect();
    Finding::note(
        CHECK,
        format!("{} merges what it receives (LRO) and forwards: segments arrive changed", names.join(", ")),
        format!("ethtool -K {} lro off", first.name),
    )
}

fn syn_cookies(setting: Option<u64>) -> Option<Finding> {
    let how = match setting? {
        0 => "off",
        1 => "on when a queue is full",
        _ => "always on",
    };
    Some(Finding::ok("tcp_syncookies", format!("{how}: identities are proved all the same")))
}

/// An interface for tests.
#[cfg(test)]
pub(super) fn link(name: &str, mtu: u32) -> Link {
    Link { index: 2, name: name.to_owned(), ethernet: true, mtu, ..Link::default() }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn interface(name: &str) -> Interface {
        Interface { name: name.to_owned(), ..Interface::default() }
    }

    #[test]
    fn a_strict_way_back_is_noted_where_packets_are_put_back() {
        let strict = Interface { rp_filter: 1, ..interface("eth0.7") };
        let all = [strict, Interface { rp_filter: 2, ..interface("eth1") }];
        let finding = way_back(&all, None);
        assert_eq!(finding.level, Level::Note);
        assert!(finding.found.starts_with("strict on eth0.7: "), "{finding:?}");
        assert!(finding.remedy.unwrap().starts_with("sysctl -w net.ipv4.conf.eth0/7.rp_filter=2"));
        assert_eq!(way_back(&all, Some(&["eth1".to_owned()])).level, Level::Ok);
    }

    #[test]
    fn merging_is_noted_only_where_packets_are_forwarded() {
        let merges = Interface { merges: true, ..interface("eth0") };
        assert_eq!(merging(std::slice::from_ref(&merges)).level, Level::Ok);
        let finding = merging(&[Interface { forwards: true, ..merges }]);
        assert_eq!(
            (finding.level, finding.remedy.unwrap().as_str()),
            (Level::Note, "ethtool -K eth0 lro off")
        );
    }

    #[test]
    fn syn_cookies_are_never_in_the_way() {
        for setting in 0..3 {
            assert_eq!(syn_cookies(Some(setting)).unwrap().level, Level::Ok);
        }
        assert_eq!(syn_cookies(None), None);
    }
}
