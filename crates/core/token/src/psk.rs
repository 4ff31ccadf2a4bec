//! The pre-shared key.

use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::agreement::expand;
use crate::id::sha256;
use crate::random::{RandomSource, secret};
use crate::{KeyId, PairError};

/// Why a pre-shared key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PskError {
    /// Nothing was given.
    #[error("the pre-shared key is empty")]
    Empty,
    /// Fewer than 16 bytes.
    #[error("the pre-shared key has {0} bytes, it needs at least {min}", min = Psk::MIN_LEN)]
    TooShort(usize),
    /// More than 512 bytes.
    #[error("the pre-shared key has {0} bytes, it may have {max} at most", max = Psk::MAX_LEN)]
    TooLong(usize),
    /// A key known from examples, or such a word repeated or decorated.
    #[error("the pre-shared key is a well-known default; make one with `trireme keys psk`")]
    Default,
    /// Too few different bytes to be a secret.
    #[error("the pre-shared key repeats too few different bytes; make one with `trireme keys psk`")]
    TooSimple,
    /// The crypto library refused the derivation.
    #[error("the crypto library refused the key derivation")]
    Crypto,
}

/// A secret known to every node of one trust domain: whoever has it can be anybody.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Psk {
    secret: Vec<u8>,
    token_key: [u8; 32],
    #[zeroize(skip)]
    key_id: KeyId,
}

impl Psk {
    /// The shortest accepted key, in bytes.
    pub const MIN_LEN: usize = 16;
    /// The longest accepted key, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Takes the secret after checking that it can be one.
    ///
    /// # Errors
    /// [`PskError`] if it is empty, too short, too long, a well-known default or too simple.
    pub fn new(bytes: &[u8]) -> Result<Self, PskError> {
        check(bytes)?;
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tap/1 psk").extract(bytes);
        let mut token_key = Zeroizing::new([0; 32]);
        let mut name = Zeroizing::new([0; 32]);
        expand(&prk, &[b"tap/1 token mac"], token_key.as_mut_slice()).map_err(PskError::from)?;
        expand(&prk, &[b"tap/1 key id"], name.as_mut_slice()).map_err(PskError::from)?;
        Ok(Self { secret: bytes.to_vec(), token_key: *token_key, key_id: KeyId(sha256(name.as_slice())) })
    }

    /// Takes the secret from a file's or variable's text, without white space around it.
    ///
    /// # Errors
    /// As [`Psk::new`].
    pub fn from_text(text: &str) -> Result<Self, PskError> {
        Self::new(text.trim().as_bytes())
    }

    /// Draws a new key and writes it as text: base64url of 32 random bytes (the text is the key).
    #[must_use]
    pub fn generate_text(rng: &mut dyn RandomSource) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(secret::<32>(rng).as_slice()))
    }

    /// Names this key in tokens without revealing it.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// HMAC-SHA-256 key of tokens: `HKDF-SHA-256(PSK, salt "tap/1 psk", info "tap/1 token mac")`, 32 bytes.
    pub(crate) fn token_mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.token_key)
    }

    pub(crate) fn secret_bytes(&self) -> &[u8] {
        &self.secret
    }
}

impl From<PairError> for PskError {
    fn from(_: PairError) -> Self {
        Self::Crypto
    }
}

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Psk").field("secret", &"redacted").field("key_id", &self.key_id).finish()
    }
}

/// Words that examples and hurried people use.
const KNOWN: [&str; 14] = [
    "badpass",
    "changeme",
    "change-me",
    "password",
    "passw0rd",
    "secret",
    "trireme",
    "default",
    "example",
    "test",
    "letmein",
    "qwerty",
    "mykey",
    "psk",
];
/// What is left beside known words must have this many bytes to count as a secret.
const MIN_REST: usize = 12;
/// Of 10^14 random 16-byte keys, about one has fewer different bytes than this.
const MIN_DISTINCT: usize = 7;

fn check(bytes: &[u8]) -> Result<(), PskError> {
    if bytes.is_empty() {
        return Err(PskError::Empty);
    }
    if bytes.len() > Psk::MAX_LEN {
        return Err(PskError::TooLong(bytes.len()));
    }
    if is_default(bytes) {
        return Err(PskError::Default);
    }
    if bytes.len() < Psk::MIN_LEN {
        return Err(PskError::TooShort(bytes.len()));
    }
    let mut seen = [false; 256];
    for byte in bytes {
        if let Some(slot) = seen.get_mut(usize::from(*byte)) {
            *slot = true;
        }
    }
    if seen.iter().filter(|seen| **seen).count() < MIN_DISTINCT {
        return Err(PskError::TooSimple);
    }
    Ok(())
}

fn is_default(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let mut rest = Zeroizing::new(text.to_ascii_lowercase());
    let whole = rest.len();
    for word in KNOWN {
        rest = Zeroizing::new(rest.replace(word, ""));
    }
    let removed = rest.len() < whole;
    let rest = rest.trim_matches(|c: char| !c.is_ascii_alphabetic());
    removed && rest.len() < MIN_REST
}

#[cfg(test)]
mod tests;
