//! One form of an ECDSA signature: of s and n - s only the smaller.

use super::SIGNATURE_LEN;

/// The order n of P-256's base point, big-endian (SEC 2, section 2.4.2).
pub(super) const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// n / 2, rounded down.
pub(super) const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde,
    0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Whether s is at most n / 2 (s is public: no constant time needed).
pub(super) fn is_low(signature: &[u8; SIGNATURE_LEN]) -> bool {
    let (_, s) = signature.split_at(32);
    s <= HALF_ORDER.as_slice()
}

/// Replaces a high s by n - s.
pub(super) fn normalize(signature: &mut [u8; SIGNATURE_LEN]) {
    if !is_low(signature) {
        negate(signature);
    }
}

/// Replaces s by n - s, which is as valid; s must be below n.
pub(crate) fn negate(signature: &mut [u8; SIGNATURE_LEN]) {
    let (_, s) = signature.split_at_mut(32);
    let mut borrow = false;
    for (s, n) in s.iter_mut().zip(ORDER).rev() {
        let (difference, first) = n.overflowing_sub(*s);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        *s = difference;
        borrow = first || second;
    }
}
