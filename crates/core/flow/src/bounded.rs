//! Maps of fixed capacity that forget what was not used for longest, approximately (second chance).

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

#[derive(Clone, Debug)]
struct Slot<K, V> {
    generation: u32,
    content: Option<(K, Cell<V>)>,
}

/// Numbered places with generations: a place given to another key can never be taken for the old one.
#[derive(Clone, Debug)]
pub struct SlotTable<K, V> {
    slots: Vec<Slot<K, V>>,
    by_key: BTreeMap<K, u32>,
    hand: u32,
    capacity: usize,
}

impl<K: Ord + Clone, V> SlotTable<K, V> {
    /// An empty table; a capacity of zero counts as one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), by_key: BTreeMap::new(), hand: 0, capacity: capacity.max(1) }
    }

    /// Stores the value of `key` and returns its place and the place's generation; a key keeps both while it stays.
    pub fn insert(&mut self, key: K, value: V) -> (u32, u32) {
        if let Some(&place) = self.by_key.get(&key)
            && let Some(slot) = self.at(place)
        {
            slot.content = Some((key, Cell { value, used: true }));
            return (place, slot.generation);
        }
        let place = self.free_place();
        self.by_key.insert(key.clone(), place);
        let content = Some((key, Cell { value, used: false }));
        let Some(slot) = self.at(place) else {
            self.slots.push(Slot { generation: 1, content });
            return (place, 1);
        };
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.content = content;
        (place, slot.generation)
    }

    /// The value at this place, if it still belongs to this generation.
    pub fn get(&mut self, place: u32, generation: u32) -> Option<&V> {
        let slot = self.at(place)?;
        if slot.generation != generation {
            return None;
        }
        let (_, cell) = slot.content.as_mut()?;
        cell.used = true;
        Some(&cell.value)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn at(&mut self, place: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(usize::try_from(place).ok()?)
    }

    /// A place beyond the end while there is room, else one taken from a key that was not used lately.
    fn free_place(&mut self) -> u32 {
        let len = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if self.slots.len() < self.capacity && len < u32::MAX {
            return len;
        }
        for _ in 0..SCAN {
            self.hand = if self.hand.saturating_add(1) < len { self.hand + 1 } else { 0 };
            let hand = self.hand;
            match self.at(hand).and_then(|slot| slot.content.as_mut()) {
                Some((_, cell)) if cell.used => cell.used = false,
                Some(_) | None => break,
            }
        }
        let hand = self.hand;
        if let Some((key, _)) = self.at(hand).and_then(|slot| slot.content.take()) {
            self.by_key.remove(&key);
        }
        hand
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

    #[test]
    fn a_place_given_to_another_key_has_another_generation() {
        let mut table = SlotTable::new(2);
        let first = table.insert('a', 1);
        assert_eq!(table.insert('a', 2), first);
        let second = table.insert('b', 3);
        assert_eq!(table.get(first.0, first.1), Some(&2));
        let third = table.insert('c', 4);
        assert_eq!(third.0, second.0);
        assert_ne!(third.1, second.1);
        assert_eq!(table.get(second.0, second.1), None);
        assert_eq!(table.get(third.0, third.1), Some(&4));
        assert_eq!(table.get(9, 1), None);
        assert_eq!(table.len(), 2);
    }
}
