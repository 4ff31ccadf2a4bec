//! A unit as the thread holds it.

use trireme_datapath::{Essential, PuSettings, PuSpec};
use trireme_flow::PuSlot;
use trireme_identity::PuKind;
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
        settings: settings(unit),
    }
}

/// Whoever shares the host's addresses must not reach its neighbours as if they were itself, and may need a lease; whoever has
/// addresses of its own is given them.
fn settings(unit: &Enforcement) -> PuSettings {
    let (to_itself, dhcp) = match unit.pu.runtime.kind {
        PuKind::Container | PuKind::Pod | PuKind::Static => (Essential::Passes, Essential::Judged),
        PuKind::Process | PuKind::Host | PuKind::User => (Essential::Judged, Essential::Passes),
        PuKind::Other(_) => (Essential::Judged, Essential::Judged),
    };
    let other_protocols = unit.settings.other_protocols.into();
    PuSettings { other_protocols, to_itself, dhcp, ..unit.settings.tcp.clone() }
}
