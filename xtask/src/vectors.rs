//! Test vectors of the protocol, so that a second implementation (and the kernel program) can be compared.
//!
//! Everything follows from constants: two runs give the same bytes. ECDSA signatures are random, so tokens
//! and credentials of the PKI mode are kept in [`fixed`]; the generator verifies them before it writes them.

mod fixed;
mod handshake;
mod headers;
mod keys;
mod macs;
mod tokens;

use anyhow::Context;
use serde::Serialize;
use trireme_token::{AgreementKey, Psk, SeededRandom};

/// Every vector file as (file name, JSON text).
pub(crate) fn generate() -> anyhow::Result<Vec<(String, String)>> {
    Ok(vec![
        file("tokens.json", &tokens::generate().context("tokens")?)?,
        file("keys.json", &keys::generate().context("keys")?)?,
        file("macs.json", &macs::generate()?)?,
        file("headers.json", &headers::generate().context("headers")?)?,
        file("handshake.json", &handshake::generate().context("handshake")?)?,
    ])
}

fn file(name: &str, content: &impl Serialize) -> anyhow::Result<(String, String)> {
    let mut text = serde_json::to_string_pretty(content)?;
    text.push('\n');
    Ok((name.to_owned(), text))
}

/// The pre-shared key of the vectors; never use it elsewhere.
const PSK: &str = "k3Xw9qLr7TzB2mVd";

fn psk() -> anyhow::Result<Psk> {
    Ok(Psk::from_text(PSK)?)
}

/// The private agreement keys are 32 times one byte.
fn agreement(byte: u8) -> anyhow::Result<AgreementKey> {
    Ok(AgreementKey::from_bytes([byte; 32])?)
}

/// The byte of the initiator's private agreement key.
const INITIATOR: u8 = 0x11;
/// The byte of the responder's private agreement key.
const RESPONDER: u8 = 0x22;

const fn seeded(byte: u8) -> SeededRandom {
    SeededRandom::new([byte; 32])
}

/// `N` bytes that count up from `start`.
fn counting<const N: usize>(start: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut next = start;
    for byte in &mut bytes {
        *byte = next;
        next = next.wrapping_add(1);
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let text = text.split_whitespace().collect::<String>();
    (0..text.len())
        .step_by(2)
        .map(|at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).context("bad hex"))
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests;
