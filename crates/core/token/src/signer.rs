//! Making a node's tokens.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, PuId, Tag, TagSet};

use crate::claims::{Algorithm, MAX_TAGS, Parsed, has_reserved_tag};
use crate::credential::{CredentialError, NodeCredential};
use crate::{
    AgreementPublic, Claims, Encoding, KeyId, PairMode, Psk, SigningKey, TRUST_KEY, TokenId, cwt, jwt,
};

/// Ten minutes.
pub const DEFAULT_LIFETIME_SECS: u64 = 600;
/// One minute.
pub const MIN_LIFETIME_SECS: u64 = 60;
/// One day: a verifier refuses longer tokens.
pub const MAX_LIFETIME_SECS: u64 = 24 * 60 * 60;
/// The header before token and credential in a TAP payload.
pub const TAP_HEADER_LEN: usize = 80;
/// IPv6's minimum MTU less 40 + 20 + 40 bytes of headers and options and 20 to spare.
pub const DEFAULT_PAYLOAD_LIMIT: usize = 1160;

/// Why a node cannot sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The credential says nothing usable.
    #[error("the node's credential is unusable")]
    Credential(#[from] CredentialError),
    /// The credential is for another node.
    #[error("the credential is for node {certified}, this node is {node}")]
    OtherNode {
        /// This node.
        node: NodeId,
        /// The node in the credential.
        certified: NodeId,
    },
    /// The credential is for another key.
    #[error("the credential of node {0} is for another key than the node's")]
    OtherKey(NodeId),
}

/// Why a token is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Token and credential would not fit the first segment.
    #[error(
        "the payload would have {size} bytes ({TAP_HEADER_LEN} header, {token} token, {credential} credential), \
         the limit is {limit}; longest tags: {longest}; leave some out with identity.tags.include or exclude"
    )]
    TooLarge {
        /// Size of the whole payload.
        size: usize,
        /// The configured limit.
        limit: usize,
        /// Size of the token.
        token: usize,
        /// Size of the credential.
        credential: usize,
        /// The longest tags, longest first.
        longest: LongestTags,
    },
    /// More than 256 tags.
    #[error("{0} tags, a token holds at most {MAX_TAGS}")]
    TooManyTags(usize),
    /// Shorter than a minute or longer than a day.
    #[error("a token lifetime of {0} s is outside {MIN_LIFETIME_SECS} s to {MAX_LIFETIME_SECS} s")]
    Lifetime(u64),
    /// A tag whose key is kept for the verifier.
    #[error("tags beginning with {TRUST_KEY} are added by the verifier only")]
    ReservedTag,
    /// The crypto library or a codec refused.
    #[error("the crypto library or an encoder refused")]
    Crypto,
}

/// At most three tags that take the most room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongestTags(pub Vec<Tag>);

impl LongestTags {
    fn of(tags: &TagSet) -> Self {
        let mut tags: Vec<Tag> = tags.iter().cloned().collect();
        tags.sort_by_key(|tag| std::cmp::Reverse(tag.encoded_len()));
        tags.truncate(3);
        Self(tags)
    }
}

impl fmt::Display for LongestTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, tag) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{} ({} bytes)", tag.key(), tag.encoded_len())?;
        }
        Ok(())
    }
}

/// What a token shall say; the signer adds who says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The processing unit.
    pub subject: PuId,
    /// Its tags, filtered.
    pub tags: TagSet,
    /// Whether some were left out.
    pub partial: bool,
    /// The node's agreement key.
    pub agreement: AgreementPublic,
    /// When the token is made.
    pub issued_at: WallTime,
    /// How long it lasts.
    pub lifetime_secs: u64,
}

/// A token ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub id: TokenId,
    /// The token.
    pub bytes: Arc<[u8]>,
    /// What travels beside it; empty for PSK and pre-populated keys.
    pub credential: Arc<[u8]>,
    /// What it says.
    pub claims: Claims,
    /// How it is written.
    pub encoding: Encoding,
}

/// A node's secret, with which it signs its tokens.
#[derive(Clone)]
pub struct Signer {
    node: NodeId,
    secret: Secret,
    credential: Arc<[u8]>,
    payload_limit: usize,
}

#[derive(Clone)]
enum Secret {
    Psk(Psk),
    Key(SigningKey),
}

impl Signer {
    /// A node of a PSK domain.
    #[must_use]
    pub fn psk(node: NodeId, psk: Psk) -> Self {
        Self {
            node,
            secret: Secret::Psk(psk),
            credential: Arc::from([]),
            payload_limit: DEFAULT_PAYLOAD_LIMIT,
        }
    }

    /// A node with a key of its own.
    ///
    /// # Errors
    /// [`SignerError`] if the credential is unusable or is for another node or key.
    pub fn pki(node: NodeId, key: SigningKey, credential: &NodeCredential) -> Result<Self, SignerError> {
        if let Some(statement) = credential.statement()? {
            if statement.node != node {
                return Err(SignerError::OtherNode { node, certified: statement.node });
            }
            if statement.key != *key.public() {
                return Err(SignerError::OtherKey(node));
            }
        }
        Ok(Self {
            node,
            secret: Secret::Key(key),
            credential: credential.bytes(),
            payload_limit: DEFAULT_PAYLOAD_LIMIT,
        })
    }

    /// Changes the limit of the whole TAP payload; at most what the length field holds.
    #[must_use]
    pub fn with_payload_limit(mut self, bytes: u16) -> Self {
        self.payload_limit = usize::from(bytes);
        self
    }

    /// The node that signs.
    #[must_use]
    pub const fn node(&self) -> &NodeId {
        &self.node
    }

    /// The key it signs with.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        match &self.secret {
            Secret::Psk(psk) => psk.key_id(),
            Secret::Key(key) => key.public().id(),
        }
    }

    /// What travels beside its tokens; empty for PSK and pre-populated keys.
    #[must_use]
    pub fn credential(&self) -> &[u8] {
        &self.credential
    }

    /// How pair keys are derived in this trust mode.
    #[must_use]
    pub const fn pair_mode(&self) -> PairMode<'_> {
        match &self.secret {
            Secret::Psk(psk) => PairMode::Psk(psk),
            Secret::Key(_) => PairMode::Pki,
        }
    }

    /// Makes and signs a token.
    ///
    /// # Errors
    /// [`IssueError`] if it would be too large, would live too long or short, or claims a reserved tag.
    pub fn issue(&self, request: &TokenRequest, encoding: Encoding) -> Result<Token, IssueError> {
        let TokenRequest { subject, tags, partial, agreement, issued_at, lifetime_secs } = request;
        if !(MIN_LIFETIME_SECS..=MAX_LIFETIME_SECS).contains(lifetime_secs) {
            return Err(IssueError::Lifetime(*lifetime_secs));
        }
        if has_reserved_tag(tags) {
            return Err(IssueError::ReservedTag);
        }
        if tags.len() > MAX_TAGS {
            return Err(IssueError::TooManyTags(tags.len()));
        }
        let claims = Claims {
            issuer: self.node.clone(),
            signer: self.key_id(),
            subject: subject.clone(),
            issued_at: *issued_at,
            expires_at: issued_at.plus_secs(*lifetime_secs),
            tags: tags.clone(),
            partial: *partial,
            agreement: *agreement,
        };
        let token = self.sign(claims, encoding).ok_or(IssueError::Crypto)?;
        let size = TAP_HEADER_LEN + token.bytes.len() + token.credential.len();
        if size > self.payload_limit {
            return Err(IssueError::TooLarge {
                size,
                limit: self.payload_limit,
                token: token.bytes.len(),
                credential: token.credential.len(),
                longest: LongestTags::of(tags),
            });
        }
        Ok(token)
    }

    /// Reads back a token of this node's trust mode, from trusted storage.
    pub(crate) fn reread(&self, bytes: &[u8], encoding: Encoding) -> Option<Token> {
        let algorithm = self.secret.algorithm();
        let parsed = match encoding {
            Encoding::Jwt => jwt::parse(bytes, algorithm),
            Encoding::Cwt => cwt::parse(bytes, algorithm),
        };
        let Parsed { claims, signed, signature: _ } = parsed.ok()?;
        let same_key = claims.signer == self.key_id();
        Some(Token {
            id: TokenId::of(&signed),
            bytes: bytes.into(),
            credential: if same_key { Arc::clone(&self.credential) } else { Arc::from([]) },
            claims,
            encoding,
        })
    }

    fn sign(&self, claims: Claims, encoding: Encoding) -> Option<Token> {
        let algorithm = self.secret.algorithm();
        let (signed, bytes) = match encoding {
            Encoding::Jwt => {
                let signed = jwt::signed_bytes(&claims, algorithm)?;
                let bytes = jwt::assemble(&signed, &self.secret.sign(&signed)?);
                (signed, bytes)
            }
            Encoding::Cwt => {
                let (payload, signed) = cwt::signed_bytes(&claims, algorithm)?;
                let bytes = cwt::assemble(algorithm, payload, self.secret.sign(&signed)?)?;
                (signed, bytes)
            }
        };
        Some(Token {
            id: TokenId::of(&signed),
            bytes: bytes.into(),
            credential: Arc::clone(&self.credential),
            claims,
            encoding,
        })
    }
}

impl Secret {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Psk(_) => Algorithm::Hs256,
            Self::Key(_) => Algorithm::Es256,
        }
    }

    fn sign(&self, signed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Psk(psk) => Some(hmac::sign(&psk.token_mac_key(), signed).as_ref().to_vec()),
            Self::Key(key) => key.sign(signed).ok().map(Vec::from),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("node", &self.node)
            .field("secret", &"redacted")
            .field("key_id", &self.key_id())
            .field("payload_limit", &self.payload_limit)
            .finish_non_exhaustive()
    }
}
