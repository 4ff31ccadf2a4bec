//! The table of the host as nft lists it, and the script that changes it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::render::{self, Chain, TABLE};
use super::{COMMENT, HostSet};
use crate::nft::without_counter;
use crate::parts::Part;
use crate::{BackEnd, Denied, NetfilterError, Programs};

/// Where nft looks for cgroups.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Names of chains and sets end in the number of their unit.
const OF_UNITS: [&str; 9] = [
    "unit_",
    "listens_",
    "listens4_",
    "listens6_",
    "others_from_",
    "others_to_",
    "released_",
    "judged_",
    "unqueued_",
];

/// What the table was found to have; without blocks if it does not exist.
#[derive(Debug, Default)]
pub(super) struct Table {
    blocks: Vec<Block>,
}

/// The table's own lines, or a chain, a set, or the like.
#[derive(Debug)]
struct Block {
    /// `chain from`.
    header: String,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    text: String,
    packets: Option<u64>,
}

impl Table {
    pub(super) fn list(programs: &Programs) -> Result<Self, NetfilterError> {
        match programs.run("nft", &["list", "table", "inet", "trireme_host"], "") {
            Ok(text) => Ok(Self::parse(&text)),
            Err(NetfilterError::Failed { said, .. }) if said.contains("No such file or directory") => {
                Ok(Self::default())
            }
            Err(other) => Err(other),
        }
    }

    fn parse(text: &str) -> Self {
        let (mut table, mut in_elements) = (Self::default(), false);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            // What a set holds comes and goes.
            in_elements |= line.starts_with("elements = {");
            if in_elements {
                in_elements = !line.ends_with('}');
            } else if let Some(header) = line.strip_suffix(" {") {
                table.blocks.push(Block { header: header.to_owned(), lines: Vec::new() });
            } else if line != "}"
                && let Some(block) = table.blocks.last_mut()
            {
                let (text, packets) = without_counter(line);
                block.lines.push(Line { text: by_number(&text), packets });
            }
        }
        table
    }

    pub(super) fn absent(&self) -> bool {
        self.blocks.is_empty()
    }

    /// True if it is ours, or harms nobody because it is empty.
    pub(super) fn is_ours(&self) -> bool {
        let marked = self.blocks.iter().flat_map(|block| &block.lines);
        let comment = format!("comment \"{COMMENT}\"");
        let mut inner = self.blocks.iter().skip(1);
        marked.into_iter().any(|line| line.text.contains(&comment))
            || self.blocks.iter().all(|block| block.lines.is_empty()) && self.blocks.len() <= 1
            // A table that somebody flushed is known by its chains.
            || inner.clone().count() > 0 && inner.all(|block| is_name_of_ours(&block.header))
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        let parts = self.blocks.iter().map(|block| Part {
            name: if block.header.starts_with("table ") {
                block.header.clone()
            } else {
                format!("{} of table {TABLE}", block.header)
            },
            lines: Some(block.lines.iter().map(|line| line.text.clone()).collect()),
        });
        parts.collect()
    }

    /// Whether every chain has as many rules as were written, and every set is there.
    pub(super) fn has_all(&self, set: &HostSet, back_end: BackEnd) -> bool {
        let has = |chain: &Chain| {
            let lines = self.block("chain", &chain.name).map(|block| block.lines.len());
            lines == Some(chain.rules.len() + usize::from(chain.hook.is_some()))
        };
        render::chains(set, back_end).iter().all(has)
            && render::sets(set).iter().all(|(name, _)| self.block("set", name).is_some())
    }

    fn block(&self, kind: &str, name: &str) -> Option<&Block> {
        self.blocks
            .iter()
            .find(|block| block.header.strip_prefix(kind).is_some_and(|rest| rest.trim() == name))
    }

    /// Packets of a unit that were dropped because of their protocol.
    pub(super) fn denied(&self, unit: u32) -> Denied {
        Denied {
            from: self.dropped(&format!("others_from_{unit}")),
            to: self.dropped(&format!("others_to_{unit}")),
        }
    }

    /// Packets that a chain dropped.
    pub(super) fn dropped(&self, chain: &str) -> u64 {
        let lines = self.block("chain", chain).into_iter().flat_map(|block| &block.lines);
        lines.filter_map(|line| line.packets).sum()
    }

    /// One transaction that puts the set in place of what is there. What units were seen to listen at stays, unless
    /// somebody rebuilt the table.
    pub(super) fn script(
        &self,
        set: &HostSet,
        back_end: BackEnd,
        seen: &[(u32, std::net::SocketAddr)],
    ) -> String {
        let (chains, sets) = (render::chains(set, back_end), render::sets(set));
        let mut lines = vec![format!("add table {TABLE}")];
        if self.is_kept(&chains) {
            lines.push(format!("flush table {TABLE}"));
        } else {
            lines.extend([format!("delete table {TABLE}"), format!("add table {TABLE}")]);
        }
        lines.extend(chains.iter().map(|Chain { name, hook, .. }| match hook {
            Some(hook) => format!("add chain {TABLE} {name} {{ {hook} }}"),
            None => format!("add chain {TABLE} {name}"),
        }));
        lines.extend(sets.iter().map(|(name, definition)| format!("add set {TABLE} {name} {definition}")));
        for Chain { name, rules, .. } in &chains {
            lines.extend(rules.iter().map(|rule| format!("add rule {TABLE} {name} {rule}")));
        }
        if self.is_kept(&chains) {
            lines
                .extend(self.over(&chains, &sets).map(|block| format!("delete {}", of_table(&block.header))));
        }
        lines.extend(
            seen.iter().filter(|(unit, _)| set.judged().any(|(known, _)| known.number == *unit)).map(
                |(unit, at)| {
                    let family = if at.is_ipv4() { "4" } else { "6" };
                    let name = render::listeners(family, *unit);
                    format!("add element {TABLE} {name} {{ {} . {} }}", at.ip(), at.port())
                },
            ),
        );
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Whether the base chains are at their hooks and everything is named as ours is.
    fn is_kept(&self, chains: &[Chain]) -> bool {
        let table = self.blocks.first();
        table.is_some_and(|table| table.lines.is_empty())
            && self.blocks.iter().skip(1).all(|block| is_name_of_ours(&block.header))
            && chains.iter().filter_map(|chain| Some((chain, chain.hook?))).all(|(chain, hook)| {
                let first = self.block("chain", &chain.name).and_then(|block| block.lines.first());
                first.is_some_and(|line| line.text == hook)
            })
    }

    /// Chains and sets of units that are units no more.
    fn over(&self, chains: &[Chain], sets: &[(String, String)]) -> impl Iterator<Item = &Block> {
        self.blocks.iter().skip(1).filter(move |block| match block.header.split_once(' ') {
            Some(("chain", name)) => chains.iter().all(|chain| chain.name != name),
            Some(("set", name)) => sets.iter().all(|(set, _)| set != name),
            _ => false,
        })
    }
}

/// `chain x` as a command names it.
fn of_table(header: &str) -> String {
    match header.split_once(' ') {
        Some((kind, name)) => format!("{kind} {TABLE} {name}"),
        None => header.to_owned(),
    }
}

fn is_name_of_ours(header: &str) -> bool {
    const FIXED: [&str; 12] = [
        "from",
        "to",
        "through",
        "save_from",
        "save_to",
        "syn_from",
        "syn_to",
        "stranger_from",
        "stranger_to",
        "other_from",
        "other_to",
        "error",
    ];
    let Some((kind, name)) = header.split_once(' ') else { return false };
    let of_unit = |prefix: &&str| {
        name.strip_prefix(*prefix).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    matches!(kind, "chain" | "set") && (FIXED.contains(&name) || OF_UNITS.iter().any(of_unit))
}

/// A line about a cgroup with its number in place of its path: nft shows the path while there is one.
fn by_number(line: &str) -> String {
    let Some((before, rest)) = line.split_once("socket cgroupv2 level ") else { return line.to_owned() };
    let Some((level, rest)) = rest.split_once(' ') else { return line.to_owned() };
    let Some((path, rest)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
        return line.to_owned();
    };
    match fs::metadata(Path::new(CGROUPS).join(path)) {
        Ok(found) => format!("{before}socket cgroupv2 level {level} {}{rest}", found.ino()),
        Err(_) => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::super::tests::{set, unit};
    use super::*;

    const LISTED: &str = "table inet trireme_host {
	set listens4_1 {
		type ipv4_addr . inet_service
		size 65535
		flags dynamic
		elements = { 10.0.0.1 . 80,
			     10.0.0.2 . 80 }
	}

	chain from {
		type filter hook output priority mangle - 10; policy accept;
		meta mark set meta mark & 0x0000ffff comment \"trireme host 1\"
	}

	chain others_to_1 {
		counter packets 7 bytes 420 drop
	}
}
";

    #[test]
    fn what_sets_hold_and_counters_count_is_no_part() {
        let table = Table::parse(LISTED);

        assert_eq!(table.denied(1), Denied { from: 0, to: 7 });
        assert!(table.is_ours() && !table.absent());
        let parts = table.parts();
        assert_eq!(parts.get(1).unwrap().lines.as_ref().unwrap().len(), 3);
        assert_eq!(parts.last().unwrap().lines.as_ref().unwrap(), &["counter drop"]);
    }

    #[test]
    fn a_table_of_somebody_else_is_not_ours_and_an_empty_one_is_nobodys() {
        assert!(Table::parse("table inet trireme_host {\n}\n").is_ours());
        let theirs = "table inet trireme_host {\n\tchain mine {\n\t\taccept\n\t}\n}\n";
        assert!(!Table::parse(theirs).is_ours());
        let flushed = LISTED.replace(" comment \"trireme host 1\"", "");
        assert!(Table::parse(&flushed).is_ours());
    }

    #[test]
    fn a_table_with_other_hooks_is_made_anew_and_what_is_over_is_deleted() {
        let wanted = set(&[unit(2, "b")]);
        let anew = Table::parse(LISTED).script(&wanted, BackEnd::IptablesNft, &[]);
        assert!(anew.starts_with("add table inet trireme_host\ndelete table"), "{anew}");

        let chains = render::chains(&wanted, BackEnd::IptablesNft);
        let base: String = chains
            .iter()
            .filter_map(|chain| Some(format!("chain {} {{\n{}\n}}\n", chain.name, chain.hook?)))
            .collect();
        let listed =
            format!("table inet trireme_host {{\nset listens4_1 {{\n}}\nchain unit_1 {{\n}}\n{base}}}\n");
        let seen = [(2, "10.0.0.1:80".parse().unwrap()), (1, "10.0.0.1:81".parse().unwrap())];
        let kept = Table::parse(&listed).script(&wanted, BackEnd::IptablesNft, &seen);
        assert!(
            kept.starts_with("add table inet trireme_host\nflush table inet trireme_host\nadd chain"),
            "{kept}"
        );
        for line in ["delete set inet trireme_host listens4_1", "delete chain inet trireme_host unit_1"] {
            assert!(kept.lines().any(|found| found == line), "{kept}");
        }
        let elements: Vec<&str> = kept.lines().filter(|line| line.contains("add element")).collect();
        assert_eq!(elements, ["add element inet trireme_host listens4_2 { 10.0.0.1 . 80 }"]);
    }
}
