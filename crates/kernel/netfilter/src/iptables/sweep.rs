//! Tables and base chains that `iptables-nft` creates by the way, and that go when nobody uses them.

use super::{Family, Site};
use crate::{NetfilterError, Programs};

impl Family {
    fn of_nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A table as `nft list table` shows it.
struct Shape {
    chains: Vec<(String, bool)>,
    /// It has sets or other things besides chains.
    others: bool,
}

/// Tables (`mangle`) and base chains (`mangle/INPUT`) that our rules at these sites need and that do not exist; nothing
/// without `nft`, without which they could not be removed either.
pub(crate) fn missing(
    programs: &Programs,
    family: Family,
    sites: &[Site],
) -> Result<Vec<String>, NetfilterError> {
    if !programs.has("nft") {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    for table in ["mangle", "filter"] {
        let needed: Vec<&Site> = sites.iter().filter(|site| site.table == table).collect();
        if needed.is_empty() {
            continue;
        }
        let shape = shape(programs, family, table)?;
        if shape.is_none() {
            missing.push(table.to_owned());
        }
        let chains = shape.map(|shape| shape.chains).unwrap_or_default();
        let absent = needed.into_iter().filter(|site| !chains.iter().any(|(name, _)| name == site.from));
        missing.extend(absent.map(|site| format!("{table}/{}", site.from)));
    }
    Ok(missing)
}

/// Removes what is in `made` and empty.
pub(crate) fn sweep(programs: &Programs, family: Family, made: &[String]) -> Result<(), NetfilterError> {
    if made.is_empty() || !programs.has("nft") {
        return Ok(());
    }
    let (mut script, name) = (Vec::new(), family.of_nft());
    for table in ["mangle", "filter"] {
        let Some(Shape { chains, others }) = shape(programs, family, table)? else { continue };
        let (going, staying): (Vec<_>, Vec<_>) = chains
            .into_iter()
            .partition(|(chain, empty)| *empty && made.contains(&format!("{table}/{chain}")));
        // A chain that was filled meanwhile makes this fail, and with it the deletion of its table.
        script.extend(going.iter().map(|(chain, _)| format!("delete chain {name} {table} {chain}\n")));
        if staying.is_empty() && !others && made.iter().any(|made| made == table) {
            script.push(format!("delete table {name} {table}\n"));
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    programs.run("nft", &["-f", "-"], &script.concat()).map(drop)
}

fn shape(programs: &Programs, family: Family, table: &str) -> Result<Option<Shape>, NetfilterError> {
    match programs.run("nft", &["list", "table", family.of_nft(), table], "") {
        Ok(text) => Ok(Some(Shape::parse(&text))),
        Err(NetfilterError::Failed { said, .. }) if said.contains("No such file or directory") => Ok(None),
        Err(other) => Err(other),
    }
}

impl Shape {
    fn parse(text: &str) -> Self {
        let mut shape = Self { chains: Vec::new(), others: false };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let block = line.strip_suffix('{').map(str::trim_end);
            if let Some(chain) = block.and_then(|block| block.strip_prefix("chain ")) {
                shape.chains.push((chain.to_owned(), true));
            } else if let Some(block) = block {
                shape.others |= !block.starts_with("table ");
            } else if !is_plain(line)
                && let Some((_, empty)) = shape.chains.last_mut()
            {
                *empty = false;
            }
        }
        shape
    }
}

/// True for what an empty base chain shows as `iptables-nft` creates it.
fn is_plain(line: &str) -> bool {
    line == "}" || line.starts_with('#') || line.starts_with("type ") && line.ends_with("policy accept;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_chain_with_its_first_policy_is_empty() {
        let shape = Shape::parse(
            "table ip mangle {\n\tchain INPUT {\n\t\ttype filter hook input priority mangle; policy accept;\n\t}\n\n\
             \tchain OUTPUT {\n\t\ttype route hook output priority mangle; policy drop;\n\t}\n\n\
             \tchain X {\n\t\tcounter packets 0 bytes 0 return\n\t}\n}\n",
        );

        let chains = shape.chains.iter().map(|(name, empty)| (name.as_str(), *empty));
        assert!(chains.eq([("INPUT", true), ("OUTPUT", false), ("X", false)]));
        assert!(!shape.others);
        assert!(Shape::parse("table ip mangle {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n}\n").others);
    }
}
