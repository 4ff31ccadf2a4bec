//! A small map of fixed capacity that forgets what was used least recently.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    capacity: NonZeroUsize,
    entries: BTreeMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    clock: u64,
}

impl<K: Ord + Copy, V> Lru<K, V> {
    pub(crate) const fn new(capacity: NonZeroUsize) -> Self {
        Self { capacity, entries: BTreeMap::new(), order: BTreeMap::new(), clock: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Looks up and marks as used.
    pub(crate) fn touch(&mut self, key: &K) -> Option<&V> {
        let (stamp, value) = self.entries.get_mut(key)?;
        self.clock += 1;
        self.order.remove(stamp);
        self.order.insert(self.clock, *key);
        *stamp = self.clock;
        Some(value)
    }

    /// Inserts or replaces; gives back the key that had to go.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<K> {
        self.remove(&key);
        let evicted = (self.entries.len() >= self.capacity.get())
            .then(|| self.order.first_key_value().map(|(_, oldest)| *oldest))
            .flatten();
        if let Some(oldest) = &evicted {
            self.remove(oldest);
        }
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.entries.insert(key, (self.clock, value));
        evicted
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (stamp, value) = self.entries.remove(key)?;
        self.order.remove(&stamp);
        Some(value)
    }

    /// Removes what `condemned` says; gives back the keys in order.
    pub(crate) fn remove_if(&mut self, mut condemned: impl FnMut(&K, &V) -> bool) -> Vec<K> {
        let gone: Vec<K> = self
            .entries
            .iter()
            .filter(|(key, (_, value))| condemned(key, value))
            .map(|(key, _)| *key)
            .collect();
        for key in &gone {
            self.remove(key);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let mut lru = Lru::new(NonZeroUsize::new(2).unwrap());
        assert_eq!(lru.insert(1, 'a'), None);
        assert_eq!(lru.insert(2, 'b'), None);
        assert_eq!(lru.touch(&1), Some(&'a'));
        assert_eq!(lru.insert(3, 'c'), Some(2));
        assert_eq!(lru.insert(1, 'A'), None);
        assert_eq!((lru.touch(&1).copied(), lru.touch(&2).copied(), lru.len()), (Some('A'), None, 2));
        assert_eq!(lru.remove_if(|key, _| *key == 3), vec![3]);
        assert_eq!((lru.remove(&1), lru.len(), lru.order.len()), (Some('A'), 0, 0));
    }
}
