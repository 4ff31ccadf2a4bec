//! Trust roots.

use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use trireme_identity::time::WallTime;
use trireme_identity::{Tag, TagSet};
use webpki::{EndEntityCert, KeyUsage};

use super::VerifyError;
use crate::credential::{CredentialError, Parsed, Statement, certificate, key_token::KeyToken};
use crate::{Constraints, KeyId, TRUST_KEY, VerifyingKey};

/// Why a certificate is not a trust root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No `CERTIFICATE` section in the PEM text.
    #[error("no CERTIFICATE section in the trust root's PEM text")]
    NotPem,
    /// The certificate cannot be read.
    #[error("the trust root's certificate is unusable")]
    Certificate(#[from] CredentialError),
    /// It may not sign certificates.
    #[error("the trust root's certificate is not a CA's")]
    NotAuthority,
    /// The name cannot be a tag's value.
    #[error("the trust root's name is empty or cannot be a tag's value")]
    BadName,
}

/// A CA that certifies nodes, by our name for it, and what it may certify.
#[derive(Clone, Debug)]
pub struct TrustRoot {
    name: String,
    anchor: TrustAnchor<'static>,
    key: VerifyingKey,
    not_before: WallTime,
    not_after: WallTime,
    own: Constraints,
    ours: Constraints,
}

impl TrustRoot {
    /// Takes a CA certificate; `constraints` are ours and hold beside those in the certificates.
    ///
    /// # Errors
    /// [`RootError`] if the name or the certificate is unusable.
    pub fn from_der(name: &str, der: &[u8], constraints: Constraints) -> Result<Self, RootError> {
        if name.is_empty() || Tag::new(TRUST_KEY, name).is_err() {
            return Err(RootError::BadName);
        }
        let parsed = certificate::whole(der)?;
        if !parsed.is_ca() {
            return Err(RootError::NotAuthority);
        }
        let (not_before, not_after) = certificate::validity(&parsed);
        let owned = CertificateDer::from(der);
        let anchor =
            webpki::anchor_from_trusted_cert(&owned).map_err(|_| CredentialError::Malformed)?.to_owned();
        Ok(Self {
            name: name.to_owned(),
            anchor,
            key: certificate::public_key(&parsed)?,
            not_before,
            not_after,
            own: certificate::constraints(&parsed)?,
            ours: constraints,
        })
    }

    /// Takes the first `CERTIFICATE` section of a PEM text.
    ///
    /// # Errors
    /// As [`TrustRoot::from_der`].
    pub fn from_pem(name: &str, text: &str, constraints: Constraints) -> Result<Self, RootError> {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| RootError::NotPem)?;
        Self::from_der(name, &der, constraints)
    }

    /// Our name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of its key.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key.id()
    }

    /// Until when it holds.
    #[must_use]
    pub const fn not_after(&self) -> WallTime {
        self.not_after
    }

    pub(super) fn first_violation<'a>(&self, tags: &'a TagSet) -> Option<&'a Tag> {
        self.ours.first_violation(tags).or_else(|| self.own.first_violation(tags))
    }

    pub(super) fn check_period(&self, now: WallTime) -> Result<(), VerifyError> {
        if (self.not_before..=self.not_after).contains(&now) { Ok(()) } else { Err(VerifyError::RootExpired) }
    }

    /// Checks that this root signed the credential and that both hold now.
    pub(super) fn vouches(&self, credential: &Parsed<'_>, now: WallTime) -> Result<(), VerifyError> {
        match credential {
            Parsed::Certificate(der, _) => self.signed_certificate(der, now)?,
            Parsed::KeyToken(token) => self.signed_key_token(token)?,
        }
        check_period(credential.statement(), now)?;
        self.check_period(now)
    }

    fn signed_certificate(&self, der: &[u8], now: WallTime) -> Result<(), VerifyError> {
        let der = CertificateDer::from(der);
        let certificate = EndEntityCert::try_from(&der).map_err(|_| CredentialError::Malformed)?;
        certificate
            .verify_for_usage(
                &[webpki::aws_lc_rs::ECDSA_P256_SHA256],
                std::slice::from_ref(&self.anchor),
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(now.0)),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
            .map_err(|error| refusal(&error))
    }

    fn signed_key_token(&self, token: &KeyToken) -> Result<(), VerifyError> {
        if !token.names(&self.key.id()) {
            return Err(VerifyError::UntrustedRoot);
        }
        self.key.verify(&token.signed, &token.signature).map_err(|_| VerifyError::BadCredentialSignature)
    }
}

/// Certificates and key tokens have no leeway: their makers date them back instead.
pub(super) fn check_period(statement: &Statement, now: WallTime) -> Result<(), VerifyError> {
    if now < statement.not_before {
        return Err(VerifyError::CredentialNotYetValid);
    }
    if now > statement.not_after {
        return Err(VerifyError::CredentialExpired);
    }
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "webpki's error type is open; what is left means: unusable"
)]
fn refusal(error: &webpki::Error) -> VerifyError {
    match error {
        webpki::Error::UnknownIssuer => VerifyError::UntrustedRoot,
        webpki::Error::CertExpired { .. } => VerifyError::CredentialExpired,
        webpki::Error::CertNotValidYet { .. } => VerifyError::CredentialNotYetValid,
        webpki::Error::InvalidSignatureForPublicKey => VerifyError::BadCredentialSignature,
        _ => VerifyError::BadCredential(CredentialError::Malformed),
    }
}
