//! A unit as the thread holds it.

use trireme_datapath::PuSpec;
use trireme_flow::PuSlot;
use trireme_identity::time::WallTime;

use super::ledger::Entry;
use crate::Enforcement;

/// A unit that is enforced.
pub(super) struct Held<P> {
    pub(super) slot: PuSlot,
    pub(super) epoch: u32,
    pub(super) unit: Enforcement,
    pub(super) place: P,
    /// Its interface or namespace is gone.
    pub(super) vanished: bool,
    /// What catches its packets cannot be put back.
    pub(super) damaged: Option<String>,
    pub(super) repairs: u64,
    pub(super) last_repair: Option<(WallTime, String)>,
    pub(super) adoption_error: Option<String>,
}

impl<P> Held<P> {
    pub(super) const fn new(slot: PuSlot, epoch: u32, unit: Enforcement, place: P) -> Self {
        Self {
            slot,
            epoch,
            unit,
            place,
            vanished: false,
            damaged: None,
            repairs: 0,
            last_repair: None,
            adoption_error: None,
        }
    }
}

pub(super) fn spec(unit: &Enforcement, entry: &Entry) -> PuSpec {
    PuSpec {
        slot: PuSlot(entry.slot),
        id: unit.id().clone(),
        tags: unit.identity.clone(),
        policy: std::sync::Arc::clone(&unit.policy),
        epoch: entry.epoch,
        settings: unit.settings.tcp.clone(),
    }
}
