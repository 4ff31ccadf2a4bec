//! Stateless cookies: under load a sender first shows that it receives at its address.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip128::{Hasher128, SipHasher24};
use trireme_flow::FlowKey;
use trireme_identity::time::Instant;
use trireme_token::{MacKey, mac_matches};

/// A cookie is accepted in the period it was made in and in the next.
const PERIOD_NANOS: u64 = 32_000_000_000;

/// SipHash-2-4-128 over period, flow, sequence number and nonce of the SYN.
pub(crate) fn make(key: &MacKey, flow: FlowKey, isn: u32, nonce: &[u8; 16], now: Instant) -> [u8; 16] {
    at(key, flow, isn, nonce, now.as_nanos() / PERIOD_NANOS)
}

/// Whether a SYN brings back a cookie of ours.
pub(crate) fn matches(
    key: &MacKey,
    flow: FlowKey,
    isn: u32,
    nonce: &[u8; 16],
    cookie: &[u8; 16],
    now: Instant,
) -> bool {
    let period = now.as_nanos() / PERIOD_NANOS;
    mac_matches(&at(key, flow, isn, nonce, period), cookie)
        || mac_matches(&at(key, flow, isn, nonce, period.wrapping_sub(1)), cookie)
}

fn at(key: &MacKey, flow: FlowKey, isn: u32, nonce: &[u8; 16], period: u64) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(key.secret_bytes());
    hasher.write(&period.to_be_bytes());
    hasher.write(&flow.pu.0.to_be_bytes());
    for (address, port) in [flow.local, flow.remote] {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        hasher.write(&address);
        hasher.write(&port.to_be_bytes());
    }
    hasher.write(&isn.to_be_bytes());
    hasher.write(nonce);
    hasher.finish128().as_bytes()
}
