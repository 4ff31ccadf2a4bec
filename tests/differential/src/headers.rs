//! Damage to IP and TCP headers.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_wire::ip::Packet;

/// Where the TCP header begins.
fn tcp_at(bytes: &[u8]) -> usize {
    Packet::parse(bytes).map_or(20, |packet| packet.header_len).min(bytes.len().saturating_sub(20))
}

fn add(bytes: &mut [u8], at: usize, delta: u32) {
    let field: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
    bytes[at..at + 4].copy_from_slice(&u32::from_be_bytes(field).wrapping_add(delta).to_be_bytes());
}

fn some_delta(rng: &mut StdRng) -> u32 {
    let near = [1, u32::MAX, 80, 81, 1460, 1 << 31];
    if rng.random_bool(0.8) { near[rng.random_range(0..near.len())] } else { rng.random() }
}

pub(crate) fn control_bits(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + 13;
    bytes[at] = rng.random_range(0..64);
}

pub(crate) fn other_bits(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes);
    let bits = [0x08, 0x20, 0x40, 0x80, 0xc0, 0x28];
    bytes[at + 13] |= bits[rng.random_range(0..bits.len())];
    if rng.random_bool(0.3) {
        bytes[at + 12] |= 1 << rng.random_range(0..4);
    }
}

pub(crate) fn sequence(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + 4;
    add(bytes, at, some_delta(rng));
}

pub(crate) fn acknowledgement(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + 8;
    add(bytes, at, some_delta(rng));
}

pub(crate) fn ports(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + 2 * rng.random_range(0..2);
    let known: [u16; 5] = [0, 80, 81, 443, 22];
    let port = if rng.random_bool(0.7) { known[rng.random_range(0..5)] } else { rng.random() };
    bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
}

pub(crate) fn window(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + if rng.random_bool(0.5) { 14 } else { 18 };
    bytes[at] = rng.random();
}

pub(crate) fn tcp_length(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + 12;
    bytes[at] = bytes[at] & 15 | rng.random_range(0..16) << 4;
}

/// Multipath, Fast Open, signatures, echo, experiments, end of list, and lengths that lead nowhere.
const OPTIONS: [[u8; 4]; 13] = [
    [30, 4, 0, 129],
    [34, 2, 1, 1],
    [34, 4, 9, 9],
    [19, 4, 0, 0],
    [29, 4, 1, 1],
    [6, 4, 0, 0],
    [253, 4, 0xf9, 0x89],
    [0, 0, 0, 0],
    [1, 1, 1, 1],
    [2, 0, 0, 0],
    [8, 1, 0, 0],
    [3, 40, 7, 0],
    [5, 4, 0, 0],
];

/// A word of options in front of the others.
pub(crate) fn tcp_option(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let at = tcp_at(bytes);
    if bytes[at + 12] >> 4 >= 15 {
        return;
    }
    let option = OPTIONS[rng.random_range(0..OPTIONS.len())];
    let behind = if rng.random_bool(0.5) { at + 20 } else { at + usize::from(bytes[at + 12] >> 4) * 4 };
    bytes.splice(behind..behind, option);
    bytes[at + 12] += 0x10;
    grow(bytes, 4);
}

/// No-operations or a source route in IPv4, a destination options or routing header in IPv6.
pub(crate) fn ip_option(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    if bytes[0] >> 4 == 4 {
        let options = [[1, 1, 1, 0], [7, 4, 4, 0], [131, 3, 4, 0], [148, 4, 0, 0], [68, 0, 0, 0]];
        bytes.splice(20..20, options[rng.random_range(0..options.len())]);
        bytes[0] += 1;
        grow(bytes, 4);
    } else {
        let kinds = [60, 0, 43, 44, 51, 135];
        let next = std::mem::replace(&mut bytes[6], kinds[rng.random_range(0..kinds.len())]);
        bytes.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        grow(bytes, 8);
    }
}

pub(crate) fn fragment(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    if bytes[0] >> 4 == 4 {
        let fields = [[0x20, 0], [0, 1], [0x60, 0], [0x80, 0], [0, 0], [0x20, 7]];
        bytes[6..8].copy_from_slice(&fields[rng.random_range(0..fields.len())]);
    } else {
        let fields = [[0, 0], [0, 1], [0, 8], [1, 1]];
        let [high, low] = fields[rng.random_range(0..fields.len())];
        let next = std::mem::replace(&mut bytes[6], 44);
        bytes.splice(40..40, [next, 0, high, low, 0, 0, 0, 9]);
        grow(bytes, 8);
    }
}

pub(crate) fn hops(bytes: &mut [u8], rng: &mut StdRng) {
    let places: &[usize] = if bytes[0] >> 4 == 4 { &[1, 4, 5, 8] } else { &[1, 2, 3, 7] };
    bytes[places[rng.random_range(0..places.len())]] = rng.random();
}

pub(crate) fn addresses(bytes: &mut [u8], rng: &mut StdRng) {
    let last: &[usize] = if bytes[0] >> 4 == 4 { &[15, 19] } else { &[23, 39] };
    bytes[last[rng.random_range(0..2)]] = rng.random_range(0..6);
}

/// The length in the IP header, and with it what belongs to the packet.
pub(crate) fn ip_length(bytes: &mut [u8], rng: &mut StdRng) {
    let at = if bytes[0] >> 4 == 4 { 2 } else { 4 };
    let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let lengths = [0, old.wrapping_sub(1), old.wrapping_add(1), old.wrapping_sub(80), rng.random()];
    let new = lengths[rng.random_range(0..lengths.len())];
    bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

/// The TCP checksum, that of the IPv4 header, or the sum of the pseudo-header alone.
pub(crate) fn break_sums(bytes: &mut [u8], rng: &mut StdRng) {
    let at = tcp_at(bytes) + 16;
    match rng.random_range(0..3) {
        0 => bytes[at + rng.random_range(0..2)] ^= rng.random_range(1..=255_u8),
        1 if bytes[0] >> 4 == 4 => bytes[10] ^= rng.random_range(1..=255_u8),
        _ => {
            let _unreadable: Result<(), _> = trireme_wire::checksum::make_partial(bytes);
        }
    }
}

fn grow(bytes: &mut [u8], by: u16) {
    let at = if bytes[0] >> 4 == 4 { 2 } else { 4 };
    let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]).wrapping_add(by);
    bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
}
