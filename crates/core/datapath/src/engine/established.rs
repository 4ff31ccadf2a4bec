//! Live connections after a change: judge them again.

use std::sync::Arc;

use trireme_flow::{ConnectionClass, ConnectionEntry, HalfOpenKey, Reason};
use trireme_identity::Direction;
use trireme_token::{Role, Verified};

use super::refuse::Refused;
use super::teach::verdict_of;
use super::{Context, Engine, authorize};
use crate::{Effect, Hook, OnPolicyChange};

impl Engine {
    /// Makes sure that an entry was judged in the unit's present epoch; a connection that is no longer allowed ends.
    pub(super) fn current<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        hook: Hook,
        entry: ConnectionEntry,
    ) -> Result<ConnectionEntry, Box<Refused>> {
        if entry.epoch == cx.unit.epoch {
            return Ok(entry);
        }
        let key = self.kept(cx, &entry);
        if let Err(refused) = self.judge_again(cx, &entry) {
            self.handshakes.remove(&key);
            self.held.take(key);
            self.flows.remove(&cx.key);
            cx.out.push(Effect::Remove(cx.key));
            return Err(refused);
        }
        let heard = entry.role == Role::Initiator && hook == Hook::ToPu;
        let entry = ConnectionEntry { epoch: cx.unit.epoch, confirmed: entry.confirmed || heard, ..entry };
        if let Some(handshake) = self.handshakes.get_mut(&key) {
            handshake.entry = Some(entry);
            handshake.epoch = entry.epoch;
        }
        cx.out.push(Effect::Install(cx.key, entry));
        self.count(cx.slot, Reason::Reauthorized);
        Ok(entry)
    }

    fn kept<V>(&self, cx: &Context<'_, V>, entry: &ConnectionEntry) -> HalfOpenKey {
        HalfOpenKey { flow: cx.key, role: entry.role, isn: entry.proof_seq.wrapping_sub(1) }
    }

    fn judge_again<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        entry: &ConnectionEntry,
    ) -> Result<(), Box<Refused>> {
        let direction = match entry.role {
            Role::Initiator => Direction::Egress,
            Role::Responder => Direction::Ingress,
        };
        let keep = cx.unit.settings.on_policy_change == OnPolicyChange::Keep;
        match entry.class {
            ConnectionClass::Adopted => Ok(()),
            ConnectionClass::Address if keep => Ok(()),
            ConnectionClass::Address => {
                authorize::address(&cx.unit, direction, cx.key).map(drop).map_err(changed)
            }
            ConnectionClass::Identity => match self.judge_peer_again(cx, direction, entry) {
                Err(refused) if keep && refused.reason == Reason::PolicyChanged => Ok(()),
                judged => judged,
            },
        }
    }

    /// Revocation ends a connection whatever the settings say.
    fn judge_peer_again<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        direction: Direction,
        entry: &ConnectionEntry,
    ) -> Result<(), Box<Refused>> {
        let Some(peer) = self.peer_of_entry(cx, entry) else {
            // Without its claims nobody can tell whether it is on the deny list.
            let keep = cx.unit.settings.on_policy_change == OnPolicyChange::Keep;
            let spared = keep && self.secrets.verifier.deny_list().is_empty();
            return if spared { Ok(()) } else { Err(Refused::new(direction, Reason::PeerForgotten)) };
        };
        if self.is_revoked(&peer) {
            return Err(Refused::new(direction, Reason::TokenRevoked).with_peer(&peer));
        }
        let port = match entry.role {
            Role::Responder => cx.key.local.1,
            Role::Initiator => entry.attested.map_or(cx.key.remote.1, |(_, port)| port),
        };
        let judged = authorize::peer(&cx.unit, direction, cx.key, &peer, port);
        let place = (entry.peer_slot, entry.peer_generation);
        if self.peers.place_of(&peer.id) == Some(place) {
            self.teach_verdict(cx, direction, place, port, verdict_of(&judged));
        }
        judged.map(drop).map_err(changed)
    }

    /// The peer of a live connection: from its place in the peer table, or by its token.
    pub(super) fn peer_of_entry<V>(
        &mut self,
        cx: &Context<'_, V>,
        entry: &ConnectionEntry,
    ) -> Option<Arc<Verified>> {
        let placed = self.peers.at(entry.peer_slot, entry.peer_generation, &self.secrets.verifier);
        placed
            .filter(|peer| peer.id == entry.peer_token)
            .or_else(|| self.tokens.fetch(&entry.peer_token, cx.now.wall))
    }
}

/// Says that the connection was allowed before.
fn changed(mut refused: Box<Refused>) -> Box<Refused> {
    refused.reason = Reason::PolicyChanged;
    refused
}
