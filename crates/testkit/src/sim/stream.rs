//! Byte streams that prove on arrival which connection they belong to.

use crate::packets::{TAP_HEADER_LEN, TAP_MAGIC};

/// Which way a stream flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the connecting host.
    ToServer,
    /// From the accepting host.
    ToClient,
}

/// What the first bytes of a stream look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The sender's id, then its pattern.
    Plain,
    /// Bytes that could be taken for a TAP header, then the plain opening.
    LooksLikeTap,
}

impl Opening {
    const fn len(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::LooksLikeTap => TAP_HEADER_LEN,
        }
    }
}

/// The stream one endpoint sends: its id in four bytes, then a pattern that depends on id, way and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Sender's id.
    pub id: u32,
    /// Direction.
    pub way: Way,
    /// First bytes.
    pub opening: Opening,
    /// Bytes in total.
    pub len: usize,
}

impl Stream {
    /// The bytes from `offset` on, at most `max`.
    #[must_use]
    pub fn bytes(&self, offset: usize, max: usize) -> Vec<u8> {
        (offset..self.len.min(offset + max)).map(|at| self.byte(at)).collect()
    }

    fn byte(&self, at: usize) -> u8 {
        let opening = self.opening.len();
        match at.checked_sub(opening) {
            None => fake_tap(at),
            Some(at @ 0..4) => self.id.to_le_bytes()[at],
            Some(at) => pattern(self.id, self.way, at),
        }
    }
}

/// Checks arriving bytes against the stream whose id they carry.
#[derive(Clone, Debug)]
pub struct Checker {
    way: Way,
    opening: Opening,
    received: usize,
    id: [u8; 4],
    first_wrong: Option<usize>,
}

impl Checker {
    /// A checker for one direction of one connection.
    #[must_use]
    pub const fn new(way: Way, opening: Opening) -> Self {
        Self { way, opening, received: 0, id: [0; 4], first_wrong: None }
    }

    /// Takes the next bytes in order.
    pub fn push(&mut self, bytes: &[u8]) {
        let opening = self.opening.len();
        for byte in bytes {
            let at = self.received;
            let right = match at.checked_sub(opening) {
                None => *byte == fake_tap(at),
                Some(at @ 0..4) => {
                    self.id[at] = *byte;
                    true
                }
                Some(at) => *byte == pattern(u32::from_le_bytes(self.id), self.way, at),
            };
            if !right && self.first_wrong.is_none() {
                self.first_wrong = Some(at);
            }
            self.received += 1;
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn received(&self) -> usize {
        self.received
    }

    /// Offset of the first byte that did not belong to the stream.
    #[must_use]
    pub const fn first_wrong(&self) -> Option<usize> {
        self.first_wrong
    }

    /// The sender's id, once all its bytes are here.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        (self.received >= self.opening.len() + 4).then(|| u32::from_le_bytes(self.id))
    }
}

/// A believable kind-3 header with a MAC nobody made.
fn fake_tap(at: usize) -> u8 {
    match at {
        0..4 => TAP_MAGIC[at],
        4 => 3,
        5 => 2,
        7 => 80,
        6 => 0,
        76.. => 0,
        _ => u8::try_from(at).unwrap_or(0) ^ 0xa5,
    }
}

fn pattern(id: u32, way: Way, at: usize) -> u8 {
    let salt = match way {
        Way::ToServer => 0x9e37_79b9_7f4a_7c15_u64,
        Way::ToClient => 0xc2b2_ae3d_27d4_eb4f,
    };
    let mixed =
        (u64::from(id) << 32 | (at as u64 >> 3)).wrapping_mul(salt).rotate_left(29).wrapping_mul(salt | 1);
    mixed.to_le_bytes()[at & 7]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_checks_itself_and_one_wrong_byte_is_found() {
        for opening in [Opening::Plain, Opening::LooksLikeTap] {
            let stream = Stream { id: 77, way: Way::ToClient, opening, len: 1000 };
            let mut bytes = stream.bytes(0, 600);
            bytes.extend(stream.bytes(600, 600));
            let mut checker = Checker::new(Way::ToClient, opening);
            checker.push(&bytes);
            assert_eq!((checker.received(), checker.id(), checker.first_wrong()), (1000, Some(77), None));
            bytes[500] ^= 1;
            let mut checker = Checker::new(Way::ToClient, opening);
            checker.push(&bytes);
            assert_eq!(checker.first_wrong(), Some(500));
        }
    }
}
