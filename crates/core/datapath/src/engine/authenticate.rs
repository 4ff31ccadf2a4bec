//! From the token that a message names to a verified peer.

use std::net::IpAddr;
use std::sync::Arc;

use trireme_flow::{Priority, Reason};
use trireme_identity::time::Now;
use trireme_token::{TokenId, Verified, VerifyError};
use trireme_wire::tap::{Flags, Header};

use super::Engine;
use crate::Effect;

/// What is known about the sender of a message.
pub(super) enum Peer {
    /// Its token has verified.
    Verified(Arc<Verified>),
    /// Its token is being checked.
    Pending(u64),
    /// Its token is not held and did not come along.
    Unknown,
}

impl Engine {
    /// Finds the peer that a message names; cheap checks come first, a signature check leaves as a job within the budgets.
    pub(super) fn peer_of(
        &mut self,
        header: &Header,
        payload: &[u8],
        source: IpAddr,
        priority: Priority,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Peer, Reason> {
        let name = TokenId(header.token_id);
        // What is attached is not read then: whoever could lie about it could as well leave it out.
        if let Some(verified) = self.held_token(&name, now)? {
            return Ok(Peer::Verified(verified));
        }
        if !header.flags.contains(Flags::TOKEN) {
            return Ok(Peer::Unknown);
        }
        let (token, credential) = (header.token(payload), header.credential(payload));
        let found =
            self.secrets.verifier.cheap_check(token, credential).map_err(|error| verify_reason(&error))?;
        if found != name {
            return Err(Reason::TokenIdMismatch);
        }
        self.jobs.room()?;
        if let Some(job) = self.jobs.find(&name, token, credential) {
            return Ok(Peer::Pending(job));
        }
        if !self.verify_source.try_take(source, now.monotonic) {
            return Err(Reason::VerifySource);
        }
        let total = match priority {
            Priority::Ordinary => &mut self.verify_total,
            Priority::Proven => &mut self.verify_proven,
        };
        if !total.try_take(EVERYBODY, now.monotonic) {
            return Err(Reason::VerifyTotal);
        }
        let (id, job) = self.jobs.begin(name, token, credential, now)?;
        out.push(Effect::Verify(job));
        Ok(Peer::Pending(id))
    }

    /// A token that verified before, is still valid and not revoked since.
    pub(super) fn held_token(&mut self, name: &TokenId, now: Now) -> Result<Option<Arc<Verified>>, Reason> {
        let cached = self.tokens.fetch(name, now.wall);
        let Some(verified) = cached.or_else(|| self.peers.trusted(name, now.wall, &self.secrets.verifier))
        else {
            return Ok(None);
        };
        if self.is_revoked(&verified) {
            self.tokens.remove(name);
            return Err(Reason::TokenRevoked);
        }
        Ok(Some(verified))
    }

    pub(super) fn is_revoked(&self, peer: &Verified) -> bool {
        self.secrets.verifier.deny_list().denies(&peer.id, &peer.key, &peer.claims.issuer).is_some()
    }
}

/// The one account of budgets that are not per source.
pub(super) const EVERYBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The reason that a verifier's refusal is reported as.
pub(super) const fn verify_reason(error: &VerifyError) -> Reason {
    match error {
        VerifyError::NotCanonical | VerifyError::HighS => Reason::TokenNotCanonical,
        VerifyError::WrongAlgorithm => Reason::TokenAlgorithm,
        VerifyError::UnknownKey(_) => Reason::TokenKeyUnknown,
        VerifyError::BadSignature | VerifyError::BadCredentialSignature => Reason::TokenSignature,
        VerifyError::Expired => Reason::TokenExpired,
        VerifyError::NotYetValid => Reason::TokenNotYetValid,
        VerifyError::LifetimeTooLong => Reason::TokenLifetime,
        VerifyError::IssuerMismatch { .. } | VerifyError::SignerMismatch { .. } => Reason::TokenIssuer,
        VerifyError::ConstraintViolated { .. } | VerifyError::ReservedTag => Reason::TokenConstraint,
        VerifyError::UntrustedRoot | VerifyError::RootExpired => Reason::TokenUntrusted,
        VerifyError::CredentialExpired | VerifyError::CredentialNotYetValid => Reason::CredentialExpired,
        VerifyError::Revoked(_) => Reason::TokenRevoked,
        VerifyError::Malformed
        | VerifyError::UnknownVersion
        | VerifyError::UnexpectedCredential
        | VerifyError::BadCredential(_) => Reason::TokenMalformed,
    }
}
