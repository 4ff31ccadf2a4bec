//! Rules about addresses, filed under their networks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use ipnet::IpNet;

use super::{Facts, Hit, Probe};
use crate::IpRule;

#[derive(Debug)]
struct Entry {
    facts: Arc<Facts>,
    except: Box<[IpNet]>,
}

/// Finds the first matching rule by the peer's address.
#[derive(Debug)]
pub(crate) struct AddressIndex {
    entries: Vec<Entry>,
    /// Positions in `entries`, ascending, by network without host bits; seeded like the tables of tags.
    networks: HashMap<IpNet, Vec<usize>, FixedState>,
    /// The prefix lengths that occur, longest first, each once.
    v4_lens: Vec<u8>,
    v6_lens: Vec<u8>,
}

impl AddressIndex {
    /// Files rules that are already in the order in which they are to be asked.
    pub(crate) fn new<'a>(seed: u64, rules: impl IntoIterator<Item = (Arc<Facts>, &'a IpRule)>) -> Self {
        let mut index = Self {
            entries: Vec::new(),
            networks: HashMap::with_hasher(FixedState::with_seed(seed)),
            v4_lens: Vec::new(),
            v6_lens: Vec::new(),
        };
        for (position, (facts, rule)) in rules.into_iter().enumerate() {
            for network in &rule.networks {
                let lens = if network.addr().is_ipv4() { &mut index.v4_lens } else { &mut index.v6_lens };
                if let Err(at) = lens.binary_search_by(|len| network.prefix_len().cmp(len)) {
                    lens.insert(at, network.prefix_len());
                }
                index.networks.entry(network.trunc()).or_default().push(position);
            }
            index.entries.push(Entry { facts, except: rule.except.clone().into_boxed_slice() });
        }
        index
    }

    /// Whether there is no rule.
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first rule that matches: by priority, then by the length of its prefix.
    pub(crate) fn first(&self, address: IpAddr, probe: &Probe<'_>) -> Option<Hit<'_>> {
        let lens = if address.is_ipv4() { &self.v4_lens } else { &self.v6_lens };
        let mut best: Option<Hit<'_>> = None;
        for &len in lens {
            let Ok(network) = IpNet::new(address, len) else { continue };
            let Some(bucket) = self.networks.get(&network.trunc()) else { continue };
            for entry in bucket.iter().filter_map(|&position| self.entries.get(position)) {
                // A longer prefix was seen before: only an earlier (tier, priority) can still win.
                if best.is_some_and(|best| best.facts.order <= entry.facts.order) {
                    break;
                }
                if !entry.facts.services.contain(probe.port, probe.protocol)
                    || entry.except.iter().any(|network| network.contains(&address))
                {
                    continue;
                }
                best = Some(Hit { facts: &entry.facts, prefix_len: Some(len), doubtful: false });
                break;
            }
        }
        best
    }
}
