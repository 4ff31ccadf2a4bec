//! What `iptables-save -c` prints.

use super::{Site, site};
use crate::rule_set::SIGNATURE;
use crate::rules::Place;

#[derive(Debug, Default)]
pub(crate) struct Listing {
    chains: Vec<Chain>,
}

#[derive(Debug)]
struct Chain {
    table: String,
    name: String,
    rules: Vec<Rule>,
}

/// A rule without the name of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) packets: u64,
    pub(crate) spec: String,
}

impl Listing {
    /// Reads the text, or returns the line that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut listing, mut table) = (Self::default(), "");
        for line in text.lines() {
            let read = match line.split_at_checked(1) {
                None | Some(("#", _)) => Some(()),
                Some(("*", name)) => {
                    table = name;
                    Some(())
                }
                Some((":", chain)) => listing.add_chain(table, chain),
                Some(("[", rule)) => listing.add_rule(table, rule),
                Some(_) => (line == "COMMIT").then_some(()),
            };
            read.ok_or_else(|| line.to_owned())?;
        }
        Ok(listing)
    }

    fn add_chain(&mut self, table: &str, line: &str) -> Option<()> {
        let (name, _) = line.split_once(' ')?;
        self.chains.push(Chain { table: table.to_owned(), name: name.to_owned(), rules: Vec::new() });
        Some(())
    }

    fn add_rule(&mut self, table: &str, line: &str) -> Option<()> {
        let (counters, rule) = line.split_once("] -A ")?;
        let (packets, _) = counters.split_once(':')?;
        let (chain, spec) = rule.split_once(' ').unwrap_or((rule, ""));
        let chain = self.chains.iter_mut().find(|found| found.table == table && found.name == chain)?;
        chain.rules.push(Rule { packets: packets.parse().ok()?, spec: spec.to_owned() });
        Some(())
    }

    /// Rules of a chain of ours; none if it does not exist.
    pub(crate) fn own(&self, site: &Site) -> Option<&[Rule]> {
        let chain = self.chains.iter().find(|found| found.table == site.table && found.name == site.chain)?;
        Some(&chain.rules)
    }

    pub(super) fn own_chains(&self) -> impl Iterator<Item = &[Rule]> {
        Place::ALL.into_iter().filter_map(|place| self.own(&site(place)))
    }

    /// Rules that lead to a chain, with the chain they stand in and their number there.
    pub(crate) fn jumps(&self, table: &str, to: &str) -> impl Iterator<Item = (&str, usize, &Rule)> {
        let chains = self.chains.iter().filter(move |chain| chain.table == table);
        chains.flat_map(move |chain| {
            let rules = chain.rules.iter().zip(1..);
            rules
                .filter(move |(rule, _)| rule.target() == Some(to))
                .map(|(rule, number)| (chain.name.as_str(), number, rule))
        })
    }

    pub(super) fn has_rules(&self) -> bool {
        self.chains.iter().any(|chain| !chain.rules.is_empty())
    }
}

impl Rule {
    /// Where the rule leads to.
    pub(super) fn target(&self) -> Option<&str> {
        self.after(|word| matches!(word, "-j" | "-g"))
    }

    /// Its comment, if it is one of ours.
    pub(crate) fn comment(&self) -> Option<&str> {
        self.after(|word| word == "--comment").filter(|comment| comment.starts_with(SIGNATURE))
    }

    /// The rule as it is the same in every namespace.
    pub(crate) fn without_made(&self) -> String {
        match self.comment() {
            Some(comment) => self.spec.replace(comment, super::render::split_made(comment).0),
            None => self.spec.clone(),
        }
    }

    fn after(&self, is_option: impl Fn(&str) -> bool) -> Option<&str> {
        let mut words = words(&self.spec);
        words.find(|word| is_option(word))?;
        words.next()
    }
}

/// Words of a rule; what is quoted is one word, so that nothing in a comment is taken for an option.
fn words(spec: &str) -> impl Iterator<Item = &str> {
    let mut rest = spec;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let quoted = rest.strip_prefix('"');
        let text = quoted.unwrap_or(rest);
        let end = if quoted.is_some() { closing_quote(text) } else { text.find(' ') };
        let (word, after) = text.split_at_checked(end.unwrap_or(text.len()))?;
        rest = if quoted.is_some() { after.strip_prefix('"').unwrap_or("") } else { after };
        (quoted.is_some() || !word.is_empty()).then_some(word)
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn rule(spec: &str) -> Rule {
        Rule { packets: 0, spec: spec.to_owned() }
    }

    #[test]
    fn option_in_a_comment_is_none() {
        let tricky = rule(r#"-m comment --comment "say \"-j TRIREME-TO\" -g X" -j RETURN"#);

        assert_eq!(tricky.target(), Some("RETURN"));
        assert_eq!(tricky.comment(), None);
        assert_eq!(rule(r#"-m comment --comment "" -g A"#).target(), Some("A"));
        assert_eq!(rule("-m comment --comment trireme -p tcp").target(), None);
        assert_eq!(rule(r#"-m comment --comment "trireme 9 x" -j A"#).comment(), Some("trireme 9 x"));
    }

    #[test]
    fn listing_is_read_by_table_and_counters_apart() {
        let text = "# by x\n*mangle\n:OUTPUT ACCEPT [1:2]\n:TRIREME-FROM - [0:0]\n[3:4] -A OUTPUT -j TRIREME-FROM\n\
                    [5:6] -A TRIREME-FROM\nCOMMIT\n*filter\n:OUTPUT DROP [0:0]\n[7:8] -A OUTPUT -j ACCEPT\nCOMMIT\n";
        let listing = Listing::parse(text).unwrap();

        let jumps: Vec<_> = listing.jumps("mangle", "TRIREME-FROM").collect();
        assert_eq!(jumps, [("OUTPUT", 1, &Rule { packets: 3, spec: "-j TRIREME-FROM".to_owned() })]);
        assert_eq!(listing.own(&site(Place::FromUnit)).unwrap(), [Rule { packets: 5, spec: String::new() }]);
        assert!(listing.own(&site(Place::ToUnit)).is_none());
        assert_eq!(Listing::parse("*filter\n-A OUTPUT\n").unwrap_err(), "-A OUTPUT");
    }
}
