//! What `iptables-restore --noflush` is told.

use super::{Listing, Site, site};
use crate::rules::Place;

/// What one of our chains is to become.
pub(crate) enum Target {
    /// It is to go, with all that leads to it.
    Nothing,
    /// It is to have these rules and no others; its built-in chain jumps to it first and once, or not at all.
    Chain { rules: Vec<String>, jump: bool },
}

/// The change from what is there; empty if nothing is to be done.
///
/// Every table is one transaction of the kernel. mangle comes first: while its queue rules wait for the rules in filter
/// that save what a verdict releases, connections are closed.
pub(super) fn script(now: &Listing, target: impl Fn(Place) -> Target) -> String {
    let mut script = String::new();
    for table in ["mangle", "filter"] {
        let places = Place::ALL.into_iter().map(site).zip(Place::ALL.map(&target));
        let lines = changes(now, &places.filter(|(site, _)| site.table == table).collect::<Vec<_>>());
        if !lines.is_empty() {
            script += &format!("*{table}\n{lines}COMMIT\n");
        }
    }
    script
}

/// The change of one table; empty if nothing is to be done.
pub(crate) fn changes(now: &Listing, places: &[(Site, Target)]) -> String {
    let mut lines = Vec::new();
    for (Site { chain, .. }, target) in places {
        // Creates the chain or empties it.
        if let Target::Chain { .. } = target {
            lines.push(format!(":{chain} - [0:0]"));
        }
    }
    for (Site { table, from, chain }, target) in places {
        if let Target::Chain { rules, .. } = target {
            lines.extend(rules.iter().map(|rule| format!("-A {chain} {rule}")));
        }
        // What stands in chains of ours goes with them.
        let jumps =
            now.jumps(table, chain).filter(|(from, ..)| places.iter().all(|(own, _)| own.chain != *from));
        lines.extend(jumps.map(|(from, _, rule)| format!("-D {from} {}", rule.spec)));
        if let Target::Chain { jump: true, .. } = target {
            lines.push(format!("-I {from} 1 -j {chain}"));
        }
    }
    let gone =
        |(site, target): &&(Site, Target)| matches!(target, Target::Nothing) && now.own(site).is_some();
    for verb in ["-F", "-X"] {
        lines.extend(places.iter().filter(gone).map(|(site, _)| format!("{verb} {}", site.chain)));
    }
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}
