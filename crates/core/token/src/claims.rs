//! What an identity token says.

use serde::{Deserialize, Serialize};
use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, PuId, TagSet};

use crate::{AgreementPublic, KeyId};

/// The key of the tag that a verifier adds itself; a token that claims it (or a key that begins so) is refused.
pub const TRUST_KEY: &str = "@trust";

/// The version of the claims, signed in every token.
pub(crate) const VERSION: u8 = 1;

/// More tags than this are refused before they are compared with each other.
pub(crate) const MAX_TAGS: usize = 256;

/// The claims of one processing unit, signed by its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The node that signs.
    pub issuer: NodeId,
    /// The key it signs with: binds the token to the credential that travels beside it.
    pub signer: KeyId,
    /// The processing unit.
    pub subject: PuId,
    /// When the token was made.
    pub issued_at: WallTime,
    /// When it ends.
    pub expires_at: WallTime,
    /// The identity's tags, in order.
    pub tags: TagSet,
    /// Whether some tags were left out.
    pub partial: bool,
    /// The node's agreement key.
    pub agreement: AgreementPublic,
}

impl Claims {
    /// The lifetime in seconds; `None` if the token ends before it begins.
    #[must_use]
    pub const fn lifetime_secs(&self) -> Option<u64> {
        self.expires_at.0.checked_sub(self.issued_at.0)
    }

    /// Whether some tag's key is kept for the verifier.
    pub(crate) fn claims_reserved_tag(&self) -> bool {
        has_reserved_tag(&self.tags)
    }
}

pub(crate) fn has_reserved_tag(tags: &TagSet) -> bool {
    tags.iter().any(|tag| tag.key().starts_with(TRUST_KEY))
}

/// How a node writes its tokens; a receiver accepts both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// JSON Web Token (RFC 7519) in JWS compact serialization (RFC 7515).
    Jwt,
    /// CBOR Web Token (RFC 8392) in COSE (RFC 9052): about half the size.
    #[default]
    Cwt,
}

/// The algorithm that the configured key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// ECDSA with P-256 and SHA-256 (PKI).
    Es256,
    /// HMAC with SHA-256 (PSK).
    Hs256,
}

/// A token taken apart, in the one accepted form, signature not checked.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) claims: Claims,
    /// What the signature covers.
    pub(crate) signed: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// Why bytes are not a token in the one accepted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormError {
    Malformed,
    NotCanonical,
    WrongAlgorithm,
    Version,
}
