//! Randomness of the kernel.

use std::fs::File;
use std::io::{self, Read};

use zeroize::Zeroizing;

/// Draws 32 bytes that nobody can guess: the seed of a generator, or a key.
///
/// # Errors
/// If `/dev/urandom` cannot be read.
pub fn random_seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    File::open("/dev/urandom")?.read_exact(seed.as_mut_slice())?;
    Ok(seed)
}
