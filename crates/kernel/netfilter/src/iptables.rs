//! Chains of ours in the tables of iptables, of both variants and both families.

mod change;
mod listing;
mod render;
mod sweep;

use crate::operations::Listed;
use crate::parts::Part;
use crate::rules::Place;
use crate::{Denied, NetfilterError, Programs, RuleSet};
use change::script;
use listing::Listing;

pub(crate) use change::{Target, changes};
pub(crate) use listing::Rule;
pub(crate) use render::{split_made, with_made};
pub(crate) use sweep::{missing, sweep};

/// Seconds to wait for the lock of the legacy tables.
const PATIENCE: &str = "20";

/// Into what the programs translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Nft,
    Legacy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn program(self, variant: Variant, verb: &str) -> String {
        let tables = match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        };
        match variant {
            Variant::Nft => format!("{tables}-nft-{verb}"),
            Variant::Legacy => format!("{tables}-legacy-{verb}"),
        }
    }
}

/// Where rules of ours are: their table, the built-in chain that jumps, and our chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) table: &'static str,
    pub(crate) from: &'static str,
    pub(crate) chain: &'static str,
}

fn site(place: Place) -> Site {
    let (table, from, chain) = match place {
        Place::FromUnit => ("mangle", "OUTPUT", "TRIREME-FROM"),
        Place::ToUnit => ("mangle", "INPUT", "TRIREME-TO"),
        Place::Through => ("mangle", "FORWARD", "TRIREME-THROUGH"),
        Place::SaveFrom => ("mangle", "POSTROUTING", "TRIREME-SAVE"),
        Place::SaveTo => ("filter", "INPUT", "TRIREME-SAVE"),
    };
    Site { table, from, chain }
}

/// The tables of one family.
pub(crate) struct Half {
    pub(crate) family: Family,
    pub(crate) listing: Listing,
}

/// What both families were found to have.
pub(crate) struct Tables {
    variant: Variant,
    pub(crate) halves: [Half; 2],
}

/// True if legacy tables of the calling thread's namespace have any rule.
pub(crate) fn legacy_rules(programs: &Programs) -> Result<bool, NetfilterError> {
    Ok(Tables::list(programs, Variant::Legacy)?.halves.iter().any(|half| half.listing.has_rules()))
}

impl Tables {
    pub(crate) fn list(programs: &Programs, variant: Variant) -> Result<Self, NetfilterError> {
        // A new thread is in the namespace of the one that starts it.
        let (four, six) = std::thread::scope(|scope| {
            let six = scope.spawn(|| half(programs, variant, Family::V6));
            (half(programs, variant, Family::V4), six.join())
        });
        let six = six.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(Self { variant, halves: [four?, six?] })
    }

    /// Writes one family, and takes both back to what they were if that fails.
    fn write_half(&self, half: &Half, programs: &Programs, rule_set: &RuleSet) -> Result<(), NetfilterError> {
        let made = match (half.made(), self.variant) {
            (Some(made), _) => made,
            (None, Variant::Nft) => missing(programs, half.family, &Place::ALL.map(site))?,
            (None, Variant::Legacy) => Vec::new(),
        };
        let target =
            |place| Target::Chain { rules: render::chain(half.family, place, rule_set, &made), jump: true };
        restore(programs, self.variant, half.family, &script(&half.listing, target))
    }

    fn undo(&self, programs: &Programs) -> Result<(), NetfilterError> {
        for half in &self.halves {
            let now = self::half(programs, self.variant, half.family)?;
            restore(
                programs,
                self.variant,
                half.family,
                &script(&now.listing, |place| half.as_target(place)),
            )?;
            if half.made().is_none() && half.listing.own_chains().next().is_none() {
                sweep(programs, half.family, &now.made().unwrap_or_default())?;
            }
        }
        Ok(())
    }
}

impl Listed for Tables {
    fn parts(&self) -> Vec<Part> {
        self.halves.iter().flat_map(Half::parts).collect()
    }

    fn comment(&self) -> Option<String> {
        self.halves.iter().find_map(Half::comment)
    }

    fn stranger(&self) -> Option<String> {
        self.halves.iter().find_map(Half::stranger)
    }

    fn absent(&self) -> bool {
        self.halves.iter().all(|half| half.listing.own_chains().next().is_none())
    }

    fn denied(&self) -> Denied {
        let count = |place| {
            let rules = self.halves.iter().filter_map(|half| half.listing.own(&site(place))).flatten();
            rules.filter(|rule| rule.target() == Some("DROP")).map(|rule| rule.packets).sum()
        };
        Denied { from: count(Place::FromUnit), to: count(Place::ToUnit) }
    }

    fn write(&self, programs: &Programs, rule_set: &RuleSet) -> Result<(), NetfilterError> {
        let written = self.halves.iter().try_for_each(|half| self.write_half(half, programs, rule_set));
        let Err(cause) = written else { return Ok(()) };
        match self.undo(programs) {
            Ok(()) => Err(cause),
            Err(undo) => Err(NetfilterError::Undo { cause: Box::new(cause), undo: Box::new(undo) }),
        }
    }

    fn remove(&self, programs: &Programs) -> Result<(), NetfilterError> {
        for half in &self.halves {
            restore(programs, self.variant, half.family, &script(&half.listing, |_| Target::Nothing))?;
            sweep(programs, half.family, &half.made().unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Half {
    fn parts(&self) -> Vec<Part> {
        let family = self.family.name();
        let parts = Place::ALL.map(|place| {
            let Site { table, from, chain } = site(place);
            let rules = self.listing.own(&site(place));
            let jumps = self.listing.jumps(table, chain);
            let jumps = jumps.map(|(from, number, rule)| format!("-A {from} {} (rule {number})", rule.spec));
            [
                Part {
                    name: format!("chain {chain} of {family} table {table}"),
                    lines: rules.map(|rules| rules.iter().map(Rule::without_made).collect()),
                },
                Part {
                    name: format!("the jump from {from} to {chain} of {family} table {table}"),
                    lines: Some(jumps.collect()),
                },
            ]
        });
        parts.into_iter().flatten().collect()
    }

    /// The chain as it was found.
    fn as_target(&self, place: Place) -> Target {
        let Site { table, chain, .. } = site(place);
        match self.listing.own(&site(place)) {
            None => Target::Nothing,
            Some(rules) => Target::Chain {
                rules: rules.iter().map(|rule| rule.spec.clone()).collect(),
                jump: self.listing.jumps(table, chain).next().is_some(),
            },
        }
    }

    fn comments(&self) -> impl Iterator<Item = &str> {
        self.listing.own_chains().flatten().filter_map(Rule::comment)
    }

    fn comment(&self) -> Option<String> {
        self.comments().next().map(|comment| render::split_made(comment).0.to_owned())
    }

    /// Tables and chains that did not exist before ours, if that was recorded.
    fn made(&self) -> Option<Vec<String>> {
        self.comments().next().map(|comment| render::split_made(comment).1)
    }

    /// A chain that has rules, none of which is ours. An empty one was ours before somebody flushed it, or harms nobody.
    fn stranger(&self) -> Option<String> {
        let taken = |place: &Place| {
            let rules = self.listing.own(&site(*place)).unwrap_or_default();
            !rules.is_empty() && !rules.iter().any(|rule| rule.comment().is_some())
        };
        let Site { table, chain, .. } = site(Place::ALL.into_iter().find(taken)?);
        Some(format!("chain {chain} of {} table {table}", self.family.name()))
    }
}

pub(crate) fn half(programs: &Programs, variant: Variant, family: Family) -> Result<Half, NetfilterError> {
    let program = family.program(variant, "save");
    let text = programs.run(&program, &["-c"], "")?;
    let listing = Listing::parse(&text).map_err(|line| NetfilterError::Unreadable { program, line })?;
    Ok(Half { family, listing })
}

/// Changes all tables of a script, or none of a table; an empty script changes nothing.
pub(crate) fn restore(
    programs: &Programs,
    variant: Variant,
    family: Family,
    script: &str,
) -> Result<(), NetfilterError> {
    if script.is_empty() {
        return Ok(());
    }
    let program = family.program(variant, "restore");
    programs.run(&program, &["--noflush", "--wait", PATIENCE], script).map(drop)
}
