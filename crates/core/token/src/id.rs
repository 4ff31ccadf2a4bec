//! Fixed-length identifiers and public values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the hexadecimal form of a fixed-length value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} lower-case hexadecimal digits")]
pub struct HexError {
    /// How many digits the value has.
    pub expected: usize,
}

macro_rules! fixed {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        ///
        /// Text form: lower-case hexadecimal.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Its length in bytes.
            pub const LEN: usize = $len;
            /// All zero: stands where the value is not known.
            pub const ZERO: Self = Self([0; $len]);

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Whether every byte is zero.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                *self == Self::ZERO
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let mut bytes = [0; $len];
                decode_hex(text, &mut bytes).ok_or(HexError { expected: 2 * $len })?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = HexError;

            fn try_from(text: String) -> Result<Self, HexError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

fixed! {
    /// Names a token: the first 16 bytes of SHA-256 over its *signed* bytes.
    ///
    /// Signed bytes of a JWT: the ASCII text `header.payload`. Of a CWT: the deterministic CBOR of
    /// `Sig_structure` (`["Signature1", protected, h'', payload]`) or `MAC_structure`
    /// (`["MAC0", protected, h'', payload]`). The signature is outside, so nobody can make a second id
    /// of a signed token.
    TokenId, 16
}
fixed! {
    /// A value used in one handshake only, which makes the peer's answer fresh.
    Nonce, 16
}
fixed! {
    /// Names a signing key: SHA-256 of its SubjectPublicKeyInfo (for a PSK: of a value derived from it).
    KeyId, 32
}
fixed! {
    /// The public half of an [`AgreementKey`](crate::AgreementKey) (X25519, RFC 7748).
    AgreementPublic, 32
}

impl TokenId {
    /// Computes the id of the token with these signed bytes.
    #[must_use]
    pub fn of(signed: &[u8]) -> Self {
        let digest = sha256(signed);
        let mut id = [0; Self::LEN];
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        Self(id)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    if text.len() != 2 * out.len() {
        return None;
    }
    for (to, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *to = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(())
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_other_forms_are_refused() {
        let id = TokenId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), "TokenId(30313233343536373839616263646566)");
        for bad in ["", "30", "3031323334353637383961626364656", "3031323334353637383961626364656G"] {
            assert_eq!(bad.parse::<TokenId>(), Err(HexError { expected: 32 }), "{bad}");
        }
        assert!(Nonce::ZERO.is_zero() && !id.is_zero());
    }
}
