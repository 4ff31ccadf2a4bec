//! No change of a single bit, and no cut, is accepted.

use proptest::prelude::*;

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

/// One edit of a byte string.
#[derive(Clone, Debug)]
enum Edit {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Copy(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        any::<usize>().prop_map(Edit::Remove),
        (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Edit::Copy(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let len = bytes.len().max(1);
    match *edit {
        Edit::Set(at, byte) => bytes[at % len] = byte,
        Edit::Insert(at, byte) => bytes.insert(at % len, byte),
        Edit::Remove(at) if bytes.len() > 1 => drop(bytes.remove(at % len)),
        Edit::Remove(_) => {}
        Edit::Copy(from, to) => bytes[to % len] = bytes[from % len],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn edited_tokens_and_credentials_are_refused(
        of_token in proptest::collection::vec(edit(), 0..6),
        of_credential in proptest::collection::vec(edit(), 0..6),
    ) {
        for (name, verifier, token) in tokens() {
            let (mut bytes, mut credential) = (token.bytes.to_vec(), token.credential.to_vec());
            of_token.iter().for_each(|edit| apply(&mut bytes, edit));
            if !credential.is_empty() {
                of_credential.iter().for_each(|edit| apply(&mut credential, edit));
            }
            let unchanged = *bytes == *token.bytes && *credential == *token.credential;
            prop_assert_eq!(refused(&verifier, &bytes, &credential), !unchanged, "{}", name);
        }
    }
}
