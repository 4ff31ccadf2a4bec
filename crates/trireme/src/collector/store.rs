//! The last flow records, in memory, for the local API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use trireme_flow::FlowRecord;

use super::{Collector, PuRecord};

/// A flow record with its place in the stream of all records.
#[derive(Clone, Debug)]
pub struct StoredFlow {
    /// Counts every record since the start, from 1; a gap tells a reader what it missed.
    pub sequence: u64,
    /// The record.
    pub record: Arc<FlowRecord>,
}

/// Keeps the newest records up to a fixed number; older ones are forgotten.
///
/// Followers get records through a bounded channel; a slow one loses the oldest and is told how many.
#[derive(Debug)]
pub struct FlowStore {
    capacity: usize,
    inner: Mutex<Inner>,
    live: broadcast::Sender<StoredFlow>,
}

#[derive(Debug, Default)]
struct Inner {
    sequence: u64,
    records: VecDeque<StoredFlow>,
    pus: VecDeque<PuRecord>,
}

/// How many records a follower may lag behind.
const FOLLOW_BACKLOG: usize = 1024;

/// How many unit events are kept.
const PU_EVENTS: usize = 256;

impl FlowStore {
    /// A store for `capacity` records, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let (live, _) = broadcast::channel(FOLLOW_BACKLOG);
        Self { capacity: capacity.max(1), inner: Mutex::default(), live }
    }

    /// The newest `limit` records, oldest first.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<StoredFlow> {
        let inner = self.lock();
        let skip = inner.records.len().saturating_sub(limit);
        inner.records.iter().skip(skip).cloned().collect()
    }

    /// Stored records and a subscription that continues right behind them: nothing is lost or repeated.
    #[must_use]
    pub fn follow(&self, limit: usize) -> (Vec<StoredFlow>, broadcast::Receiver<StoredFlow>) {
        let inner = self.lock();
        let live = self.live.subscribe();
        let skip = inner.records.len().saturating_sub(limit);
        (inner.records.iter().skip(skip).cloned().collect(), live)
    }

    /// The newest events in the lives of units, oldest first.
    #[must_use]
    pub fn pu_events(&self) -> Vec<PuRecord> {
        self.lock().pus.iter().cloned().collect()
    }

    /// How many records were taken since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lock().sequence
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the queues whole, so a poisoned lock holds good data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for FlowStore {
    fn flow(&self, record: &FlowRecord) {
        let mut inner = self.lock();
        inner.sequence = inner.sequence.saturating_add(1);
        let stored = StoredFlow { sequence: inner.sequence, record: Arc::new(record.clone()) };
        if inner.records.len() >= self.capacity {
            inner.records.pop_front();
        }
        inner.records.push_back(stored.clone());
        // No follower is no error; sent under the lock so that `follow` sees each record once.
        drop(self.live.send(stored));
    }

    fn pu(&self, record: &PuRecord) {
        let mut inner = self.lock();
        if inner.pus.len() >= PU_EVENTS {
            inner.pus.pop_front();
        }
        inner.pus.push_back(record.clone());
    }
}

#[cfg(test)]
mod tests;
