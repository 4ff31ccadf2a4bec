//! Named traps: one packet each, and what it must be taken for.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod answers;
mod checksums;
mod datagrams;
mod edits;
mod flags;
mod headers;
mod options;
mod quotes;
mod tap;

use std::net::IpAddr;

use trireme_wire::build::{self, TcpSpec};
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

/// A SYN over IPv4 from 10.0.0.1:40000 to 10.0.0.2:80 at sequence 1000.
fn syn_v4(options: &[u8], payload: &[u8]) -> Vec<u8> {
    segment("10.0.0.1", "10.0.0.2", Flags::SYN, options, payload)
}

/// The same over IPv6 from fd00::1 to fd00::2.
fn syn_v6(options: &[u8], payload: &[u8]) -> Vec<u8> {
    segment("fd00::1", "fd00::2", Flags::SYN, options, payload)
}

fn segment(src: &str, dst: &str, flags: Flags, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let ack = if flags.contains(Flags::ACK) { 7000 } else { 0 };
    build::tcp(&TcpSpec {
        window: 64_240,
        options,
        payload,
        ..TcpSpec::new(endpoint(src, 40_000), endpoint(dst, 80), 1000, ack, flags)
    })
    .unwrap()
}

fn endpoint(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(addr.parse::<IpAddr>().unwrap(), port)
}

/// Puts bytes between the headers; fixes IPv4 header length and the total length of either.
fn with_ip_extra(mut packet: Vec<u8>, extra: &[u8]) -> Vec<u8> {
    let (at, total_at, counted) = if packet[0] >> 4 == 4 {
        packet[0] += u8::try_from(extra.len() / 4).unwrap();
        (20, 2, 0)
    } else {
        (40, 4, 40)
    };
    packet.splice(at..at, extra.iter().copied());
    let len = u16::try_from(packet.len() - counted).unwrap();
    packet[total_at..total_at + 2].copy_from_slice(&len.to_be_bytes());
    packet
}

/// An IPv6 packet whose first extension header is of the given kind.
fn with_extension(kind: u8, extension: &[u8]) -> Vec<u8> {
    let mut packet = with_ip_extra(syn_v6(&[], &[]), extension);
    packet[6] = kind;
    packet
}
