//! MACs over header parts, peer's token id and peer's nonce.

use serde::Serialize;
use trireme_token::{MacKey, Nonce, TokenId, mac};

use super::{counting, hex};

/// The file's content.
#[derive(Serialize)]
pub(super) struct Macs {
    about: &'static str,
    macs: Vec<Vector>,
}

#[derive(Serialize)]
struct Vector {
    name: &'static str,
    key: String,
    header_0_40: String,
    header_56_80: String,
    peer_token: String,
    peer_nonce: String,
    mac: String,
}

/// Computes the file's content.
pub(super) fn generate() -> anyhow::Result<Macs> {
    let zero = ([0; 40], [0; 24], TokenId::ZERO, Nonce::ZERO);
    let counted = (counting(0), counting(40), TokenId(counting(64)), Nonce(counting(80)));
    let unknown_peer = (counting(0), counting(40), TokenId::ZERO, Nonce::ZERO);
    let ones = ([0xff; 40], [0xff; 24], TokenId([0xff; 16]), Nonce([0xff; 16]));
    Ok(Macs {
        about: "SipHash-2-4 with 128-bit output, key 16 bytes, over header bytes 0-39, header bytes 56-79, the \
                peer's token id and the peer's nonce, 96 bytes in all; a value not known yet is zero",
        macs: vec![
            vector("all zero, zero key", [0; 16], zero),
            vector("counting bytes", counting(0), counted),
            vector("peer not known yet", counting(0), unknown_peer),
            vector("all ones", [0xff; 16], ones),
            vector("counting bytes, another key", counting(0x80), counted),
        ],
    })
}

fn vector(name: &'static str, key: [u8; 16], parts: ([u8; 40], [u8; 24], TokenId, Nonce)) -> Vector {
    let (front, back, token, nonce) = parts;
    Vector {
        name,
        key: hex(&key),
        header_0_40: hex(&front),
        header_56_80: hex(&back),
        peer_token: token.to_string(),
        peer_nonce: nonce.to_string(),
        mac: hex(&mac(&MacKey::from_bytes(key), &front, &back, &token, &nonce)),
    }
}
