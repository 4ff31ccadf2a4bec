//! A short name for the content of a policy.

use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::PuPolicy;

/// The digest of a policy already in its canonical form.
pub(crate) fn digest(canonical: &PuPolicy) -> [u8; 16] {
    let mut hasher = SipHasher24::new();
    canonical.hash(&mut hasher);
    hasher.finish128().as_bytes()
}
