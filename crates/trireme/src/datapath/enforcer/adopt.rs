//! Connections that are older than their unit's first enforcement.

use tracing::{info, warn};
use trireme_flow::FlowKey;
use trireme_identity::PuId;

use super::Loop;
use crate::datapath::supervisor::{NotInstalled, Supervisor};
use crate::{AdoptExisting, controller};

impl<S: Supervisor> Loop<S> {
    /// Lets go on what the unit had open when it was enforced for the first time: a deployment cuts nothing.
    ///
    /// The edge is closed by now, so that no connection can begin unjudged meanwhile; segments that are dropped until
    /// the table has its entry are sent again by their stacks.
    pub(super) fn adopt_existing(&mut self, id: &PuId) {
        let Some(held) = self.units.get(id) else { return };
        let mode = held.unit.policy.mode();
        if held.unit.settings.adopt_existing == AdoptExisting::Drop || mode == trireme_policy::Mode::Off {
            return;
        }
        let slot = held.slot;
        let existing = match self.supervisor.existing(slot) {
            Ok(existing) => existing,
            Err(error) => {
                let text = controller::chain(&*error);
                warn!(workload = %id, error = text, "older connections are not known: they are dropped");
                if let Some(held) = self.units.get_mut(id) {
                    held.adoption_error = Some(text);
                }
                return;
            }
        };
        let mut adopted = 0_u64;
        for (local, remote) in existing {
            let ends = (local.ip().to_canonical(), local.port(), remote.ip().to_canonical(), remote.port());
            let key = FlowKey::tcp(slot, (ends.0, ends.1), (ends.2, ends.3));
            match self.supervisor.adopt(&key) {
                Ok(()) => adopted = adopted.saturating_add(1),
                Err(NotInstalled::Full) => {
                    self.meter.table_full = self.meter.table_full.saturating_add(1);
                    warn!(workload = %id, "an older connection is dropped: the table is full");
                }
                Err(NotInstalled::Failed(error)) => {
                    warn!(workload = %id, error = controller::chain(&*error), "an older connection is dropped");
                }
            }
        }
        if adopted > 0 {
            info!(workload = %id, connections = adopted, "older connections go on, unjudged");
            self.ledger.adopted(id, adopted);
            self.unsaved.units = true;
        }
    }
}
