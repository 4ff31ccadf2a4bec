//! What the engine teaches, written into the tables of the programs.

use trireme_bpf::{Plane, PlaneError};
use trireme_datapath::Lesson;

use super::convert;
use super::convert::fast::{self, Judgement};

/// Writes one fact. A unit's own tokens are not one: they belong to its state, which the caller has.
pub(super) fn write(plane: &mut Plane, lesson: &Lesson) -> Result<(), PlaneError> {
    match lesson {
        Lesson::OwnTokens { .. } => Ok(()),
        Lesson::Peer { token, slot, generation, until, key, own_key } => {
            plane.peer_insert(&token.0, &fast::peer((*slot, *generation), *until, *key, *own_key))
        }
        Lesson::ForgetPeer(token) => plane.peer_remove(&token.0).map(drop),
        Lesson::Pair { own, peer, role, keys } => {
            plane.pair_insert(&own.0, &peer.0, fast::role(*role), &fast::pair(keys))
        }
        Lesson::Verdict { pu, direction, peer_slot, generation, port, epoch, rule, reason } => {
            let judgement = Judgement { epoch: *epoch, rule: *rule, reason: *reason };
            plane.verdict_insert(&fast::verdict(*pu, *direction, (*peer_slot, *generation), *port, judgement))
        }
        Lesson::Destination { pu, remote, epoch, peer } => {
            let peer = peer.map(|(peer, own)| (peer.0, own.0));
            plane.destination_insert(convert::slot(*pu), *remote, *epoch, peer)
        }
        Lesson::ForgetDestination { pu, remote } => {
            plane.destination_remove(convert::slot(*pu), *remote).map(drop)
        }
        Lesson::Refusal { pu, port, token, epoch, rule, reason, until, slot, generation } => {
            let judgement = Judgement { epoch: *epoch, rule: *rule, reason: *reason };
            let refusal = fast::refusal(*pu, *port, (*token, *until), (*slot, *generation), judgement);
            plane.refusal_insert(&refusal)
        }
    }
}
