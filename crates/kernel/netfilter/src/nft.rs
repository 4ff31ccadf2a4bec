//! A table of our own, `inet trireme`, for both families.

mod render;

use crate::operations::Listed;
use crate::parts::Part;
use crate::rule_set::SIGNATURE;
use crate::rules::Place;
use crate::{Denied, NetfilterError, Programs, RuleSet};

/// Family and name.
const TABLE: &str = "inet trireme";

/// What the table was found to have; without lines if it does not exist.
#[derive(Debug, Default)]
pub(crate) struct Table {
    blocks: Vec<Block>,
    denied: Denied,
}

/// The table's own lines, or a chain, a set, or the like.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    name: String,
    lines: Vec<String>,
}

impl Table {
    pub(crate) fn list(programs: &Programs) -> Result<Self, NetfilterError> {
        match programs.run("nft", &["list", "table", "inet", "trireme"], "") {
            Ok(text) => Ok(Self::parse(&text)),
            Err(NetfilterError::Failed { said, .. }) if said.contains("No such file or directory") => {
                Ok(Self::default())
            }
            Err(other) => Err(other),
        }
    }

    fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(header) = line.strip_suffix(" {") {
                table.blocks.push(Block { name: header.to_owned(), lines: Vec::new() });
            } else if line != "}" {
                table.add(line);
            }
        }
        table
    }

    fn add(&mut self, line: &str) {
        let Some(block) = self.blocks.last_mut() else { return };
        let (line, packets) = without_counter(line);
        if let Some(packets) = packets
            && line == "counter drop"
        {
            if block.name == chain_header(Place::FromUnit) {
                self.denied.from += packets;
            } else if block.name == chain_header(Place::ToUnit) {
                self.denied.to += packets;
            }
        }
        block.lines.push(line);
    }

    /// True if the table has exactly our chains, at their hooks; whatever their rules are.
    fn is_shaped(&self) -> bool {
        let mut blocks = self.blocks.iter();
        let table = blocks.next();
        table.is_some_and(|table| table.lines.is_empty())
            && self.blocks.len() == Place::ALL.len() + 1
            && Place::ALL.into_iter().zip(blocks).all(|(place, block)| {
                block.name == chain_header(place)
                    && block.lines.first().is_some_and(|line| *line == render::hook(place))
            })
    }
}

impl Listed for Table {
    fn parts(&self) -> Vec<Part> {
        let table = format!("table {TABLE}");
        let parts = self.blocks.iter().map(|block| {
            let name = if block.name == table { table.clone() } else { format!("{} of {table}", block.name) };
            Part { name, lines: Some(block.lines.clone()) }
        });
        parts.collect()
    }

    fn comment(&self) -> Option<String> {
        let lines = self.blocks.iter().flat_map(|block| &block.lines);
        let mut comments = lines.filter_map(|line| line.split_once(" comment \"")?.1.strip_suffix('"'));
        comments.find(|comment| comment.starts_with(SIGNATURE)).map(str::to_owned)
    }

    fn stranger(&self) -> Option<String> {
        // A table that somebody flushed is known by its chains.
        let flushed = self.is_shaped() && self.blocks.iter().all(|block| block.lines.len() <= 1);
        let empty = self.blocks.len() <= 1 && self.blocks.iter().all(|block| block.lines.is_empty());
        (!empty && !flushed && self.comment().is_none()).then(|| format!("table {TABLE}"))
    }

    fn absent(&self) -> bool {
        self.blocks.is_empty()
    }

    fn denied(&self) -> Denied {
        self.denied
    }

    fn write(&self, programs: &Programs, rule_set: &RuleSet) -> Result<(), NetfilterError> {
        let script = render::script(rule_set, self.is_shaped());
        programs.run("nft", &["-f", "-"], &script).map(drop)
    }

    fn remove(&self, programs: &Programs) -> Result<(), NetfilterError> {
        programs.run("nft", &["delete", "table", "inet", "trireme"], "").map(drop)
    }
}

fn chain_header(place: Place) -> String {
    format!("chain {}", render::name(place))
}

/// The line without the numbers of its counter, and the packets it has counted.
pub(crate) fn without_counter(line: &str) -> (String, Option<u64>) {
    let words: Vec<&str> = line.split(' ').collect();
    let at = words.windows(5).position(|words| matches!(words, ["counter", "packets", _, "bytes", _]));
    let Some(at) = at else { return (line.to_owned(), None) };
    let packets = words.get(at + 2).and_then(|packets| packets.parse().ok());
    let kept = words.iter().enumerate().filter(|(number, _)| !(at + 1..at + 5).contains(number));
    (kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" "), packets)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn counters_are_read_and_left_out() {
        let table = Table::parse(
            "table inet trireme {\n\tchain from {\n\t\ttype filter hook output priority mangle; policy accept;\n\
             \t\tcounter packets 5 bytes 420 drop\n\t}\n\n\tchain to {\n\t\tcounter packets 7 bytes 9 drop\n\t}\n}\n",
        );

        assert_eq!(table.denied, Denied { from: 5, to: 7 });
        assert_eq!(table.blocks.last().unwrap().lines, ["counter drop"]);
        assert_eq!(table.stranger().unwrap(), "table inet trireme");
    }

    #[test]
    fn table_without_chains_is_nobodys() {
        assert_eq!(Table::parse("table inet trireme {\n}\n").stranger(), None);
        assert_eq!(Table::default().stranger(), None);
        assert!(
            Table::parse("table inet trireme {\n\tset a {\n\t\ttype mark\n\t}\n}\n").stranger().is_some()
        );
    }
}
