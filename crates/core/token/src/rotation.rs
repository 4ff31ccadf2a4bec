//! A node's own tokens and agreement keys over time.

mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_identity::time::WallTime;
use trireme_identity::{PuId, TagSet};

use crate::random::RandomSource;
use crate::{AgreementKey, Encoding, Filtered, IssueError, Signer, Token, TokenId, TokenRequest};

pub use state::StateError;

/// Retired tokens kept per processing unit: two rotations happen in one lifetime, the rest is for changed tags.
const MAX_RETIRED: usize = 4;

/// How tokens are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// JWT or CWT.
    pub encoding: Encoding,
    /// Lifetime in seconds; a new token and agreement key at half of it.
    pub lifetime_secs: u64,
}

/// A token of ours and the private key that proves it.
#[derive(Clone, Debug)]
pub struct OwnToken {
    /// What is sent.
    pub token: Token,
    /// The private half of the agreement key in it.
    pub key: Arc<AgreementKey>,
}

/// The tokens of every processing unit of this node: current ones, and retired ones that peers may still use.
#[derive(Debug)]
pub struct OwnTokens {
    settings: Settings,
    epoch: Epoch,
    units: BTreeMap<PuId, Unit>,
}

/// The node's agreement key in use.
#[derive(Clone, Debug)]
struct Epoch {
    key: Arc<AgreementKey>,
    began_at: WallTime,
}

#[derive(Clone, Debug)]
struct Unit {
    current: OwnToken,
    retired: Vec<Retired>,
}

#[derive(Clone, Debug)]
struct Retired {
    own: OwnToken,
    /// One lifetime after it was replaced.
    accept_until: WallTime,
}

impl OwnTokens {
    /// Starts with a new agreement key and no processing unit.
    ///
    /// # Errors
    /// [`IssueError::Crypto`] if the crypto library refuses the key.
    pub fn new(settings: Settings, now: WallTime, rng: &mut dyn RandomSource) -> Result<Self, IssueError> {
        Ok(Self { settings, epoch: Epoch::begin(now, rng)?, units: BTreeMap::new() })
    }

    /// Adds a processing unit or changes its tags; gives the token to send from now on.
    ///
    /// Unchanged tags keep the token; changed ones replace it at once, with the same agreement key.
    ///
    /// # Errors
    /// [`IssueError`] of the new token; the old one then stays.
    pub fn upsert(
        &mut self,
        signer: &Signer,
        subject: &PuId,
        identity: &Filtered,
        now: WallTime,
    ) -> Result<&OwnToken, IssueError> {
        let kept = self.units.get(subject).is_some_and(|unit| unit.says(signer, identity, now));
        if !kept {
            let fresh = self.issue(signer, subject, &identity.tags, identity.partial, &self.epoch, now)?;
            self.replace(subject, fresh, now);
        }
        self.current(subject).ok_or(IssueError::Crypto)
    }

    /// Forgets a processing unit and its keys' tokens.
    pub fn remove(&mut self, subject: &PuId) {
        self.units.remove(subject);
    }

    /// The token to send.
    #[must_use]
    pub fn current(&self, subject: &PuId) -> Option<&OwnToken> {
        self.units.get(subject).map(|unit| &unit.current)
    }

    /// The tokens that peers may name: the current one and the one that it replaced, newest first.
    pub fn accepted(&self, subject: &PuId, now: WallTime) -> impl Iterator<Item = &OwnToken> {
        self.current(subject).into_iter().chain(self.previous(subject, now))
    }

    /// The token that the current one replaced, while peers may still use it.
    #[must_use]
    pub fn previous(&self, subject: &PuId, now: WallTime) -> Option<&OwnToken> {
        let last = self.units.get(subject)?.retired.last()?;
        (now <= last.accept_until).then_some(&last.own)
    }

    /// The current token and, while it holds and may still be shown, the one that it replaced: of an older agreement key.
    /// Newest first.
    ///
    /// A token that was replaced because its tags changed, or that another signing key made, is not shown again.
    #[must_use]
    pub fn usable(&self, subject: &PuId, now: WallTime) -> Vec<&OwnToken> {
        let Some(current) = self.current(subject) else { return Vec::new() };
        let previous = self.previous(subject, now).filter(|previous| {
            let (old, new) = (&previous.token.claims, &current.token.claims);
            old.agreement != new.agreement && (&old.issuer, old.signer) == (&new.issuer, new.signer)
        });
        std::iter::once(current).chain(previous).filter(|own| now < own.token.claims.expires_at).collect()
    }

    /// Finds the token of ours that a peer names, current or retired.
    #[must_use]
    pub fn find(&self, id: &TokenId, now: WallTime) -> Option<&OwnToken> {
        self.units.values().find_map(|unit| unit.find(id, now))
    }

    /// When the next [`rotate`](Self::rotate) is due: half a lifetime after the last.
    #[must_use]
    pub const fn due_at(&self) -> WallTime {
        self.epoch.began_at.plus_secs(self.settings.lifetime_secs / 2)
    }

    /// Begins a new agreement key and re-issues every token; all or nothing.
    ///
    /// # Errors
    /// The first [`IssueError`]; everything then stays as it was.
    pub fn rotate(
        &mut self,
        signer: &Signer,
        now: WallTime,
        rng: &mut dyn RandomSource,
    ) -> Result<(), IssueError> {
        let epoch = Epoch::begin(now, rng)?;
        let fresh: Vec<(PuId, OwnToken)> = self
            .units
            .iter()
            .map(|(subject, unit)| {
                let claims = &unit.current.token.claims;
                let fresh = self.issue(signer, subject, &claims.tags, claims.partial, &epoch, now)?;
                Ok((subject.clone(), fresh))
            })
            .collect::<Result<_, IssueError>>()?;
        self.epoch = epoch;
        for (subject, own) in fresh {
            self.replace(&subject, own, now);
        }
        Ok(())
    }

    /// Changes how tokens are made from the next one on.
    pub const fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    fn issue(
        &self,
        signer: &Signer,
        subject: &PuId,
        tags: &TagSet,
        partial: bool,
        epoch: &Epoch,
        now: WallTime,
    ) -> Result<OwnToken, IssueError> {
        let request = TokenRequest {
            subject: subject.clone(),
            tags: tags.clone(),
            partial,
            agreement: epoch.key.public(),
            issued_at: now,
            lifetime_secs: self.settings.lifetime_secs,
        };
        Ok(OwnToken { token: signer.issue(&request, self.settings.encoding)?, key: Arc::clone(&epoch.key) })
    }

    fn replace(&mut self, subject: &PuId, fresh: OwnToken, now: WallTime) {
        let Some(unit) = self.units.get_mut(subject) else {
            self.units.insert(subject.clone(), Unit { current: fresh, retired: Vec::new() });
            return;
        };
        let own = std::mem::replace(&mut unit.current, fresh);
        unit.retired.retain(|retired| now <= retired.accept_until);
        unit.retired.push(Retired { own, accept_until: now.plus_secs(self.settings.lifetime_secs) });
        let surplus = unit.retired.len().saturating_sub(MAX_RETIRED);
        unit.retired.drain(..surplus);
    }
}

impl Epoch {
    fn begin(now: WallTime, rng: &mut dyn RandomSource) -> Result<Self, IssueError> {
        let key = AgreementKey::generate(rng).map_err(|_| IssueError::Crypto)?;
        Ok(Self { key: Arc::new(key), began_at: now })
    }
}

impl Unit {
    /// Whether the current token says the same, by the same key and credential, and still holds.
    fn says(&self, signer: &Signer, identity: &Filtered, now: WallTime) -> bool {
        let claims = &self.current.token.claims;
        claims.tags == identity.tags
            && claims.partial == identity.partial
            && claims.issuer == *signer.node()
            && claims.signer == signer.key_id()
            && *self.current.token.credential == *signer.credential()
            && now < claims.expires_at
    }

    fn find(&self, id: &TokenId, now: WallTime) -> Option<&OwnToken> {
        if self.current.token.id == *id {
            return Some(&self.current);
        }
        let retired = self.retired.iter().find(|retired| retired.own.token.id == *id)?;
        (now <= retired.accept_until).then_some(&retired.own)
    }
}

#[cfg(test)]
mod tests;
