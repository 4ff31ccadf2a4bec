//! Which unit has which slot and epoch, over restarts.
//!
//! An epoch says under which policy, identity and settings a connection was authorized. A restart that finds them
//! unchanged keeps the epoch, and established connections go on untouched; anything else gets the next one, and
//! every live connection is judged again at its next packet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing::warn;
use trireme_identity::PuId;
use trireme_token::KeyId;

use crate::Enforcement;
use crate::state::{StateDir, StateError};

const FILE: &str = "units.json";

/// What is remembered about one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) slot: u32,
    pub(super) epoch: u32,
    /// Signing key, policy, identity and settings in one text.
    content: String,
}

/// The remembered units.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: BTreeMap<PuId, Line>,
}

impl Ledger {
    /// Reads the ledger; a damaged one is started anew: every connection is judged again then.
    pub(super) fn load(state: &StateDir) -> Result<Self, StateError> {
        let Some(bytes) = state.read(FILE)? else { return Ok(Self::default()) };
        match serde_json::from_slice(&bytes) {
            Ok(lines) => Ok(Self { lines }),
            Err(error) => {
                warn!(%error, file = FILE, "damaged, started anew: every connection is judged again");
                Ok(Self::default())
            }
        }
    }

    pub(super) fn save(&self, state: &StateDir) -> Result<(), StateError> {
        // A map of plain values can always be written.
        let bytes = serde_json::to_vec_pretty(&self.lines).unwrap_or_default();
        state.write(FILE, &bytes)
    }

    /// The line of a unit as it is to be enforced; `pinned` tells the epochs that slots have in the kernel.
    pub(super) fn enter(&self, unit: &Enforcement, key: &KeyId, pinned: &BTreeMap<u32, u32>) -> Line {
        let content = content(unit, key);
        let Some(known) = self.lines.get(unit.id()) else {
            let slot = self.free_slot(pinned);
            return Line { slot, epoch: 1, content };
        };
        let in_kernel = pinned.get(&known.slot).copied();
        let same = known.content == content && in_kernel.is_none_or(|epoch| epoch == known.epoch);
        let newest = in_kernel.unwrap_or(0).max(known.epoch);
        let epoch = if same { known.epoch } else { newest.wrapping_add(1).max(1) };
        Line { slot: known.slot, epoch, content }
    }

    pub(super) fn insert(&mut self, id: PuId, line: Line) {
        self.lines.insert(id, line);
    }

    pub(super) fn remove(&mut self, id: &PuId) -> Option<Line> {
        self.lines.remove(id)
    }

    /// Makes every unit's next epoch a new one.
    pub(super) fn invalidate(&mut self) {
        for line in self.lines.values_mut() {
            line.content.clear();
        }
    }

    pub(super) fn slot_of(&self, id: &PuId) -> Option<u32> {
        self.lines.get(id).map(|line| line.slot)
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
fn content(unit: &Enforcement, key: &KeyId) -> String {
    let digest: String = unit.policy.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{key} {digest} {} {:?}", unit.identity, unit.settings.tcp)
}

#[cfg(test)]
mod tests;
