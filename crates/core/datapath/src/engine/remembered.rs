//! Peers and counters over a restart: what a back end holds names places in the peer table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use trireme_flow::{PuSlot, Reason};
use trireme_identity::time::{Now, WallTime};
use trireme_token::{Presented, TokenId};

use super::Engine;
use super::peers::{Claims, Habits, Peer};
use crate::KeyName;

/// Why kept peers cannot be used; go on without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// Not what `Engine::export_peers` wrote.
    #[error("the kept peers are damaged")]
    Damaged,
}

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u8,
    peers: Vec<PeerState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerState {
    id: String,
    slot: u32,
    generation: u32,
    token: String,
    credential: String,
    valid_until: WallTime,
    own_key: Option<String>,
}

impl Engine {
    /// Writes the peers whose claims are remembered, with their places.
    ///
    /// There is no secret in it, but there are peers' tags.
    ///
    /// # Errors
    /// [`PeersError`] if they cannot be written.
    pub fn export_peers(&self) -> Result<Vec<u8>, PeersError> {
        let peers =
            self.peers.table.iter().filter(|(.., peer)| peer.trusted).map(|(slot, generation, id, peer)| {
                let (Presented { token, credential }, valid_until) = match &peer.claims {
                    Claims::Verified(peer) => (&peer.presented, peer.valid_until),
                    Claims::Stored { presented, as_of } => (presented, *as_of),
                };
                PeerState {
                    id: URL_SAFE_NO_PAD.encode(id.0),
                    slot,
                    generation,
                    token: URL_SAFE_NO_PAD.encode(token),
                    credential: URL_SAFE_NO_PAD.encode(credential),
                    valid_until,
                    own_key: peer.habits.own_key.map(|key| URL_SAFE_NO_PAD.encode(key.0)),
                }
            });
        let state = State { version: VERSION, peers: peers.collect() };
        serde_json::to_vec(&state).map_err(|_| PeersError::Damaged)
    }

    /// Goes on with the peers that an earlier engine exported, at their places; to be called before the first unit is
    /// taken on. Returns how many there are.
    ///
    /// Their signatures are checked when they are first needed, under the secrets in force.
    ///
    /// # Errors
    /// [`PeersError`] if they are damaged; none is taken then.
    pub fn import_peers(&mut self, state: &[u8], now: Now) -> Result<usize, PeersError> {
        let state: State = serde_json::from_slice(state).map_err(|_| PeersError::Damaged)?;
        if state.version != VERSION {
            return Err(PeersError::Damaged);
        }
        let restored: Vec<_> =
            state.peers.into_iter().map(|peer| peer.restore(now.wall)).collect::<Result<_, _>>()?;
        let count = restored
            .into_iter()
            .filter_map(|(id, slot, generation, peer)| {
                self.peers.table.restore(id, peer, slot, generation).then_some(())
            })
            .count();
        Ok(count)
    }

    /// Takes note of places and generations that a back end's tables still name: no other peer gets them.
    pub fn reserve_peers(&mut self, held: impl IntoIterator<Item = (u32, u32)>) {
        for (place, generation) in held {
            self.peers.table.reserve(place, generation);
        }
    }

    /// Whether this peer is remembered at this place; a back end forgets a peer that is not.
    #[must_use]
    pub fn knows_peer(&self, token: &TokenId, place: u32, generation: u32) -> bool {
        self.peers.place_of(token) == Some((place, generation))
    }

    /// Adds to the counters by reason, so that they go on where those of an earlier engine stopped.
    pub fn import_counters(&mut self, counters: impl IntoIterator<Item = (PuSlot, Reason, u64)>) {
        for (slot, reason, count) in counters {
            let counter = self.counters.entry((slot, reason)).or_insert(0);
            *counter = counter.saturating_add(count);
        }
    }
}

impl PeerState {
    fn restore(self, now: WallTime) -> Result<(TokenId, u32, u32, Peer), PeersError> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| PeersError::Damaged);
        let name = |text: &str| <[u8; 16]>::try_from(decode(text)?).map_err(|_| PeersError::Damaged);
        let presented =
            Presented { token: decode(&self.token)?.into(), credential: decode(&self.credential)?.into() };
        let own_key = self.own_key.as_deref().map(name).transpose()?.map(KeyName);
        let peer = Peer {
            claims: Claims::Stored { presented, as_of: self.valid_until.min(now) },
            habits: Habits { own_key, tried_key: None },
            trusted: true,
        };
        Ok((TokenId(name(&self.id)?), self.slot, self.generation, peer))
    }
}
