//! Which unit has which slot and epoch, over restarts.
//!
//! An epoch says under which policy, identity and settings a connection was authorized. A restart that finds them
//! unchanged keeps the epoch, and established connections go on untouched; anything else gets the next one, and
//! every live connection is judged again at its next packet.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use tracing::warn;
use trireme_identity::PuId;
use trireme_token::{DenyList, KeyId};

use crate::datapath::supervisor::Pinned;
use crate::state::{StateDir, StateError};
use crate::{Enforcement, controller};

/// Where it is kept.
pub(super) const FILE: &str = "units.json";

/// What is remembered about one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) slot: u32,
    pub(super) epoch: u32,
    /// Connections older than the unit's enforcement that were let go on.
    #[serde(default)]
    pub(super) adopted: u64,
    /// Signing key, deny list, policy, identity and settings in one text.
    content: String,
}

/// What every unit's connections rest on beside the unit itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis<'a> {
    pub(super) key: KeyId,
    pub(super) denied: &'a DenyList,
}

/// The remembered units.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    lines: BTreeMap<PuId, Entry>,
    /// The last epochs of slots that are free: what the kernel still holds of them must not count for another unit.
    retired: BTreeMap<u32, u32>,
    /// No new unit's epoch is below.
    #[serde(default)]
    floor: u32,
}

impl Ledger {
    /// Reads the ledger; a damaged one is started anew: every connection is judged again then.
    pub(super) fn load(state: &StateDir) -> Result<Self, StateError> {
        let Some(bytes) = state.read(FILE)? else { return Ok(Self::default()) };
        if let Ok(ledger) = serde_json::from_slice(&bytes) {
            return Ok(ledger);
        }
        // As earlier versions wrote it.
        match serde_json::from_slice(&bytes) {
            Ok(lines) => Ok(Self { lines, ..Self::default() }),
            Err(error) => {
                warn!(%error, file = FILE, "damaged, started anew: every connection is judged again");
                let floor = u32::try_from(controller::wall_time().0).unwrap_or(u32::MAX / 2);
                Ok(Self { floor, ..Self::default() })
            }
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // A map of plain values can always be written.
        serde_json::to_vec_pretty(&self).unwrap_or_default()
    }

    /// The line of a unit as it is to be enforced.
    pub(super) fn enter(&self, unit: &Enforcement, basis: &Basis<'_>, kernel: &Pinned) -> Entry {
        let content = content(unit, basis);
        let Some(known) = self.lines.get(unit.id()) else {
            let found = kernel.here.filter(|slot| self.lines.values().all(|line| line.slot != *slot));
            let slot = found.unwrap_or_else(|| self.free_slot(&kernel.epochs));
            let last = [kernel.epochs.get(&slot), self.retired.get(&slot), Some(&self.floor)];
            let epoch = last.into_iter().flatten().max().map_or(1, |last| last.wrapping_add(1).max(1));
            return Entry { slot, epoch, adopted: 0, content };
        };
        let in_kernel = kernel.epochs.get(&known.slot).copied();
        let same = known.content == content && in_kernel.is_none_or(|epoch| epoch == known.epoch);
        let newest = in_kernel.unwrap_or(0).max(known.epoch);
        let epoch = if same { known.epoch } else { newest.wrapping_add(1).max(1) };
        Entry { slot: known.slot, epoch, adopted: known.adopted, content }
    }

    /// The line of a unit whose connections are judged anew although nothing about it changed.
    pub(super) fn renew(&self, unit: &Enforcement, basis: &Basis<'_>) -> Option<Entry> {
        let known = self.lines.get(unit.id())?;
        let epoch = known.epoch.wrapping_add(1).max(1);
        Some(Entry { epoch, content: content(unit, basis), ..known.clone() })
    }

    pub(super) fn insert(&mut self, id: PuId, line: Entry) {
        self.retired.remove(&line.slot);
        self.lines.insert(id, line);
    }

    pub(super) fn remove(&mut self, id: &PuId) {
        if let Some(line) = self.lines.remove(id) {
            self.retired.insert(line.slot, line.epoch);
        }
    }

    /// Makes every unit's next epoch a new one.
    pub(super) fn invalidate(&mut self) {
        for line in self.lines.values_mut() {
            line.content.clear();
        }
    }

    pub(super) fn line(&self, id: &PuId) -> Option<&Entry> {
        self.lines.get(id)
    }

    pub(super) fn adopted(&mut self, id: &PuId, count: u64) {
        if let Some(line) = self.lines.get_mut(id) {
            line.adopted = line.adopted.saturating_add(count);
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &PuId> {
        self.lines.keys()
    }

    fn free_slot(&self, pinned: &BTreeMap<u32, u32>) -> u32 {
        let taken =
            |slot: &u32| self.lines.values().any(|line| line.slot == *slot) || pinned.contains_key(slot);
        (0..).find(|slot| !taken(slot)).unwrap_or(u32::MAX)
    }
}

/// Everything that a connection's authorization rests on. Stable for one build of the program, which is enough:
/// after an upgrade connections are judged again.
fn content(unit: &Enforcement, basis: &Basis<'_>) -> String {
    let digest: String = unit.policy.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let Basis { key, denied } = basis;
    let mut hasher = DefaultHasher::new();
    format!("{denied:?}").hash(&mut hasher);
    format!("{key} {:016x} {digest} {} {:?}", hasher.finish(), unit.identity, unit.settings.tcp)
}

#[cfg(test)]
mod tests;
