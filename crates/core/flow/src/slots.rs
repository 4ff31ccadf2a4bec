//! Numbered places with generations: a place given to another key can never be taken for the old one.

use std::collections::{BTreeMap, BTreeSet};

/// How many places an insertion looks at before it takes the next best one.
const SCAN: usize = 64;

#[derive(Clone, Debug)]
struct Content<K, V> {
    key: K,
    value: V,
    used: bool,
}

#[derive(Clone, Debug)]
struct Slot<K, V> {
    generation: u32,
    content: Option<Content<K, V>>,
}

/// Where a value was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<K> {
    /// The place.
    pub place: u32,
    /// Its generation.
    pub generation: u32,
    /// The key that had to make room.
    pub evicted: Option<K>,
}

/// Values in numbered places; a full table takes the place of a key that was not used lately (second chance).
#[derive(Clone, Debug)]
pub struct SlotTable<K, V> {
    slots: Vec<Slot<K, V>>,
    by_key: BTreeMap<K, u32>,
    vacant: BTreeSet<u32>,
    hand: u32,
    capacity: usize,
    lowest_generation: u32,
}

impl<K: Ord + Clone, V> SlotTable<K, V> {
    /// An empty table; a capacity of zero counts as one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            by_key: BTreeMap::new(),
            vacant: BTreeSet::new(),
            hand: 0,
            capacity: capacity.max(1),
            lowest_generation: 1,
        }
    }

    /// Gives no place under a lower generation from now on.
    ///
    /// The seconds of the wall clock at the start keep a table apart from those of earlier runs: no place changes hands
    /// every second.
    pub fn begin_at(&mut self, generation: u32) {
        self.lowest_generation = self.lowest_generation.max(generation);
    }

    /// Stores the value of `key`; a key keeps its place and generation while it stays.
    pub fn insert(&mut self, key: K, value: V) -> Placed<K> {
        if let Some(&place) = self.by_key.get(&key)
            && let Some(slot) = self.at(place)
        {
            let generation = slot.generation;
            slot.content = Some(Content { key, value, used: true });
            return Placed { place, generation, evicted: None };
        }
        let (place, evicted) = self.free_place();
        let lowest = self.lowest_generation;
        self.by_key.insert(key.clone(), place);
        let content = Some(Content { key, value, used: false });
        let Some(slot) = self.at(place) else {
            self.slots.push(Slot { generation: lowest, content });
            return Placed { place, generation: lowest, evicted };
        };
        slot.generation = slot.generation.wrapping_add(1).max(lowest);
        slot.content = content;
        Placed { place, generation: slot.generation, evicted }
    }

    /// Puts a value back where an earlier table had it; false if the place does not exist here, or is taken or spent.
    pub fn restore(&mut self, key: K, value: V, place: u32, generation: u32) -> bool {
        if self.by_key.contains_key(&key) || generation == 0 || !self.extend_to(place) {
            return false;
        }
        let Some(slot) =
            self.at(place).filter(|slot| slot.content.is_none() && slot.generation <= generation)
        else {
            return false;
        };
        slot.generation = generation;
        slot.content = Some(Content { key: key.clone(), value, used: false });
        self.vacant.remove(&place);
        self.by_key.insert(key, place);
        true
    }

    /// Takes note that an earlier table gave this place under this generation: it is not given under it again. A key that
    /// was restored there under an older one goes and is returned.
    pub fn reserve(&mut self, place: u32, generation: u32) -> Option<K> {
        if !self.extend_to(place) {
            return None;
        }
        let slot = self.at(place).filter(|slot| slot.generation < generation)?;
        slot.generation = generation;
        let content = slot.content.take()?;
        self.by_key.remove(&content.key);
        self.vacant.insert(place);
        Some(content.key)
    }

    /// The value at this place, if it still belongs to this generation.
    pub fn get(&mut self, place: u32, generation: u32) -> Option<&mut V> {
        let content = self.at(place).filter(|slot| slot.generation == generation)?.content.as_mut()?;
        content.used = true;
        Some(&mut content.value)
    }

    /// The place and generation of a key, which does not count as a use.
    #[must_use]
    pub fn find(&self, key: &K) -> Option<(u32, u32)> {
        let place = *self.by_key.get(key)?;
        Some((place, self.slots.get(usize::try_from(place).ok()?)?.generation))
    }

    /// Every key with its place, generation and value, by place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, &K, &V)> {
        (0..).zip(&self.slots).filter_map(|(place, slot)| {
            let Content { key, value, .. } = slot.content.as_ref()?;
            Some((place, slot.generation, key, value))
        })
    }

    /// Every value, by place.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().filter_map(|slot| slot.content.as_mut()).map(|content| &mut content.value)
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

    /// Makes a place exist, and those before it; false if it lies beyond the capacity.
    fn extend_to(&mut self, place: u32) -> bool {
        if usize::try_from(place).map_or(true, |place| place >= self.capacity) {
            return false;
        }
        for vacant in u32::try_from(self.slots.len()).unwrap_or(u32::MAX)..=place {
            self.slots.push(Slot { generation: 0, content: None });
            self.vacant.insert(vacant);
        }
        true
    }

    /// A vacant place, one beyond the end while there is room, else one taken from a key that was not used lately.
    fn free_place(&mut self) -> (u32, Option<K>) {
        if let Some(place) = self.vacant.pop_first() {
            return (place, None);
        }
        let len = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if self.slots.len() < self.capacity && len < u32::MAX {
            return (len, None);
        }
        for _ in 0..SCAN {
            self.hand = if self.hand.saturating_add(1) < len { self.hand + 1 } else { 0 };
            let hand = self.hand;
            match self.at(hand).and_then(|slot| slot.content.as_mut()) {
                Some(content) if content.used => content.used = false,
                Some(_) | None => break,
            }
        }
        let hand = self.hand;
        let evicted = self.at(hand).and_then(|slot| slot.content.take()).map(|content| content.key);
        if let Some(key) = &evicted {
            self.by_key.remove(key);
        }
        (hand, evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_given_to_another_key_has_another_generation() {
        let mut table = SlotTable::new(2);
        let first = table.insert('a', 1);
        assert_eq!(table.insert('a', 2), first);
        let second = table.insert('b', 3);
        assert_eq!(table.get(first.place, first.generation), Some(&mut 2));
        let third = table.insert('c', 4);
        assert_eq!((third.place, third.evicted), (second.place, Some('b')));
        assert_ne!(third.generation, second.generation);
        assert_eq!(table.get(second.place, second.generation), None);
        assert_eq!(table.get(third.place, third.generation), Some(&mut 4));
        assert_eq!(table.get(9, 1), None);
        assert_eq!((table.len(), table.find(&'b'), table.find(&'c')), (2, None, Some((1, 2))));
    }

    #[test]
    fn a_table_goes_on_where_an_earlier_one_stopped() {
        let mut table = SlotTable::new(4);
        assert!(table.restore('a', 1, 2, 7));
        assert!(!table.restore('b', 1, 2, 8) && !table.restore('a', 1, 3, 1), "taken");
        assert!(!table.restore('c', 1, 4, 1), "beyond the end");
        assert_eq!((table.find(&'a'), table.len()), (Some((2, 7)), 1));
        assert_eq!(table.reserve(1, 9), None);
        assert_eq!(table.reserve(u32::MAX, 9), None);
        assert_eq!(table.reserve(2, 7), None, "that is the very one");
        let given: Vec<_> = ['x', 'y', 'z'].map(|key| table.insert(key, 0)).to_vec();
        assert_eq!(
            given.iter().map(|at| (at.place, at.generation)).collect::<Vec<_>>(),
            [(0, 1), (1, 10), (3, 1)]
        );
        assert_eq!(table.reserve(2, 8), Some('a'));
        assert_eq!(table.get(2, 7), None);
        assert_eq!(table.insert('b', 0), Placed { place: 2, generation: 9, evicted: None });
        assert_eq!(table.iter().map(|(place, ..)| place).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn generations_begin_where_they_are_told_to() {
        let mut table = SlotTable::new(1);
        table.begin_at(1000);
        assert_eq!(table.insert('a', 0).generation, 1000);
        assert_eq!(table.insert('b', 0).generation, 1001);
        table.begin_at(5);
        assert_eq!(table.insert('c', 0).generation, 1002);
    }
}
