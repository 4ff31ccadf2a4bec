//! Collectors record what happened.

mod store;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trireme_flow::FlowRecord;
use trireme_identity::time::WallTime;
use trireme_identity::{PuId, TagSet};

pub use store::{FlowStore, StoredFlow};

/// What became of a processing unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PuChange {
    /// Known, not yet enforced.
    Created,
    /// Enforced.
    Started,
    /// Policy or facts changed, still enforced.
    Updated,
    /// No longer enforced.
    Stopped,
    /// Forgotten.
    Destroyed,
    /// Could not be enforced.
    Failed,
    /// Somebody else removed or replaced the programs at its edge; they are back.
    Repaired,
}

/// One event in the life of a processing unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuRecord {
    /// The unit.
    pub pu: PuId,
    /// What became of it.
    pub change: PuChange,
    /// When.
    pub at: WallTime,
    /// Its identity at that time.
    pub tags: TagSet,
    /// Why, for [`PuChange::Failed`]; what was found, for [`PuChange::Repaired`].
    pub error: Option<String>,
}

/// A sink of flow records and unit events: memory, a database, a metrics endpoint.
///
/// Both calls come from the data path's thread and return at once: a collector that does I/O queues, and
/// counts what it drops when its queue is full. New kinds of records get a method with an empty body.
pub trait Collector: Send + Sync + 'static {
    /// Takes one aggregated flow record.
    fn flow(&self, record: &FlowRecord);

    /// Takes one event in the life of a unit.
    fn pu(&self, record: &PuRecord);
}

/// Records nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCollector;

impl Collector for NoCollector {
    fn flow(&self, _record: &FlowRecord) {}

    fn pu(&self, _record: &PuRecord) {}
}

/// Hands every record to each collector in turn.
#[derive(Clone, Default)]
pub struct Collectors(Vec<Arc<dyn Collector>>);

impl Collectors {
    /// Adds a collector.
    pub fn push(&mut self, collector: Arc<dyn Collector>) {
        self.0.push(collector);
    }
}

impl std::fmt::Debug for Collectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Collectors").field(&self.0.len()).finish()
    }
}

impl Collector for Collectors {
    fn flow(&self, record: &FlowRecord) {
        for collector in &self.0 {
            collector.flow(record);
        }
    }

    fn pu(&self, record: &PuRecord) {
        for collector in &self.0 {
            collector.pu(record);
        }
    }
}
