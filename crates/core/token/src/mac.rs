//! The message authentication code of one handshake segment.

use siphasher::sip128::SipHasher24;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Nonce, TokenId};

/// The length of a MAC in bytes.
pub const MAC_LEN: usize = 16;

/// A secret 128-bit key shared by two nodes, for one sender's role.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MacKey([u8; 16]);

impl MacKey {
    /// Wraps key bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key bytes, for a kernel map; do not log or copy them elsewhere.
    #[must_use]
    pub const fn secret_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(redacted)")
    }
}

/// Computes a segment's MAC.
///
/// SipHash-2-4 with 128-bit output over 96 bytes:
/// header bytes 0-39 | header bytes 56-79 | peer's token id 16 B | peer's nonce 16 B, the last two zero
/// where they are not known yet.
#[must_use]
pub fn mac(
    key: &MacKey,
    header_0_40: &[u8; 40],
    header_56_80: &[u8; 24],
    peer_token: &TokenId,
    peer_nonce: &Nonce,
) -> [u8; MAC_LEN] {
    let mut message = [0; 96];
    let (first, rest) = message.split_at_mut(40);
    let (second, rest) = rest.split_at_mut(24);
    let (third, fourth) = rest.split_at_mut(16);
    first.copy_from_slice(header_0_40);
    second.copy_from_slice(header_56_80);
    third.copy_from_slice(&peer_token.0);
    fourth.copy_from_slice(&peer_nonce.0);
    SipHasher24::new_with_key(&key.0).hash(&message).as_bytes()
}

/// Compares two MACs in constant time.
#[must_use]
pub fn mac_matches(expected: &[u8; MAC_LEN], received: &[u8; MAC_LEN]) -> bool {
    expected.ct_eq(received).into()
}

#[cfg(test)]
mod tests;
