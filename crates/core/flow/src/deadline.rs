//! A queue of deadlines without one allocation per timer.

use std::collections::BTreeSet;

use trireme_identity::time::Instant;

/// Keys ordered by the time at which they fall due.
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    queue: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Adds a deadline.
    pub fn add(&mut self, at: Instant, key: K) {
        self.queue.insert((at, key));
    }

    /// Takes a deadline back.
    pub fn cancel(&mut self, at: Instant, key: K) {
        self.queue.remove(&(at, key));
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Removes and returns the key that is due first, if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.pop_first()
    }

    /// Removes and returns the key that is due first, due or not.
    pub fn pop_first(&mut self) -> Option<K> {
        self.queue.pop_first().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_order_of_time_and_not_before() {
        let mut deadlines = Deadlines::default();
        deadlines.add(Instant(30), 'c');
        deadlines.add(Instant(10), 'a');
        deadlines.add(Instant(20), 'b');
        deadlines.cancel(Instant(20), 'b');
        assert_eq!(deadlines.next(), Some(Instant(10)));
        assert_eq!(deadlines.pop_due(Instant(9)), None);
        assert_eq!(deadlines.pop_due(Instant(30)), Some('a'));
        assert_eq!(deadlines.pop_due(Instant(30)), Some('c'));
        assert_eq!(deadlines.pop_due(Instant(30)), None);
    }
}
