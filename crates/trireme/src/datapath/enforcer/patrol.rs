//! Looks after the edges: what others removed is put back.

use tracing::{debug, error, info, warn};
use trireme_identity::PuId;

use super::{Loop, now};
use crate::controller;
use crate::datapath::supervisor::{Line, Repaired, Supervisor};
use crate::{PuChange, PuRecord};

impl<S: Supervisor> Loop<S> {
    /// Closes again what was opened by deleting an interface and making it anew, and what somebody else's hands did to
    /// what catches packets.
    pub(super) fn patrol(&mut self) {
        let found = self.supervisor.patrol();
        for held in self.units.values_mut() {
            held.vanished = found.vanished.contains(&held.slot);
            held.damaged = None;
        }
        let gone: Vec<PuId> =
            self.units.iter().filter(|(_, held)| held.vanished).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.attach_again(&id);
        }
        for repair in &found.repairs {
            self.repaired(repair);
        }
    }

    fn attach_again(&mut self, id: &PuId) {
        let Some(held) = self.units.get_mut(id) else { return };
        let wanted = &held.unit.pu.edge;
        let place = match S::find(wanted) {
            Ok(place) => place,
            // Status shows it as gone.
            Err(error) => {
                return debug!(workload = %id, error = controller::chain(&*error), "edge is gone");
            }
        };
        let at = Line { slot: held.slot, epoch: held.epoch, place: &place, known: true, in_place: false };
        match self.supervisor.supervise(&held.unit, &at) {
            Ok(()) => {
                info!(workload = %id, edge = %wanted, "enforced again: its interface is back");
                held.place = place;
                held.vanished = false;
            }
            Err(error) => warn!(workload = %id, error = controller::chain(&*error), "not enforced"),
        }
    }

    fn repaired(&mut self, Repaired { slot, found, problem }: &Repaired) {
        let Some((id, held)) = self.units.iter_mut().find(|(_, held)| held.slot == *slot) else { return };
        match problem {
            None => {
                warn!(workload = %id, found, "repaired: somebody else changed its edge");
                let at = now().wall;
                held.repairs = held.repairs.saturating_add(1);
                held.last_repair = Some((at, found.clone()));
                let tags = held.unit.identity.clone();
                let change = PuChange::Repaired;
                let error = Some(found.clone());
                self.collector.pu(&PuRecord { pu: id.clone(), change, at, tags, error });
            }
            Some(problem) => {
                error!(workload = %id, found, error = problem, "its edge cannot be repaired");
                held.damaged =
                    Some(format!("{found} by somebody else, and it cannot be put back: {problem}"));
            }
        }
    }
}
