//! Packets as a test looks at them and makes them.

use std::net::SocketAddr;

use trireme_nfqueue::Hook;

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

/// What was queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) outward: bool,
    pub(crate) mark: u32,
    pub(crate) protocol: u8,
    /// Flags of TCP.
    pub(crate) flags: u8,
    /// Payload of TCP.
    pub(crate) payload: Vec<u8>,
}

impl Seen {
    pub(crate) fn read(hook: Hook, mark: u32, bytes: &[u8]) -> Self {
        let (mut protocol, mut at) = match bytes[0] >> 4 {
            4 => (bytes[9], usize::from(bytes[0] & 15) * 4),
            _ => (bytes[6], 40),
        };
        // Destination options.
        if protocol == 60 {
            (protocol, at) = (bytes[at], at + 8 + usize::from(bytes[at + 1]) * 8);
        }
        let rest = &bytes[at..];
        let (flags, payload) = match protocol {
            6 => (rest[13], rest[usize::from(rest[12] >> 4) * 4..].to_vec()),
            _ => (0, Vec::new()),
        };
        Self { outward: hook == Hook::LocalOut, mark, protocol, flags, payload }
    }

    pub(crate) fn is_syn(&self) -> bool {
        self.protocol == 6 && self.flags & SYN != 0
    }
}

/// A TCP header without options.
pub(crate) fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    header
}

/// An IPv6 packet whose TCP header is behind destination options.
pub(crate) fn behind_options(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let (SocketAddr::V6(source), SocketAddr::V6(destination)) = (from, to) else { panic!("not IPv6") };
    let mut packet = vec![0x60, 0, 0, 0, 0, 28, 60, 64];
    packet.extend(source.ip().octets());
    packet.extend(destination.ip().octets());
    // Eight bytes, filled up by one option of padding.
    packet.extend([6, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend(segment(from, to, flags));
    packet
}
