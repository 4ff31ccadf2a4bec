//! The TCP layout of a packet, and its checksum written out in full.
//!
//! Laxer than the engine's parser on purpose: a unit that is only observed loses nothing, so what the engine cannot
//! read must leave as complete as it would have without us.

use trireme_wire::checksum::Sum;

/// Where TCP lies in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Offset of the TCP header.
    pub(crate) tcp: usize,
    /// Offset of the payload.
    pub(crate) payload: usize,
    /// True for IPv6.
    pub(crate) v6: bool,
}

/// Finds TCP in an unfragmented packet.
pub(crate) fn layout(packet: &[u8]) -> Option<Layout> {
    let v6 = match packet.first()? >> 4 {
        4 => false,
        6 => true,
        _ => return None,
    };
    let tcp = if v6 { tcp_offset_v6(packet)? } else { tcp_offset_v4(packet)? };
    let header = usize::from(packet.get(tcp + 12)? >> 4) * 4;
    let payload = tcp + header;
    (header >= 20 && payload <= packet.len()).then_some(Layout { tcp, payload, v6 })
}

/// Completes the TCP checksum of a packet that left it to the hardware: the field then holds the sum of the
/// pseudo-header. Any other checksum stays as it is, right or wrong.
pub(crate) fn complete_partial(packet: &mut [u8]) {
    let Some(layout) = layout(packet) else { return };
    let partial = pseudo(packet, layout).fold();
    if word(packet, layout.tcp + 16) == Some(partial) {
        complete(packet, layout);
    }
}

/// Writes the TCP checksum, whatever stands there.
pub(crate) fn complete(packet: &mut [u8], layout: Layout) {
    put(packet, layout.tcp + 16, 0);
    let total = pseudo(packet, layout).with(packet.get(layout.tcp..).unwrap_or_default());
    put(packet, layout.tcp + 16, !total.fold());
}

/// Writes the checksum of the IPv4 header.
pub(crate) fn complete_header(packet: &mut [u8]) {
    let Some(length) = packet.first().map(|first| usize::from(first & 15) * 4) else { return };
    put(packet, 10, 0);
    let total = Sum::default().with(packet.get(..length).unwrap_or_default());
    put(packet, 10, !total.fold());
}

/// Reads a word in network byte order.
pub(crate) fn word(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

/// Writes a word in network byte order; outside of the packet nothing happens.
pub(crate) fn put(packet: &mut [u8], at: usize, value: u16) {
    for (to, from) in packet.iter_mut().skip(at).zip(value.to_be_bytes()) {
        *to = from;
    }
}

fn tcp_offset_v4(packet: &[u8]) -> Option<usize> {
    let fragment = word(packet, 6)? & 0x3fff != 0;
    (*packet.get(9)? == 6 && !fragment).then(|| usize::from(packet.first().map_or(0, |f| f & 15)) * 4)
}

fn tcp_offset_v6(packet: &[u8]) -> Option<usize> {
    let (mut next, mut at) = (*packet.get(6)?, 40);
    for _ in 0..8 {
        match next {
            6 => return Some(at),
            0 | 43 | 60 | 135 | 139 | 140 => {
                next = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            51 => {
                next = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 2) * 4;
            }
            _ => return None,
        }
    }
    None
}

fn pseudo(packet: &[u8], layout: Layout) -> Sum {
    let addresses = if layout.v6 { 8..40 } else { 12..20 };
    let length = u32::try_from(packet.len() - layout.tcp).unwrap_or(0).to_be_bytes();
    Sum::default().with(packet.get(addresses).unwrap_or_default()).add_word(6).with(&length)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A packet whose checksums are left to the hardware.
    pub(crate) fn packet(v6: bool, payload: usize) -> Vec<u8> {
        let tcp = 20 + 12 + payload;
        let mut packet = if v6 {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
            head.resize(40, 0xfd);
            put(&mut head, 4, u16::try_from(tcp).unwrap_or(0));
            head
        } else {
            let mut head = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            put(&mut head, 2, u16::try_from(20 + tcp).unwrap_or(0));
            complete_header(&mut head);
            head
        };
        packet.extend([0x9c, 0x40, 0, 80, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x80, 0x99, 1, 0, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        packet.extend((0..payload).map(|n| u8::try_from(n % 251).unwrap_or(0)));
        if let Some(layout) = layout(&packet) {
            let partial = pseudo(&packet, layout).fold();
            put(&mut packet, layout.tcp + 16, partial);
        }
        packet
    }

    /// True if the TCP checksum verifies.
    pub(crate) fn verifies(packet: &[u8]) -> bool {
        layout(packet).is_some_and(|layout| {
            pseudo(packet, layout).with(packet.get(layout.tcp..).unwrap_or_default()).fold() == 0xffff
        })
    }

    #[test]
    fn partial_checksum_is_completed_and_a_wrong_one_stays_wrong() {
        for (v6, payload) in [(false, 0), (false, 1), (false, 1447), (true, 0), (true, 3)] {
            let mut partial = packet(v6, payload);
            complete_partial(&mut partial);
            assert!(verifies(&partial), "{v6} {payload}");

            let complete = partial.clone();
            complete_partial(&mut partial);
            assert_eq!(partial, complete);

            let mut corrupt = complete;
            corrupt.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
            let before = corrupt.clone();
            complete_partial(&mut corrupt);
            assert_eq!(corrupt, before);
        }
    }
}
