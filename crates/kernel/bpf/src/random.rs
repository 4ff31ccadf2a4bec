//! Randomness of the kernel's.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills a buffer with bytes that nobody can foresee.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    // Up to 256 bytes come whole or not at all.
    for chunk in bytes.chunks_mut(256) {
        getrandom(&mut *chunk, GetRandomFlags::empty())?;
    }
    Ok(())
}
