//! Looks after the edges: what others removed is put back.

use tracing::{debug, error, info, warn};
use trireme_bpf::{Damage, Hook, Repair};
use trireme_identity::PuId;

use super::super::{convert, edge};
use super::{Loop, now};
use crate::controller;
use crate::{PuChange, PuRecord};

impl Loop {
    /// Closes again what was opened by deleting an interface and making it anew, and what somebody else's hands did to
    /// the programs.
    pub(super) fn patrol(&mut self) {
        let vanished = self.plane.vanished();
        for held in self.units.values_mut() {
            held.vanished = vanished.contains(&convert::slot(held.slot));
            held.damaged = None;
        }
        let gone: Vec<PuId> =
            self.units.iter().filter(|(_, held)| held.vanished).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.attach_again(&id);
        }
        for repair in self.plane.self_check() {
            self.repaired(&repair);
        }
    }

    fn attach_again(&mut self, id: &PuId) {
        let Some(held) = self.units.get(id) else { return };
        let (slot, state, wanted) = (held.slot, held.state, held.unit.pu.edge.clone());
        match edge::find(&wanted) {
            Ok(place) => match self.attach(&place, convert::slot(slot), state, true) {
                Ok(()) => {
                    info!(workload = %id, edge = %wanted, "enforced again: its interface is back");
                    if let Some(held) = self.units.get_mut(id) {
                        held.place = place;
                        held.vanished = false;
                    }
                }
                Err(error) => warn!(workload = %id, error = controller::chain(&*error), "not enforced"),
            },
            // Status shows it as gone.
            Err(error) => debug!(workload = %id, error = controller::chain(&error), "edge is gone"),
        }
    }

    fn repaired(&mut self, repair: &Repair) {
        let found = self.units.iter_mut().find(|(_, held)| convert::slot(held.slot) == repair.slot);
        let Some((id, held)) = found else { return };
        let text = describe(repair);
        match &repair.error {
            None => {
                warn!(workload = %id, found = text, "repaired: somebody else changed its edge");
                let at = now().wall;
                held.repairs = held.repairs.saturating_add(1);
                held.last_repair = Some((at, text.clone()));
                let tags = held.unit.identity.clone();
                let change = PuChange::Repaired;
                self.collector.pu(&PuRecord { pu: id.clone(), change, at, tags, error: Some(text) });
            }
            Some(problem) => {
                error!(workload = %id, found = text, error = problem, "its edge cannot be repaired");
                held.damaged = Some(format!("{text} by somebody else, and it cannot be put back: {problem}"));
            }
        }
    }
}

fn describe(repair: &Repair) -> String {
    let what = match repair.hook {
        Some(Hook::FromPu) => "the program for what the unit sends",
        Some(Hook::ToPu) => "the program for what goes to the unit",
        None => "its state in the table of units",
    };
    let happened = match repair.damage {
        Damage::Detached => "was removed",
        Damage::Replaced => "was replaced by another",
        Damage::Unpinned => "lost its pin",
        Damage::Forgotten => "was changed or removed",
    };
    format!("{what} {happened}")
}

#[cfg(test)]
mod tests {
    use trireme_bpf::Slot;

    use super::*;

    #[test]
    fn damage_is_told_in_a_sentence() {
        let repair = |hook, damage| Repair { slot: Slot(1), hook, damage, error: None };
        assert_eq!(
            describe(&repair(Some(Hook::ToPu), Damage::Detached)),
            "the program for what goes to the unit was removed"
        );
        assert_eq!(
            describe(&repair(None, Damage::Forgotten)),
            "its state in the table of units was changed or removed"
        );
    }
}
