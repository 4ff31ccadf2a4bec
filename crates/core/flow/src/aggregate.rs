//! Gathers equal decisions into one record.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use trireme_identity::time::{Instant, Now};
use trireme_identity::{Direction, Protocol};
use trireme_token::TokenId;

use crate::{Action, Deadlines, FlowRecord, PuSlot, Reason};

/// What makes two decisions equal; the initiator's port is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The reporting unit.
    pub pu: PuSlot,
    /// Its direction.
    pub direction: Direction,
    /// The IP protocol.
    pub protocol: Protocol,
    /// The initiator's address.
    pub source: IpAddr,
    /// The responder's address and port.
    pub destination: (IpAddr, u16),
    /// The peer's token, all zero when unknown.
    pub peer: TokenId,
    /// What happened.
    pub action: Action,
    /// What would have happened.
    pub observed: Option<Action>,
    /// The rule that decided.
    pub rule: Option<u16>,
    /// Why.
    pub reason: Reason,
}

#[derive(Debug)]
struct Gathered {
    record: FlowRecord,
    count: u64,
}

/// Records under way; at most `capacity` kinds of decision at a time.
///
/// The first decision of a kind is emitted at once, equal ones that follow within the interval together at its end.
#[derive(Debug)]
pub struct Aggregator {
    interval: Duration,
    capacity: usize,
    gathered: BTreeMap<RecordKey, Gathered>,
    deadlines: Deadlines<RecordKey>,
    lost: u64,
}

impl Aggregator {
    /// An empty aggregator.
    #[must_use]
    pub fn new(capacity: usize, interval: Duration) -> Self {
        Self { interval, capacity, gathered: BTreeMap::new(), deadlines: Deadlines::default(), lost: 0 }
    }

    /// Takes note of a decision; returns the record to emit if it is the first of its kind.
    ///
    /// `make` builds the record; it is called only then, so that a flood of equal decisions stays cheap.
    pub fn note(
        &mut self,
        key: RecordKey,
        now: Now,
        make: impl FnOnce() -> FlowRecord,
    ) -> Option<FlowRecord> {
        if let Some(gathered) = self.gathered.get_mut(&key) {
            if gathered.count == 0 {
                gathered.record.first_seen = now.wall;
            }
            gathered.count += 1;
            gathered.record.last_seen = now.wall;
            return None;
        }
        if self.gathered.len() >= self.capacity {
            self.lost += 1;
            return None;
        }
        let record = FlowRecord { count: 1, first_seen: now.wall, last_seen: now.wall, ..make() };
        self.gathered.insert(key, Gathered { record: record.clone(), count: 0 });
        self.deadlines.add(now.monotonic + self.interval, key);
        Some(record)
    }

    /// Returns one record whose interval is over; call until there is none.
    pub fn pop_due(&mut self, now: Instant) -> Option<FlowRecord> {
        loop {
            let key = self.deadlines.pop_due(now)?;
            let Some(gathered) = self.gathered.get_mut(&key) else { continue };
            if gathered.count == 0 {
                self.gathered.remove(&key);
                continue;
            }
            let record = FlowRecord { count: gathered.count, ..gathered.record.clone() };
            gathered.count = 0;
            self.deadlines.add(now + self.interval, key);
            return Some(record);
        }
    }

    /// When the next interval is over.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many kinds of decision are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gathered.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// How many decisions found no room and were not recorded.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use trireme_identity::TagSet;
    use trireme_identity::time::WallTime;

    use super::*;
    use crate::Party;

    fn key(port: u16) -> RecordKey {
        RecordKey {
            pu: PuSlot(1),
            direction: Direction::Ingress,
            protocol: Protocol::TCP,
            source: "10.0.0.2".parse().unwrap(),
            destination: ("10.0.0.1".parse().unwrap(), port),
            peer: TokenId::ZERO,
            action: Action::Reject,
            observed: None,
            rule: None,
            reason: Reason::Stray,
        }
    }

    fn record() -> FlowRecord {
        let party = Party {
            id: None,
            node: None,
            token: None,
            tags: TagSet::new(),
            address: "10.0.0.2".parse().unwrap(),
            port: 1,
        };
        FlowRecord {
            pu: "web".parse().unwrap(),
            direction: Direction::Ingress,
            source: party.clone(),
            destination: party,
            attested: None,
            protocol: Protocol::TCP,
            action: Action::Reject,
            observed: None,
            policy: None,
            rule: None,
            rule_number: None,
            reason: Reason::Stray,
            explanation: None,
            event: crate::FlowEvent::Decision,
            traffic: None,
            count: 0,
            first_seen: WallTime(0),
            last_seen: WallTime(0),
        }
    }

    fn at(secs: u64) -> Now {
        Now { monotonic: Instant(secs * 1_000_000_000), wall: WallTime(secs) }
    }

    #[test]
    fn the_first_decision_is_emitted_at_once_and_equal_ones_together() {
        let mut aggregator = Aggregator::new(8, Duration::from_secs(5));
        let first = aggregator.note(key(80), at(1), record).unwrap();
        assert_eq!((first.count, first.first_seen, first.last_seen), (1, WallTime(1), WallTime(1)));
        for second in 2..5 {
            assert_eq!(aggregator.note(key(80), at(second), record), None);
        }
        assert_eq!(aggregator.pop_due(at(5).monotonic), None);
        let rest = aggregator.pop_due(at(6).monotonic).unwrap();
        assert_eq!((rest.count, rest.first_seen, rest.last_seen), (3, WallTime(2), WallTime(4)));
        assert_eq!(aggregator.pop_due(at(11).monotonic), None);
        assert!(aggregator.is_empty() && aggregator.next().is_none());
    }

    #[test]
    fn a_full_aggregator_counts_what_it_loses() {
        let mut aggregator = Aggregator::new(2, Duration::from_secs(5));
        for port in 1..=5 {
            assert_eq!(aggregator.note(key(port), at(1), record).is_some(), port <= 2);
        }
        assert_eq!((aggregator.len(), aggregator.lost()), (2, 3));
    }
}
