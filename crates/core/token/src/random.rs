//! Randomness as an argument.

use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

/// A source of unpredictable bytes, given by the caller.
pub trait RandomSource {
    /// Fills `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]);
}

/// A cryptographic generator that expands a 32-byte seed; equal seeds give equal output.
///
/// Block i of a request is HMAC-SHA-256(key, 01 || i); after the request the key becomes
/// HMAC-SHA-256(key, 00), so that a later key does not reveal earlier output.
pub struct SeededRandom {
    key: [u8; 32],
}

impl SeededRandom {
    /// Starts from a seed drawn from the operating system (or fixed, in tests).
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { key: seed }
    }
}

impl RandomSource for SeededRandom {
    fn fill(&mut self, out: &mut [u8]) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        for (index, chunk) in (0_u64..).zip(out.chunks_mut(32)) {
            let mut block = [1; 9];
            for (to, from) in block.iter_mut().skip(1).zip(index.to_be_bytes()) {
                *to = from;
            }
            chunk.copy_from_slice(hmac::sign(&key, &block).as_ref().get(..chunk.len()).unwrap_or_default());
        }
        self.key.copy_from_slice(hmac::sign(&key, &[0]).as_ref());
    }
}

impl Drop for SeededRandom {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeededRandom(redacted)")
    }
}

/// Bytes that are drawn at a time.
const POOL: usize = 1024;

/// Draws from a source in larger portions: where few bytes are wanted often, most of the source's work is saved.
///
/// What was handed out is erased; what waits to be would be known to whoever reads the memory.
pub struct Pooled<R> {
    source: R,
    pool: Zeroizing<[u8; POOL]>,
    left: usize,
}

impl<R: RandomSource> Pooled<R> {
    /// Draws nothing yet.
    #[must_use]
    pub fn new(source: R) -> Self {
        Self { source, pool: Zeroizing::new([0; POOL]), left: 0 }
    }
}

impl<R: RandomSource> RandomSource for Pooled<R> {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.left == 0 {
                self.source.fill(self.pool.as_mut_slice());
                self.left = POOL;
            }
            self.left -= 1;
            if let Some(next) = self.pool.get_mut(self.left) {
                *byte = std::mem::take(next);
            }
        }
    }
}

impl<R> std::fmt::Debug for Pooled<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pooled(redacted)")
    }
}

/// Draws `N` secret bytes.
pub(crate) fn secret<const N: usize>(rng: &mut dyn RandomSource) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    rng.fill(bytes.as_mut_slice());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_and_no_block_repeats() {
        let mut first = SeededRandom::new([7; 32]);
        let mut second = SeededRandom::new([7; 32]);
        let mut other = SeededRandom::new([8; 32]);
        let draw = |rng: &mut SeededRandom| {
            let mut out = [0; 80];
            rng.fill(&mut out);
            out
        };
        let a = draw(&mut first);
        assert_eq!(a, draw(&mut second));
        assert_ne!(a, draw(&mut other));
        assert_ne!(a, draw(&mut first));
        assert_ne!(a[..32], a[32..64]);
    }

    #[test]
    fn a_pool_hands_out_every_byte_once_and_keeps_none_of_them() {
        let mut whole = [0; POOL];
        SeededRandom::new([7; 32]).fill(&mut whole);
        whole.reverse();

        let mut pooled = Pooled::new(SeededRandom::new([7; 32]));
        let mut parts = [0; POOL];
        for part in parts.chunks_mut(24) {
            pooled.fill(part);
        }
        assert_eq!(parts, whole);
        assert_eq!(pooled.pool.as_slice(), [0; POOL]);

        let mut next = [0; 24];
        pooled.fill(&mut next);
        assert_ne!(next, parts[..24], "the same portion twice");
    }

    #[test]
    fn debug_does_not_show_the_seed() {
        assert_eq!(format!("{:?}", SeededRandom::new([0xab; 32])), "SeededRandom(redacted)");
    }
}
