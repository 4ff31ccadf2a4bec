//! Why a token is refused.

use trireme_identity::{NodeId, Tag};

use crate::claims::FormError;
use crate::credential::CredentialError;
use crate::{Denied, KeyId};

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a token at all.
    #[error("the bytes are not a token")]
    Malformed,
    /// A token in another form than its maker writes.
    #[error("the token is not in its one canonical form")]
    NotCanonical,
    /// The token asks for another algorithm than the configured key's.
    #[error("the token's algorithm is not the one of the configured trust mode")]
    WrongAlgorithm,
    /// The claims have another version.
    #[error("the token's version is unknown")]
    UnknownVersion,
    /// The tag is for the verifier to add.
    #[error("the token claims a tag that only a verifier may add")]
    ReservedTag,
    /// No credential, and the key is not known.
    #[error("the signing key {0} is unknown and no credential came with the token")]
    UnknownKey(KeyId),
    /// The larger of the two values of an ECDSA signature.
    #[error("the signature is not in low-s form")]
    HighS,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Past its end.
    #[error("the token has expired")]
    Expired,
    /// Issued in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Longer than a day.
    #[error("the token's lifetime is too long")]
    LifetimeTooLong,
    /// The token's node is not the certified one.
    #[error("the token is issued by {claimed}, its credential is for {certified}")]
    IssuerMismatch {
        /// The node in the token.
        claimed: NodeId,
        /// The node in the credential.
        certified: NodeId,
    },
    /// The token's key is not the certified one.
    #[error("the token is signed by key {claimed}, its credential is for {certified}")]
    SignerMismatch {
        /// The key in the token.
        claimed: KeyId,
        /// The key in the credential.
        certified: KeyId,
    },
    /// The node may not claim the tag.
    #[error("node {node} may not claim the tag {tag}")]
    ConstraintViolated {
        /// The first such tag.
        tag: Tag,
        /// The certified node.
        node: NodeId,
    },
    /// A credential came although none is used with a PSK.
    #[error("a credential came with a token of the pre-shared key mode")]
    UnexpectedCredential,
    /// The credential cannot be read.
    #[error("the credential is unusable")]
    BadCredential(#[from] CredentialError),
    /// No trust root has signed it.
    #[error("no trust root has signed the credential")]
    UntrustedRoot,
    /// It names a trust root but the signature does not fit.
    #[error("the credential's signature is wrong")]
    BadCredentialSignature,
    /// The credential is past its end.
    #[error("the credential has expired")]
    CredentialExpired,
    /// The credential begins in the future.
    #[error("the credential is not valid yet")]
    CredentialNotYetValid,
    /// The trust root is outside its own period.
    #[error("the trust root's certificate is outside its validity period")]
    RootExpired,
    /// On the deny list.
    #[error("the {} is revoked", match .0 { Denied::Token => "token", Denied::Key => "signing key", Denied::Node => "node" })]
    Revoked(Denied),
}

impl VerifyError {
    /// A stable name for counters and records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotCanonical => "not-canonical",
            Self::WrongAlgorithm => "wrong-algorithm",
            Self::UnknownVersion => "unknown-version",
            Self::ReservedTag => "reserved-tag",
            Self::UnknownKey(_) => "unknown-key",
            Self::HighS => "high-s",
            Self::BadSignature => "bad-signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::LifetimeTooLong => "lifetime-too-long",
            Self::IssuerMismatch { .. } => "issuer-mismatch",
            Self::SignerMismatch { .. } => "signer-mismatch",
            Self::ConstraintViolated { .. } => "constraint-violated",
            Self::UnexpectedCredential => "unexpected-credential",
            Self::BadCredential(_) => "bad-credential",
            Self::UntrustedRoot => "untrusted-root",
            Self::BadCredentialSignature => "bad-credential-signature",
            Self::CredentialExpired => "credential-expired",
            Self::CredentialNotYetValid => "credential-not-yet-valid",
            Self::RootExpired => "root-expired",
            Self::Revoked(_) => "revoked",
        }
    }
}

impl From<FormError> for VerifyError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Malformed => Self::Malformed,
            FormError::NotCanonical => Self::NotCanonical,
            FormError::WrongAlgorithm => Self::WrongAlgorithm,
            FormError::Version => Self::UnknownVersion,
        }
    }
}
