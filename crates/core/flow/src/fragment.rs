//! Fragmented packets under way whose first fragment was admitted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use trireme_identity::Protocol;
use trireme_identity::time::Instant;

use crate::{Deadlines, FRAGMENT_TIME, PuSlot};

/// Names one fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// The processing unit at whose edge its fragments are taken.
    pub pu: PuSlot,
    /// Where the packet comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its identification.
    pub id: u32,
}

#[derive(Clone, Copy, Debug)]
struct Cell<T> {
    value: T,
    until: Instant,
}

/// What was decided about first fragments, for the later ones; at most `capacity` packets at a time.
///
/// Only what was admitted is kept, so that strangers cannot fill the table; the oldest makes room for the newest, which costs
/// one packet of many fragments and nobody's rights.
#[derive(Debug)]
pub struct FragmentTable<T> {
    capacity: usize,
    cells: BTreeMap<FragmentKey, Cell<T>>,
    deadlines: Deadlines<FragmentKey>,
}

impl<T: Copy> FragmentTable<T> {
    /// An empty table; a capacity of zero counts as one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), cells: BTreeMap::new(), deadlines: Deadlines::default() }
    }

    /// Keeps the decision about a first fragment, over an earlier one.
    pub fn insert(&mut self, key: FragmentKey, value: T, now: Instant) {
        self.remove(&key);
        if self.cells.len() >= self.capacity
            && let Some(oldest) = self.deadlines.pop_first()
        {
            self.cells.remove(&oldest);
        }
        let until = now + FRAGMENT_TIME;
        self.cells.insert(key, Cell { value, until });
        self.deadlines.add(until, key);
    }

    /// What was decided about the first fragment.
    #[must_use]
    pub fn get(&self, key: &FragmentKey, now: Instant) -> Option<T> {
        self.cells.get(key).filter(|cell| cell.until > now).map(|cell| cell.value)
    }

    /// Forgets a packet.
    pub fn remove(&mut self, key: &FragmentKey) {
        if let Some(cell) = self.cells.remove(key) {
            self.deadlines.cancel(cell.until, *key);
        }
    }

    /// Forgets every packet of a unit.
    pub fn remove_unit(&mut self, pu: PuSlot) {
        let gone: Vec<_> = self.cells.keys().filter(|key| key.pu == pu).copied().collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.pop_due(now) {
            self.cells.remove(&key);
        }
    }

    /// When the next packet is too old.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> FragmentKey {
        let addr = |text: &str| text.parse().unwrap();
        FragmentKey {
            pu: PuSlot(1),
            source: addr("10.0.0.1"),
            destination: addr("10.0.0.2"),
            protocol: Protocol::UDP,
            id,
        }
    }

    #[test]
    fn a_decision_holds_for_one_packet_and_not_for_ever() {
        let mut table = FragmentTable::new(8);
        table.insert(key(1), 'a', Instant(0));
        let end = Instant(0) + FRAGMENT_TIME;
        assert_eq!(table.get(&key(1), Instant(end.0 - 1)), Some('a'));
        assert_eq!(table.get(&key(2), Instant(0)), None);
        assert_eq!(table.get(&FragmentKey { pu: PuSlot(2), ..key(1) }, Instant(0)), None);
        assert_eq!(table.get(&key(1), end), None);
        assert_eq!(table.next(), Some(end));
        table.expire(end);
        assert!(table.is_empty() && table.next().is_none());
    }

    #[test]
    fn the_oldest_makes_room_and_a_unit_takes_its_packets_along() {
        let mut table = FragmentTable::new(2);
        for id in 1..=3 {
            table.insert(key(id), id, Instant(u64::from(id)));
        }
        assert_eq!([1, 2, 3].map(|id| table.get(&key(id), Instant(9))), [None, Some(2), Some(3)]);
        table.insert(key(2), 7, Instant(10));
        assert_eq!((table.get(&key(2), Instant(10)), table.len()), (Some(7), 2));
        table.remove_unit(PuSlot(1));
        assert!(table.is_empty() && table.next().is_none());
    }
}
