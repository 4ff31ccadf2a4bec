//! Identity tokens, the credentials behind them, and the keys and MACs that prove them per connection.
//!
//! Start with [`Signer`] (makes a node's tokens) and [`Verifier`] (accepts or refuses a peer's);
//! [`pair_keys`] and [`mac()`] turn two nodes' agreement keys into the proof of one connection.
//! It must never read a clock, open a file or draw randomness by itself (time and [`RandomSource`] are
//! arguments; only the nonce inside an ECDSA signature comes from the crypto library), choose an
//! algorithm because a token asks for it, or accept a second form of a token.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking"))]

mod agreement;
pub mod authority;
pub mod cache;
mod claims;
mod constraints;
mod cose;
pub mod credential;
mod cwt;
mod deny;
mod filter;
mod id;
mod jwt;
mod lru;
mod mac;
mod p256;
mod psk;
mod random;
pub mod rotation;
mod signer;
#[cfg(test)]
mod testing;
mod verifier;

pub use agreement::{AgreementKey, PairError, PairKeys, PairMode, Role, pair_keys};
pub use claims::{Claims, Encoding, TRUST_KEY};
pub use constraints::{Constraints, PatternError, TagPattern};
pub use deny::{Denied, DenyList};
pub use filter::{Filtered, KeyPattern, TagFilter};
pub use id::{AgreementPublic, HexError, KeyId, Nonce, TokenId};
pub use mac::{MAC_LEN, MacKey, mac, mac_matches};
pub use p256::{KeyError, SigningKey, VerifyingKey};
pub use psk::{Psk, PskError};
pub use random::{Pooled, RandomSource, SeededRandom};
pub use signer::{
    DEFAULT_LIFETIME_SECS, DEFAULT_PAYLOAD_LIMIT, IssueError, LongestTags, MAX_LIFETIME_SECS,
    MIN_LIFETIME_SECS, Signer, SignerError, TAP_HEADER_LEN, Token, TokenRequest,
};
pub use verifier::{
    KeysUnused, LEEWAY_SECS, Presented, PublicKeyAdder, RootError, TrustRoot, Verified, Verifier, VerifyError,
};
