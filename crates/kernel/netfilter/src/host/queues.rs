//! Queueing by iptables: chains that look at the mark, which the table of the host has written, and at nothing else.

use super::{COMMENT, HostSet};
use crate::iptables::{
    Half, Rule, Site, Tables, Target, Variant, changes, half, missing, restore, split_made, sweep, with_made,
};
use crate::parts::Part;
use crate::{BackEnd, NetfilterError, Programs, Unanswered};

const SITES: [Site; 2] = [
    Site { table: "mangle", from: "OUTPUT", chain: "TRIREME-HOST-FROM" },
    Site { table: "mangle", from: "INPUT", chain: "TRIREME-HOST-TO" },
];

/// What both families were found to have.
pub(super) struct Queues {
    variant: Variant,
    halves: [Half; 2],
}

impl Queues {
    /// None for a back end that queues in the table itself.
    pub(super) fn list(programs: &Programs, back_end: BackEnd) -> Result<Option<Self>, NetfilterError> {
        let variant = match back_end {
            BackEnd::Nft => return Ok(None),
            BackEnd::IptablesNft => Variant::Nft,
            BackEnd::IptablesLegacy => Variant::Legacy,
        };
        let Tables { halves, .. } = Tables::list(programs, variant)?;
        Ok(Some(Self { variant, halves }))
    }

    pub(super) fn absent(&self) -> bool {
        self.halves.iter().all(|half| SITES.iter().all(|site| half.listing.own(site).is_none()))
    }

    /// A chain of our name without a rule of ours; an empty one harms nobody.
    pub(super) fn stranger(&self) -> Option<String> {
        self.halves.iter().find_map(|half| {
            let taken = SITES.iter().find(|site| {
                let rules = half.listing.own(site).unwrap_or_default();
                !rules.is_empty() && !rules.iter().any(|rule| rule.comment().is_some())
            })?;
            Some(format!("chain {} of {} table {}", taken.chain, half.family.name(), taken.table))
        })
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        let parts = self.halves.iter().flat_map(|half| {
            let family = half.family.name();
            SITES.iter().flat_map(move |site| {
                let Site { table, from, chain } = site;
                let jumps = half.listing.jumps(table, chain);
                let jumps =
                    jumps.map(|(from, number, rule)| format!("-A {from} {} (rule {number})", rule.spec));
                let rules = half.listing.own(site);
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
            })
        });
        parts.collect()
    }

    /// Whether every chain has as many rules as were written, and is reached first.
    pub(super) fn has_all(&self, set: &HostSet) -> bool {
        let wanted = set.judged().count();
        self.halves.iter().all(|half| {
            SITES.iter().all(|site| {
                let mut jumps = half.listing.jumps(site.table, site.chain);
                let first = jumps.next().is_some_and(|(from, number, _)| (from, number) == (site.from, 1));
                first
                    && jumps.next().is_none()
                    && half.listing.own(site).is_some_and(|rules| rules.len() == wanted)
            })
        })
    }

    /// Writes the rules; what fails leaves both families as they were.
    pub(super) fn write(&self, programs: &Programs, set: &HostSet) -> Result<(), NetfilterError> {
        let written = self.halves.iter().try_for_each(|half| self.write_half(half, programs, set));
        let Err(cause) = written else { return Ok(()) };
        match self.undo(programs) {
            Ok(()) => Err(cause),
            Err(undo) => Err(NetfilterError::Undo { cause: Box::new(cause), undo: Box::new(undo) }),
        }
    }

    fn write_half(&self, half: &Half, programs: &Programs, set: &HostSet) -> Result<(), NetfilterError> {
        let made = match (made(half), self.variant) {
            (Some(made), _) => made,
            (None, Variant::Nft) => missing(programs, half.family, &SITES)?,
            (None, Variant::Legacy) => Vec::new(),
        };
        let rules = rules(set, &made);
        self.change(half, programs, |_| Target::Chain { rules: rules.clone(), jump: true })
    }

    fn change(
        &self,
        half: &Half,
        programs: &Programs,
        target: impl Fn(&Site) -> Target,
    ) -> Result<(), NetfilterError> {
        let sites: Vec<(Site, Target)> = SITES.map(|site| (site, target(&site))).into();
        let lines = changes(&half.listing, &sites);
        let script = if lines.is_empty() { lines } else { format!("*mangle\n{lines}COMMIT\n") };
        restore(programs, self.variant, half.family, &script)
    }

    /// Takes both families back to what this listing says.
    pub(super) fn undo(&self, programs: &Programs) -> Result<(), NetfilterError> {
        for then in &self.halves {
            let now = half(programs, self.variant, then.family)?;
            self.change(&now, programs, |site| match then.listing.own(site) {
                None => Target::Nothing,
                Some(rules) => Target::Chain {
                    rules: rules.iter().map(|rule| rule.spec.clone()).collect(),
                    jump: then.listing.jumps(site.table, site.chain).next().is_some(),
                },
            })?;
            if made(then).is_none() && self.variant == Variant::Nft {
                sweep(programs, then.family, &made(&now).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, programs: &Programs) -> Result<(), NetfilterError> {
        for half in &self.halves {
            self.change(half, programs, |_| Target::Nothing)?;
            sweep(programs, half.family, &made(half).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Tables and chains that did not exist before ours, if that was recorded.
fn made(half: &Half) -> Option<Vec<String>> {
    let rules = SITES.iter().filter_map(|site| half.listing.own(site)).flatten();
    rules.filter_map(Rule::comment).next().map(|comment| split_made(comment).1)
}

/// The rules of a chain; the first carries the comment.
fn rules(set: &HostSet, made: &[String]) -> Vec<String> {
    let comment = with_made(COMMENT, made);
    let (field, halves) = (set.field.mask(), set.halves());
    let rules = set.judged().enumerate().map(|(index, (unit, judged))| {
        let comment = if index == 0 { format!("-m comment --comment \"{comment}\" ") } else { String::new() };
        let bypass = match judged.unanswered {
            Unanswered::Drop => "",
            Unanswered::Accept => " --queue-bypass",
        };
        let pending = halves.pending(unit.number);
        format!(
            "{comment}-m mark --mark {pending:#x}/{field:#x} -j NFQUEUE --queue-num {}{bypass}",
            judged.queue
        )
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{set, unit};
    use super::*;

    #[test]
    fn rules_look_at_the_mark_alone() {
        assert_eq!(
            rules(&set(&[unit(1, "a"), unit(2, "b")]), &["mangle".to_owned()]),
            [
                "-m comment --comment \"trireme host 1 made=mangle\" -m mark --mark 0x1000000/0xffff0000 -j NFQUEUE \
                 --queue-num 10",
                "-m mark --mark 0x2000000/0xffff0000 -j NFQUEUE --queue-num 10"
            ]
        );
    }
}
