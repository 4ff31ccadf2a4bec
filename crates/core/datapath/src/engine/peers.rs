//! Peers that have shown a MAC: their claims, by place and generation, and which agreement key of ours they used.

use std::sync::Arc;

use trireme_flow::{Placed, SlotTable};
use trireme_identity::time::WallTime;
use trireme_token::{DenyList, Presented, TokenId, Verified, Verifier, VerifyError};

use crate::KeyName;

/// The table of peers; the places of connection entries and lessons are places in it.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(super) table: SlotTable<TokenId, Peer>,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) claims: Claims,
    pub(super) habits: Habits,
    /// Whether the secrets in force have verified the claims, or will; else they only serve to judge live connections.
    pub(super) trusted: bool,
}

/// What a peer says about itself.
#[derive(Debug)]
pub(crate) enum Claims {
    Verified(Arc<Verified>),
    /// From an earlier engine: its signature is checked when it is needed, as of a time at which it was accepted.
    Stored {
        presented: Presented,
        as_of: WallTime,
    },
}

/// Which agreement keys of ours a peer's node knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// The one that worked last.
    pub(crate) own_key: Option<KeyName>,
    /// The newest one that was tried.
    pub(crate) tried_key: Option<KeyName>,
}

impl Peers {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { table: SlotTable::new(capacity) }
    }

    /// Begins with generations that no earlier engine gave.
    pub(crate) fn begin_at(&mut self, now: WallTime) {
        self.table.begin_at(u32::try_from(now.0).unwrap_or(u32::MAX));
    }

    /// Stores a peer's claims; it keeps its place and habits while it stays.
    pub(crate) fn remember(&mut self, peer: &Arc<Verified>) -> Placed<TokenId> {
        let claims = Claims::Verified(Arc::clone(peer));
        if let Some((place, generation)) = self.table.find(&peer.id)
            && let Some(known) = self.table.get(place, generation)
        {
            known.claims = claims;
            known.trusted = true;
            return Placed { place, generation, evicted: None };
        }
        self.table.insert(peer.id, Peer { claims, habits: Habits::default(), trusted: true })
    }

    /// The peer at this place.
    pub(crate) fn at(&mut self, place: u32, generation: u32, verifier: &Verifier) -> Option<Arc<Verified>> {
        self.table.get(place, generation)?.verified(verifier)
    }

    /// The peer with this token, if it still counts.
    pub(crate) fn trusted(
        &mut self,
        token: &TokenId,
        now: WallTime,
        verifier: &Verifier,
    ) -> Option<Arc<Verified>> {
        let (place, generation) = self.table.find(token)?;
        let peer = self.table.get(place, generation).filter(|peer| peer.trusted)?;
        peer.verified(verifier).filter(|peer| peer.is_valid_at(now))
    }

    /// From now on the claims serve to judge live connections only; returns the tokens.
    pub(crate) fn distrust(&mut self) -> Vec<TokenId> {
        self.table.values_mut().for_each(|peer| peer.trusted = false);
        self.table.iter().map(|(_, _, token, _)| *token).collect()
    }

    pub(crate) fn place_of(&self, token: &TokenId) -> Option<(u32, u32)> {
        self.table.find(token)
    }

    pub(crate) fn habits(&mut self, token: &TokenId) -> Option<&mut Habits> {
        let (place, generation) = self.table.find(token)?;
        self.table.get(place, generation).map(|peer| &mut peer.habits)
    }

    /// The peers that a deny list names. They stay: live connections are judged by their claims.
    pub(crate) fn denied(&self, deny: &DenyList, verifier: &Verifier) -> Vec<TokenId> {
        let is_denied = |token: &TokenId, peer: &Peer| match &peer.claims {
            Claims::Verified(peer) => deny.denies(token, &peer.key, &peer.claims.issuer).is_some(),
            Claims::Stored { presented: Presented { token, credential }, .. } => {
                matches!(verifier.cheap_check(token, credential), Err(VerifyError::Revoked(_)))
            }
        };
        self.table
            .iter()
            .filter(|(_, _, token, peer)| is_denied(token, peer))
            .map(|(_, _, t, _)| *t)
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Peer {
    /// The claims, checked now if they were not yet.
    fn verified(&mut self, verifier: &Verifier) -> Option<Arc<Verified>> {
        if let Claims::Stored { presented: Presented { token, credential }, as_of } = &self.claims {
            let verified = verifier.verify(token, credential, *as_of).ok()?;
            self.claims = Claims::Verified(Arc::new(verified));
        }
        match &self.claims {
            Claims::Verified(peer) => Some(Arc::clone(peer)),
            Claims::Stored { .. } => None,
        }
    }
}
