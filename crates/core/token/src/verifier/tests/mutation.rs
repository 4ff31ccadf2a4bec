//! No change of a single bit, and no cut, is accepted.

use crate::testing::{ENCODINGS, NOW, TAGS, TRUSTS, request, signer, verifier};
use crate::{Token, Verifier};

fn refused(verifier: &Verifier, token: &[u8], credential: &[u8]) -> bool {
    let _id = verifier.cheap_check(token, credential);
    verifier.verify(token, credential, NOW).is_err()
}

fn tokens() -> impl Iterator<Item = (String, Verifier, Token)> {
    TRUSTS.into_iter().flat_map(|trust| {
        ENCODINGS.map(|encoding| {
            let token = signer(trust).issue(&request(&TAGS), encoding).unwrap();
            (format!("{trust:?} {encoding:?}"), verifier(trust), token)
        })
    })
}

#[test]
fn every_flipped_bit_of_a_token_is_refused() {
    for (name, verifier, token) in tokens() {
        let mut bytes = token.bytes.to_vec();
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&verifier, &bytes, &token.credential), "{name} bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!refused(&verifier, &bytes, &token.credential), "{name}");
    }
}

#[test]
fn every_flipped_bit_of_a_credential_is_refused() {
    for (name, verifier, token) in tokens() {
        let mut credential = token.credential.to_vec();
        for bit in 0..8 * credential.len() {
            credential[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&verifier, &token.bytes, &credential), "{name} bit {bit}");
            credential[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for (name, verifier, token) in tokens() {
        for len in 0..token.bytes.len() {
            assert!(refused(&verifier, &token.bytes[..len], &token.credential), "{name} {len}");
        }
        for len in 0..token.credential.len() {
            assert!(refused(&verifier, &token.bytes, &token.credential[..len]), "{name} {len}");
        }
        for extra in [0_u8, b'A', b'.', b'=', b' ', b'\n', 0xf6] {
            let longer = [&token.bytes, [extra].as_slice()].concat();
            assert!(refused(&verifier, &longer, &token.credential), "{name} {extra}");
            let longer = [&token.credential, [extra].as_slice()].concat();
            assert!(refused(&verifier, &token.bytes, &longer), "{name} {extra}");
        }
    }
}

#[test]
fn random_bytes_are_refused() {
    use crate::RandomSource;
    let mut rng = crate::testing::rng(9);
    for (name, verifier, token) in tokens() {
        for len in 1..300 {
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            assert!(refused(&verifier, &bytes, &token.credential), "{name}");
            assert!(refused(&verifier, &token.bytes, &bytes), "{name}");
            for first in [b'e', 0xd1, 0xd2, 0x30] {
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                    assert!(refused(&verifier, &bytes, &bytes), "{name}");
                }
            }
        }
    }
}
