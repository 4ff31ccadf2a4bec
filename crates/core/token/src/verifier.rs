//! Accepting or refusing a peer's token.

mod error;
mod trust;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aws_lc_rs::hmac;
use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, Tag, TagSet};

use crate::claims::{Algorithm, Parsed};
use crate::credential::{self, Parsed as ParsedCredential, Statement};
use crate::id::sha256;
use crate::lru::Lru;
use crate::p256::SignatureError;
use crate::{
    Claims, Constraints, DenyList, KeyId, MAX_LIFETIME_SECS, Psk, TRUST_KEY, TokenId, VerifyingKey, cwt, jwt,
};

pub use error::VerifyError;
pub use trust::{RootError, TrustRoot};

/// How far a peer's clock may be off, in seconds.
pub const LEEWAY_SECS: u64 = 60;
/// Longer tokens are refused unread.
const MAX_TOKEN_LEN: usize = 8 * 1024;
/// How many verified credentials are kept.
const CREDENTIALS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The token's name.
    pub id: TokenId,
    /// What the node signed.
    pub claims: Claims,
    /// The trust root that certified the node; `None` for a PSK and for pre-populated keys.
    pub root: Option<String>,
    /// The key that signed.
    pub key: KeyId,
    /// The signed tags and, if a root certified the node, `@trust=<root>`: what policy decides on.
    pub policy_tags: TagSet,
    /// The last second in which token and credential hold, the clock leeway included.
    pub valid_until: WallTime,
    /// How many public-key signatures were checked for it: 0 to 2.
    pub signatures_checked: u8,
    /// What it was read from.
    pub presented: Presented,
}

/// A token and its credential as they came, to be checked again after a restart.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    /// The token.
    pub token: Arc<[u8]>,
    /// The credential; empty where none was sent.
    pub credential: Arc<[u8]>,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Presented({} + {} bytes)", self.token.len(), self.credential.len())
    }
}

impl Verified {
    /// Whether token and credential still hold.
    #[must_use]
    pub fn is_valid_at(&self, now: WallTime) -> bool {
        now <= self.valid_until
    }
}

/// Nodes' public keys mean nothing to a verifier that checks tokens with a PSK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("public keys of nodes are not used with a pre-shared key")]
pub struct KeysUnused;

/// Learns and forgets the public keys of nodes that send no credential.
pub trait PublicKeyAdder {
    /// Trusts a node's key; a node may have several, for roll-over.
    ///
    /// # Errors
    /// [`KeysUnused`] if tokens are checked with a PSK.
    fn add_public_key(
        &self,
        node: NodeId,
        key: VerifyingKey,
        constraints: Constraints,
    ) -> Result<(), KeysUnused>;
    /// Forgets one key; tells whether it was known.
    fn remove_public_key(&self, key: &KeyId) -> bool;
    /// Forgets every key of a node; tells how many there were.
    fn remove_node(&self, node: &NodeId) -> usize;
}

/// Checks tokens with a PSK, or with trust roots and pre-populated keys.
///
/// Shared between threads; keys and deny list change at run time.
#[derive(Debug)]
pub struct Verifier {
    trust: Trust,
    deny: RwLock<Arc<DenyList>>,
}

#[derive(Debug)]
enum Trust {
    Psk(Psk),
    Pki(Box<Pki>),
}

#[derive(Debug)]
struct Pki {
    roots: Vec<TrustRoot>,
    keys: RwLock<BTreeMap<KeyId, Arc<Certified>>>,
    credentials: Mutex<Lru<[u8; 32], Arc<Certified>>>,
}

/// A node's key that is believed.
#[derive(Debug)]
struct Certified {
    statement: Statement,
    /// Index into the roots; `None` if pre-populated.
    root: Option<usize>,
}

impl Verifier {
    /// Trusts whoever holds the PSK.
    #[must_use]
    pub fn psk(psk: Psk) -> Self {
        Self { trust: Trust::Psk(psk), deny: RwLock::default() }
    }

    /// Trusts what the roots certify, and keys added later.
    #[must_use]
    pub fn pki(roots: Vec<TrustRoot>) -> Self {
        let pki = Pki { roots, keys: RwLock::default(), credentials: Mutex::new(Lru::new(CREDENTIALS)) };
        Self { trust: Trust::Pki(Box::new(pki)), deny: RwLock::default() }
    }

    /// Replaces the deny list; tokens checked from now on obey it.
    pub fn set_deny_list(&self, deny: DenyList) {
        *write(&self.deny) = Arc::new(deny);
    }

    /// The deny list in force.
    #[must_use]
    pub fn deny_list(&self) -> Arc<DenyList> {
        Arc::clone(&read(&self.deny))
    }

    /// Checks form, algorithm, binding and deny list without any signature or clock; gives the token's id.
    ///
    /// # Errors
    /// The [`VerifyError`] of the first check that fails.
    pub fn cheap_check(&self, token: &[u8], credential: &[u8]) -> Result<TokenId, VerifyError> {
        let parsed = self.parse(token, credential)?;
        let id = self.identify(&parsed)?;
        match &self.trust {
            Trust::Psk(psk) => check_psk_id(psk, &parsed.claims)?,
            Trust::Pki(pki) => pki.check_binding(&parsed.claims, credential)?,
        }
        Ok(id)
    }

    /// Checks everything: form, times, deny list, credential, binding, signature, constraints.
    ///
    /// # Errors
    /// The [`VerifyError`] of the first check that fails.
    pub fn verify(&self, token: &[u8], credential: &[u8], now: WallTime) -> Result<Verified, VerifyError> {
        let parsed = self.parse(token, credential)?;
        check_times(&parsed.claims, now)?;
        let id = self.identify(&parsed)?;
        let presented = Presented { token: token.into(), credential: credential.into() };
        match &self.trust {
            Trust::Psk(psk) => verify_psk(psk, id, parsed, presented),
            Trust::Pki(pki) => pki.verify(id, parsed, presented, now),
        }
    }

    /// Computes the token's id and looks it up in the deny list.
    fn identify(&self, parsed: &Parsed) -> Result<TokenId, VerifyError> {
        let id = TokenId::of(&parsed.signed);
        let Claims { signer, issuer, .. } = &parsed.claims;
        let denied = read(&self.deny).denies(&id, signer, issuer);
        denied.map_or(Ok(id), |denied| Err(VerifyError::Revoked(denied)))
    }

    fn parse(&self, token: &[u8], credential: &[u8]) -> Result<Parsed, VerifyError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(VerifyError::Malformed);
        }
        let algorithm = match &self.trust {
            Trust::Psk(_) if !credential.is_empty() => return Err(VerifyError::UnexpectedCredential),
            Trust::Psk(_) => Algorithm::Hs256,
            Trust::Pki(_) => Algorithm::Es256,
        };
        let parsed = match token.first() {
            Some(b'e') => jwt::parse(token, algorithm)?,
            Some(0xd1 | 0xd2) => cwt::parse(token, algorithm)?,
            _ => return Err(VerifyError::Malformed),
        };
        if parsed.claims.claims_reserved_tag() {
            return Err(VerifyError::ReservedTag);
        }
        let lifetime =
            parsed.claims.lifetime_secs().filter(|secs| *secs > 0).ok_or(VerifyError::Malformed)?;
        if lifetime > MAX_LIFETIME_SECS {
            return Err(VerifyError::LifetimeTooLong);
        }
        Ok(parsed)
    }
}

impl PublicKeyAdder for Verifier {
    fn add_public_key(
        &self,
        node: NodeId,
        key: VerifyingKey,
        constraints: Constraints,
    ) -> Result<(), KeysUnused> {
        let Trust::Pki(pki) = &self.trust else { return Err(KeysUnused) };
        let id = key.id();
        let statement =
            Statement { node, key, constraints, not_before: WallTime(0), not_after: WallTime(u64::MAX) };
        write(&pki.keys).insert(id, Arc::new(Certified { statement, root: None }));
        Ok(())
    }

    fn remove_public_key(&self, key: &KeyId) -> bool {
        match &self.trust {
            Trust::Psk(_) => false,
            Trust::Pki(pki) => write(&pki.keys).remove(key).is_some(),
        }
    }

    fn remove_node(&self, node: &NodeId) -> usize {
        let Trust::Pki(pki) = &self.trust else { return 0 };
        let mut keys = write(&pki.keys);
        let before = keys.len();
        keys.retain(|_, certified| certified.statement.node != *node);
        before - keys.len()
    }
}

fn verify_psk(psk: &Psk, id: TokenId, parsed: Parsed, presented: Presented) -> Result<Verified, VerifyError> {
    let Parsed { claims, signed, signature } = parsed;
    check_psk_id(psk, &claims)?;
    hmac::verify(&psk.token_mac_key(), &signed, &signature).map_err(|_| VerifyError::BadSignature)?;
    Ok(Verified {
        id,
        root: None,
        key: claims.signer,
        policy_tags: claims.tags.clone(),
        valid_until: last_second(&claims),
        claims,
        signatures_checked: 0,
        presented,
    })
}

fn check_psk_id(psk: &Psk, claims: &Claims) -> Result<(), VerifyError> {
    if claims.signer == psk.key_id() { Ok(()) } else { Err(VerifyError::UnknownKey(claims.signer)) }
}

impl Pki {
    /// Checks that the token belongs to its credential or to a known key, without any signature.
    fn check_binding(&self, claims: &Claims, credential: &[u8]) -> Result<(), VerifyError> {
        if credential.is_empty() {
            return bind(claims, &self.prepopulated(&claims.signer)?.statement);
        }
        match self.known_credential(&sha256(credential)) {
            Some(known) => bind(claims, &known.statement),
            None => bind(claims, credential::parse(credential)?.statement()),
        }
    }

    fn prepopulated(&self, key: &KeyId) -> Result<Arc<Certified>, VerifyError> {
        read(&self.keys).get(key).map(Arc::clone).ok_or(VerifyError::UnknownKey(*key))
    }

    fn known_credential(&self, digest: &[u8; 32]) -> Option<Arc<Certified>> {
        lock(&self.credentials).touch(digest).map(Arc::clone)
    }

    fn verify(
        &self,
        id: TokenId,
        parsed: Parsed,
        presented: Presented,
        now: WallTime,
    ) -> Result<Verified, VerifyError> {
        let Parsed { claims, signed, signature } = parsed;
        let (certified, paid) = self.certified(&claims, &presented.credential, now)?;
        let Statement { key, constraints, not_after, .. } = &certified.statement;
        bind(&claims, &certified.statement)?;
        let signature = signature.try_into().map_err(|_| VerifyError::Malformed)?;
        key.verify(&signed, &signature).map_err(|error| match error {
            SignatureError::HighS => VerifyError::HighS,
            SignatureError::Bad => VerifyError::BadSignature,
        })?;
        let root = certified.root.and_then(|index| self.roots.get(index));
        let violation = root
            .and_then(|root| root.first_violation(&claims.tags))
            .or_else(|| constraints.first_violation(&claims.tags));
        if let Some(tag) = violation {
            return Err(VerifyError::ConstraintViolated { tag: tag.clone(), node: claims.issuer.clone() });
        }
        let mut policy_tags = claims.tags.clone();
        if let Some(root) = root {
            policy_tags.insert(Tag::new(TRUST_KEY, root.name()).map_err(|_| VerifyError::UntrustedRoot)?);
        }
        Ok(Verified {
            id,
            root: root.map(|root| root.name().to_owned()),
            key: claims.signer,
            policy_tags,
            valid_until: last_second(&claims).min(*not_after),
            claims,
            signatures_checked: paid + 1,
            presented,
        })
    }

    /// Finds the key that vouches for the token, and how many signatures that cost.
    fn certified(
        &self,
        claims: &Claims,
        credential: &[u8],
        now: WallTime,
    ) -> Result<(Arc<Certified>, u8), VerifyError> {
        if credential.is_empty() {
            return Ok((self.prepopulated(&claims.signer)?, 0));
        }
        let digest = sha256(credential);
        if let Some(known) = self.known_credential(&digest) {
            self.check_period(&known, now)?;
            return Ok((known, 0));
        }
        let parsed = credential::parse(credential)?;
        bind(claims, parsed.statement())?;
        let certified = Arc::new(self.verify_credential(parsed, now)?);
        lock(&self.credentials).insert(digest, Arc::clone(&certified));
        Ok((certified, 1))
    }

    fn verify_credential(
        &self,
        parsed: ParsedCredential<'_>,
        now: WallTime,
    ) -> Result<Certified, VerifyError> {
        let mut refused = VerifyError::UntrustedRoot;
        for (index, root) in self.roots.iter().enumerate() {
            match root.vouches(&parsed, now) {
                Ok(()) => {
                    let statement = match parsed {
                        ParsedCredential::Certificate(_, statement) => statement,
                        ParsedCredential::KeyToken(token) => token.statement,
                    };
                    return Ok(Certified { statement, root: Some(index) });
                }
                Err(VerifyError::UntrustedRoot) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn check_period(&self, certified: &Certified, now: WallTime) -> Result<(), VerifyError> {
        trust::check_period(&certified.statement, now)?;
        certified.root.and_then(|index| self.roots.get(index)).map_or(Ok(()), |root| root.check_period(now))
    }
}

/// The token must be of the certified node and name the certified key.
fn bind(claims: &Claims, statement: &Statement) -> Result<(), VerifyError> {
    if claims.issuer != statement.node {
        return Err(VerifyError::IssuerMismatch {
            claimed: claims.issuer.clone(),
            certified: statement.node.clone(),
        });
    }
    if claims.signer != statement.key.id() {
        return Err(VerifyError::SignerMismatch { claimed: claims.signer, certified: statement.key.id() });
    }
    Ok(())
}

fn check_times(claims: &Claims, now: WallTime) -> Result<(), VerifyError> {
    if claims.issued_at > now.plus_secs(LEEWAY_SECS) {
        return Err(VerifyError::NotYetValid);
    }
    if now > last_second(claims) {
        return Err(VerifyError::Expired);
    }
    Ok(())
}

/// RFC 7519: not accepted *on or after* the expiry; then the leeway.
const fn last_second(claims: &Claims) -> WallTime {
    claims.expires_at.plus_secs(LEEWAY_SECS).minus_secs(1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
