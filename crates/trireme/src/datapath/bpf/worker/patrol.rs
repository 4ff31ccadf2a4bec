//! What the thread does from time to time, unasked.

use tracing::{debug, info, warn};
use trireme_identity::PuId;

use super::super::{convert, edge};
use super::{Loop, sweep_limits};
use crate::controller;

impl Loop {
    /// Closes again what was opened by deleting an interface and making it anew.
    pub(super) fn patrol(&mut self) {
        let vanished = self.plane.vanished();
        let units: Vec<PuId> = self
            .units
            .iter()
            .filter(|(_, slot)| vanished.contains(&convert::slot(**slot)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in units {
            self.attach_again(&id);
        }
    }

    fn attach_again(&mut self, id: &PuId) {
        let (Some(slot), Some((edge, state))) = (self.units.get(id).copied(), self.edges.get(id).cloned())
        else {
            return;
        };
        match edge::find(&edge) {
            Ok(place) => match self.attach(&place, convert::slot(slot), state) {
                Ok(()) => info!(workload = %id, %edge, "enforced again: its interface is back"),
                Err(error) => warn!(workload = %id, error = controller::chain(&*error), "not enforced"),
            },
            // Status shows it as gone.
            Err(error) => debug!(workload = %id, error = controller::chain(&error), "edge is gone"),
        }
    }

    pub(super) fn keep_house(&mut self) {
        if let Err(error) = self.plane.sweep(&sweep_limits()) {
            warn!(%error, "dead connections not removed");
        }
        if let Err(error) = self.save() {
            warn!(error = controller::chain(&error), "state not saved");
        }
    }
}
