//! Rules about tags, each filed under one clause that a matching peer must fulfil.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use trireme_identity::{Tag, TagSet};

use super::{Facts, Hit, Probe, UnknownPass, settle};
use crate::clause::Truth;
use crate::{Clause, Selector, Test};

/// Positions in [`TagIndex::entries`], ascending: the first that matches is the one to take.
type Bucket = Vec<usize>;

/// Keyed by words of rules. A peer can look up but never insert, and the seed comes from the whole policy: who writes
/// one rule of it cannot aim at collisions, for every attempt changes the seed.
type Words<T> = HashMap<Box<str>, T, FixedState>;

/// One selector of one rule.
#[derive(Debug)]
struct Entry {
    facts: Arc<Facts>,
    /// The clauses left to check: the one the entry is filed under holds for every peer that meets the entry.
    clauses: Box<[Clause]>,
}

/// The entries filed under one key.
#[derive(Debug)]
struct KeyBuckets {
    exact: Words<Bucket>,
    prefixes: Words<Bucket>,
    /// The lengths that occur in `prefixes`, each once.
    prefix_lens: Vec<usize>,
    exists: Bucket,
}

/// Finds the first matching rule by the peer's tags.
///
/// Every entry is filed under its rarest positive clause, so a peer without a tag for that clause never meets it;
/// entries that ask only for absences are in `unfiled`.
#[derive(Debug)]
pub(crate) struct TagIndex {
    entries: Vec<Entry>,
    keys: Words<KeyBuckets>,
    /// A bit for each length of a key in `keys`, modulo 64: spares most tags the look-up.
    key_lens: u64,
    unfiled: Bucket,
}

impl KeyBuckets {
    fn new(state: &FixedState) -> Self {
        Self {
            exact: Words::with_hasher(state.clone()),
            prefixes: Words::with_hasher(state.clone()),
            prefix_lens: Vec::new(),
            exists: Bucket::new(),
        }
    }
}

impl TagIndex {
    /// Files selectors that are already in the order in which they are to be asked.
    pub(crate) fn new<'a>(seed: u64, rules: impl IntoIterator<Item = (Arc<Facts>, &'a [Selector])>) -> Self {
        let mut entries: Vec<Entry> = rules
            .into_iter()
            .flat_map(|(facts, selectors)| {
                selectors.iter().map(move |selector| Entry {
                    facts: Arc::clone(&facts),
                    clauses: selector.clauses.clone().into_boxed_slice(),
                })
            })
            .collect();
        let popularity = Popularity::of(&entries);
        let filed: Vec<Option<Clause>> =
            entries.iter().map(|entry| popularity.rarest(&entry.clauses).cloned()).collect();
        let keys = Words::with_hasher(FixedState::with_seed(seed));
        let mut index = Self { entries: Vec::new(), keys, key_lens: 0, unfiled: Bucket::new() };
        for (position, (entry, clause)) in entries.iter_mut().zip(filed).enumerate() {
            let Some(clause) = clause else {
                index.unfiled.push(position);
                continue;
            };
            index.file(&clause, position);
            entry.clauses = entry.clauses.iter().filter(|other| **other != clause).cloned().collect();
        }
        Self { entries, ..index }
    }

    fn file(&mut self, clause: &Clause, position: usize) {
        self.key_lens |= len_bit(&clause.key);
        let state = self.keys.hasher().clone();
        let buckets = self.keys.entry(clause.key.clone()).or_insert_with(|| KeyBuckets::new(&state));
        match &clause.test {
            Test::AnyOf(values) => {
                for value in &values.exact {
                    buckets.exact.entry(value.clone()).or_default().push(position);
                }
                for prefix in &values.prefixes {
                    buckets.prefixes.entry(prefix.clone()).or_default().push(position);
                    if let Err(at) = buckets.prefix_lens.binary_search(&prefix.len()) {
                        buckets.prefix_lens.insert(at, prefix.len());
                    }
                }
            }
            Test::Exists => buckets.exists.push(position),
            Test::NoneOf(_) | Test::NotExists => {}
        }
    }

    /// The first entry that matches.
    pub(crate) fn first(
        &self,
        tags: &TagSet,
        partial: bool,
        probe: &Probe<'_>,
        unknown: UnknownPass,
    ) -> Option<Hit<'_>> {
        let mut search = Search { index: self, tags, partial, probe, unknown, best: None };
        search.visit(&self.unfiled);
        for tag in tags.iter().filter(|tag| self.key_lens & len_bit(tag.key()) != 0) {
            search.visit_tag(tag);
        }
        let (position, doubtful) = search.best?;
        Some(Hit { facts: &self.entries.get(position)?.facts, prefix_len: None, doubtful })
    }
}

struct Search<'a, 'p> {
    index: &'a TagIndex,
    tags: &'p TagSet,
    partial: bool,
    probe: &'p Probe<'p>,
    unknown: UnknownPass,
    best: Option<(usize, bool)>,
}

impl Search<'_, '_> {
    fn visit_tag(&mut self, tag: &Tag) {
        let Some(buckets) = self.index.keys.get(tag.key()) else { return };
        let value = tag.value();
        if let Some(bucket) = buckets.exact.get(value) {
            self.visit(bucket);
        }
        for &len in &buckets.prefix_lens {
            let Some(bucket) = value.get(..len).and_then(|prefix| buckets.prefixes.get(prefix)) else {
                continue;
            };
            self.visit(bucket);
        }
        self.visit(&buckets.exists);
    }

    /// Keeps the first match of an ascending bucket if it comes before the best one so far.
    fn visit(&mut self, bucket: &[usize]) {
        for &position in bucket {
            if self.best.is_some_and(|(best, _)| best <= position) {
                return;
            }
            let Some(entry) = self.index.entries.get(position) else { return };
            if let Some(doubtful) = self.try_match(entry) {
                self.best = Some((position, doubtful));
                return;
            }
        }
    }

    fn try_match(&self, entry: &Entry) -> Option<bool> {
        if !entry.facts.services.contain(self.probe.port, self.probe.protocol) {
            return None;
        }
        let mut truth = Truth::Yes;
        for clause in &entry.clauses {
            let hidden = self.partial && !self.probe.complete.contains(&clause.key);
            truth = truth.min(clause.judge(self.tags, hidden));
            if truth == Truth::No {
                return None;
            }
        }
        settle(truth, entry.facts.flow.action, self.unknown)
    }
}

const fn len_bit(key: &str) -> u64 {
    1 << (key.len() % 64)
}

/// How many entries ask for a word under a key; decides under which of its clauses an entry is filed.
struct Popularity<'a>(BTreeMap<(&'a str, Option<&'a str>), usize>);

impl<'a> Popularity<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut counts = BTreeMap::new();
        for clause in entries.iter().flat_map(|entry| &entry.clauses) {
            for word in words(clause) {
                *counts.entry((&*clause.key, word)).or_default() += 1;
            }
        }
        Self(counts)
    }

    /// The clause to file an entry under; none if all of them ask for absences.
    fn rarest<'c>(&self, clauses: &'c [Clause]) -> Option<&'c Clause> {
        let costs = clauses.iter().filter_map(|clause| Some((self.cost(clause)?, clause)));
        costs.min().map(|(_, clause)| clause)
    }

    /// The entries a peer fulfilling the clause would meet at worst; none if the clause asks for an absence.
    fn cost(&self, clause: &Clause) -> Option<usize> {
        let count = |word| self.0.get(&(&*clause.key, word)).copied().unwrap_or_default();
        words(clause).map(count).max()
    }
}

/// What a clause can be filed under: its values and prefixes, or the key alone.
fn words(clause: &Clause) -> impl Iterator<Item = Option<&str>> {
    let (values, alone) = match &clause.test {
        Test::AnyOf(values) => (Some(values), None),
        Test::Exists => (None, Some(None)),
        Test::NoneOf(_) | Test::NotExists => (None, None),
    };
    let values = values.into_iter().flat_map(|values| values.exact.iter().chain(&values.prefixes));
    values.map(|word| Some(&**word)).chain(alone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowPolicy, Order, Services};

    #[test]
    fn a_peer_meets_only_the_rules_filed_under_its_own_tags() {
        let selector = |app: usize| {
            let clauses =
                [Clause::equal("app", [format!("app-{app}").as_str()]), Clause::equal("env", ["prod"])];
            [Selector::new(clauses)]
        };
        let peer: TagSet =
            [Tag::new("app", "app-7"), Tag::new("env", "prod")].into_iter().flatten().collect();
        for rules in [10, 10_000] {
            let selectors: Vec<[Selector; 1]> = (0..rules).map(selector).collect();
            let facts = Arc::new(Facts {
                order: Order::default(),
                flow: FlowPolicy::accept(),
                services: Services::Any,
                number: None,
            });
            let index = TagIndex::new(7, selectors.iter().map(|one| (Arc::clone(&facts), one.as_slice())));
            let met: Vec<&Bucket> =
                peer.iter().filter_map(|tag| index.keys.get(tag.key())?.exact.get(tag.value())).collect();
            assert_eq!((met, index.unfiled), (vec![&vec![7]], Vec::new()));
        }
    }
}
