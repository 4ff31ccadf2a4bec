//! Handshakes and connections that the back end decided by itself become flow records.

use std::sync::Arc;

use trireme_flow::{Action, FlowEvent, FlowKey, FlowRecord, Reason, Traffic};
use trireme_identity::Direction;
use trireme_identity::time::Now;
use trireme_token::Verified;

use super::record::Scene;
use super::refuse::Refused;
use super::{Engine, authorize};
use crate::{BackendEvent, Effect, PeerPlace};

impl Engine {
    /// Counts and records what the back end decided by itself.
    pub fn handle_event(&mut self, event: &BackendEvent, now: Now, out: &mut Vec<Effect>) {
        let Some(unit) = self.units.get(&event.pu).map(Arc::clone) else { return };
        let peer = self.peer_of_event(event.peer);
        // The initiator's port is one of many.
        let (local, remote) = match event.direction {
            Direction::Ingress => ((event.local, event.port), (event.remote, 0)),
            Direction::Egress => ((event.local, 0), (event.remote, event.port)),
        };
        let key = FlowKey::new(event.pu, event.protocol, local, remote);
        let scene = Scene { unit: &unit, key, now };
        let mut about =
            Refused::new(event.direction, event.reason).with_known_peer(peer.as_ref()).with_port(event.port);
        about.decision = peer.as_ref().and_then(|peer| {
            let judged = authorize::peer(&unit, event.direction, key, peer, event.port);
            let decision = judged.unwrap_or_else(|refused| refused.decision)?;
            (decision.rule_number == event.rule).then_some(decision)
        });
        let mut emit = |engine: &mut Self, about: &Refused, action, count, kind, traffic| {
            let record = engine.record_of(&scene, about, action, None);
            let rule_number = event.rule;
            let (first_seen, last_seen) = (event.first, event.last);
            let record =
                FlowRecord { count, event: kind, traffic, rule_number, first_seen, last_seen, ..record };
            out.push(Effect::Record(record));
        };
        if event.starts > 0 {
            self.count_many(event.pu, Reason::Accepted, event.starts);
            emit(self, &about, Action::Accept, event.starts, FlowEvent::Decision, None);
        }
        if event.refused > 0 {
            self.count_many(event.pu, event.reason, event.refused);
            emit(self, &about, Action::Reject, event.refused, FlowEvent::Decision, None);
        }
        if event.ends > 0 || event.traffic != Traffic::default() {
            // Late packets of connections whose end was told before count as no end.
            emit(self, &about, Action::Accept, event.ends, FlowEvent::End, Some(event.traffic));
        }
    }

    fn peer_of_event(&mut self, place: PeerPlace) -> Option<Arc<Verified>> {
        match place {
            PeerPlace::Known(place, generation) => self.peers.at(place, generation, &self.secrets.verifier),
            PeerPlace::Refused(place, generation) => {
                self.refused.get(place, generation).map(|peer| Arc::clone(peer))
            }
            PeerPlace::None => None,
        }
    }
}
