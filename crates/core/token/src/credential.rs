//! What vouches for a node's signing key: an X.509 certificate or a key token from the CA.

pub(crate) mod certificate;
pub(crate) mod key_token;

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use trireme_identity::NodeId;
use trireme_identity::time::WallTime;

use crate::{Constraints, VerifyingKey};

/// The PEM label of a key token.
const KEY_TOKEN_LABEL: &str = "TRIREME KEY TOKEN";

/// Longer credentials are refused unread.
pub(crate) const MAX_LEN: usize = 8 * 1024;

/// Why bytes are not a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Neither a certificate nor a key token.
    #[error("neither an X.509 certificate in DER nor a key token")]
    Malformed,
    /// A key token in another form than the one its maker writes.
    #[error("the key token is not in its one canonical form")]
    NotCanonical,
    /// The certified key is not on P-256.
    #[error("the certified key is not a P-256 key")]
    NotP256,
    /// The certificate has no, or several, names `trireme://node/<id>`.
    #[error("the certificate needs exactly one URI name trireme://node/<id>")]
    NoNodeId,
    /// The constraints cannot be read.
    #[error("the credential's constraints cannot be read")]
    BadConstraints,
    /// The PEM text holds no such section.
    #[error("no CERTIFICATE or TRIREME KEY TOKEN section in the PEM text")]
    NotPem,
}

/// How peers learn this node's public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCredential {
    /// An X.509 certificate (DER) travels beside the token.
    Certificate(Arc<[u8]>),
    /// A key token travels beside the token.
    KeyToken(Arc<[u8]>),
    /// Nothing travels: peers hold the key already.
    Prepopulated,
}

impl NodeCredential {
    /// Reads the first `CERTIFICATE` or `TRIREME KEY TOKEN` section of a PEM text.
    ///
    /// # Errors
    /// [`CredentialError`] if there is none or it says nothing usable.
    pub fn from_pem(text: &str) -> Result<Self, CredentialError> {
        if let Ok(der) = CertificateDer::from_pem_slice(text.as_bytes()) {
            certificate::read(&der)?;
            return Ok(Self::Certificate(der.as_ref().into()));
        }
        let section = pem::parse(text).map_err(|_| CredentialError::NotPem)?;
        if section.tag() != KEY_TOKEN_LABEL {
            return Err(CredentialError::NotPem);
        }
        let bytes = section.into_contents();
        key_token::read(&bytes)?;
        Ok(Self::KeyToken(bytes.into()))
    }

    /// The credential as PEM; empty if nothing travels.
    #[must_use]
    pub fn to_pem(&self) -> String {
        match self {
            Self::Certificate(der) => pem_text(&pem::Pem::new("CERTIFICATE", der.to_vec())),
            Self::KeyToken(bytes) => pem_text(&pem::Pem::new(KEY_TOKEN_LABEL, bytes.to_vec())),
            Self::Prepopulated => String::new(),
        }
    }

    /// The bytes that travel beside the token.
    #[must_use]
    pub fn bytes(&self) -> Arc<[u8]> {
        match self {
            Self::Certificate(bytes) | Self::KeyToken(bytes) => Arc::clone(bytes),
            Self::Prepopulated => Arc::from([]),
        }
    }

    /// What the credential says, without checking who signed it; `None` if nothing travels.
    ///
    /// # Errors
    /// [`CredentialError`] if it says nothing usable.
    pub fn statement(&self) -> Result<Option<Statement>, CredentialError> {
        match self {
            Self::Certificate(der) => certificate::read(der).map(Some),
            Self::KeyToken(bytes) => key_token::read(bytes).map(|token| Some(token.statement)),
            Self::Prepopulated => Ok(None),
        }
    }
}

/// What a credential says about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The node.
    pub node: NodeId,
    /// Its signing key.
    pub key: VerifyingKey,
    /// The tags it may claim.
    pub constraints: Constraints,
    /// From when it holds.
    pub not_before: WallTime,
    /// Until when it holds.
    pub not_after: WallTime,
}

/// A credential taken apart, not verified.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    Certificate(&'a [u8], Statement),
    KeyToken(key_token::KeyToken),
}

impl Parsed<'_> {
    pub(crate) const fn statement(&self) -> &Statement {
        match self {
            Self::Certificate(_, statement) => statement,
            Self::KeyToken(token) => &token.statement,
        }
    }
}

/// Tells the two kinds apart by their first byte (DER SEQUENCE, CBOR tag 18) and reads the one.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, CredentialError> {
    if bytes.len() > MAX_LEN {
        return Err(CredentialError::Malformed);
    }
    match bytes.first() {
        Some(0x30) => certificate::read(bytes).map(|statement| Parsed::Certificate(bytes, statement)),
        Some(0xd2) => key_token::read(bytes).map(Parsed::KeyToken),
        _ => Err(CredentialError::Malformed),
    }
}

pub(crate) fn pem_text(section: &pem::Pem) -> String {
    pem::encode_config(section, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
