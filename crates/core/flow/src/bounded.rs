//! A map of fixed capacity that forgets what was not used for longest, approximately (second chance).

use std::collections::BTreeMap;
use std::ops::Bound;

/// How many entries an insertion looks at before it takes the next best one out.
const SCAN: usize = 64;

#[derive(Clone, Debug)]
struct Cell<V> {
    value: V,
    used: bool,
}

/// A map that holds at most `capacity` entries.
#[derive(Clone, Debug)]
pub struct BoundedMap<K, V> {
    cells: BTreeMap<K, Cell<V>>,
    hand: Option<K>,
    capacity: usize,
}

impl<K: Ord + Clone, V> BoundedMap<K, V> {
    /// An empty map; a capacity of zero counts as one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { cells: BTreeMap::new(), hand: None, capacity: capacity.max(1) }
    }

    /// The value of `key`, which counts as a use.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let cell = self.cells.get_mut(key)?;
        cell.used = true;
        Some(&mut cell.value)
    }

    /// The value of `key`, which does not count as a use.
    #[must_use]
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.cells.get(key).map(|cell| &cell.value)
    }

    /// Stores a value; takes an entry that was not used lately out of a full map.
    pub fn insert(&mut self, key: K, value: V) {
        if self.cells.len() >= self.capacity && !self.cells.contains_key(&key) {
            self.evict();
        }
        self.cells.insert(key, Cell { value, used: false });
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.cells.remove(key).map(|cell| cell.value)
    }

    /// Removes every entry whose key does not hold.
    pub fn retain(&mut self, holds: impl Fn(&K) -> bool) {
        self.cells.retain(|key, _| holds(key));
    }

    /// Removes every entry.
    pub fn clear(&mut self) {
        self.cells.clear();
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn evict(&mut self) {
        for _ in 0..SCAN {
            let start = self.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
            let Some((key, cell)) = self.cells.range_mut((start, Bound::Unbounded)).next() else { continue };
            let key = key.clone();
            if !cell.used {
                self.cells.remove(&key);
                self.hand = Some(key);
                return;
            }
            cell.used = false;
            self.hand = Some(key);
        }
        self.cells.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_forgets_what_was_not_used() {
        let mut map = BoundedMap::new(3);
        for key in 1..=3 {
            map.insert(key, key * 10);
        }
        assert_eq!(map.get_mut(&1), Some(&mut 10));
        map.insert(4, 40);
        assert_eq!((map.len(), map.peek(&1), map.peek(&2), map.peek(&4)), (3, Some(&10), None, Some(&40)));
    }

    #[test]
    fn a_map_whose_entries_are_all_in_use_still_takes_a_new_one() {
        let mut map = BoundedMap::new(200);
        for key in 0..400 {
            map.insert(key, ());
            assert_eq!(map.get_mut(&key), Some(&mut ()));
            assert!(map.len() <= 200);
        }
    }
}
