//! Verified tokens, kept so that a signature is paid for once.

use std::num::NonZeroUsize;
use std::sync::Arc;

use trireme_identity::time::WallTime;

use crate::lru::Lru;
use crate::{DenyList, TokenId, Verified};

/// Verified tokens by id: fixed capacity, least recently used goes first.
///
/// Only what a [`Verifier`](crate::Verifier) accepted can be in it, so an outsider cannot fill it.
#[derive(Debug)]
pub struct TokenCache {
    entries: Lru<TokenId, Arc<Verified>>,
}

impl TokenCache {
    /// An empty cache for `capacity` tokens.
    #[must_use]
    pub const fn new(capacity: NonZeroUsize) -> Self {
        Self { entries: Lru::new(capacity) }
    }

    /// Keeps a token; gives back the id of the one that had to go.
    pub fn insert(&mut self, verified: Arc<Verified>) -> Option<TokenId> {
        self.entries.insert(verified.id, verified)
    }

    /// Finds a token that is still valid at `now`; an ended one is removed.
    pub fn fetch(&mut self, id: &TokenId, now: WallTime) -> Option<Arc<Verified>> {
        let verified = Arc::clone(self.entries.touch(id)?);
        if verified.is_valid_at(now) {
            return Some(verified);
        }
        self.entries.remove(id);
        None
    }

    /// Forgets a token.
    pub fn remove(&mut self, id: &TokenId) -> Option<Arc<Verified>> {
        self.entries.remove(id)
    }

    /// Forgets every token that has ended; gives back their ids.
    pub fn expire(&mut self, now: WallTime) -> Vec<TokenId> {
        self.entries.remove_if(|_, verified| !verified.is_valid_at(now))
    }

    /// Forgets every token that the list refuses; gives back their ids.
    pub fn revoke(&mut self, deny: &DenyList) -> Vec<TokenId> {
        self.entries
            .remove_if(|id, verified| deny.denies(id, &verified.key, &verified.claims.issuer).is_some())
    }

    /// How many tokens are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
