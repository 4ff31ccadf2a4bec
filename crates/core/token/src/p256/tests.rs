use super::low_s::{HALF_ORDER, ORDER, is_low, negate, normalize};
use super::*;
use crate::SeededRandom;

fn key(seed: u8) -> SigningKey {
    SigningKey::generate(&mut SeededRandom::new([seed; 32])).unwrap()
}

#[test]
fn half_the_order_is_half_the_order() {
    // n is odd: n = 2 * half + 1.
    let mut carry = 1_u16;
    let mut doubled = [0; 32];
    for (to, half) in doubled.iter_mut().zip(HALF_ORDER).rev() {
        let sum = 2 * u16::from(half) + carry;
        *to = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!((doubled, carry), (ORDER, 0));
}

#[test]
fn every_signature_has_low_s_and_its_twin_is_refused() {
    let key = key(1);
    for index in 0..64_u8 {
        let message = [index];
        let signature = key.sign(&message).unwrap();
        assert!(is_low(&signature));
        assert_eq!(key.public().verify(&message, &signature), Ok(()));
        let mut twin = signature;
        negate(&mut twin);
        assert_eq!(key.public().verify(&message, &twin), Err(SignatureError::HighS));
        // It is refused for its form alone: as a signature it would do.
        assert!(key.public().parsed.verify_sig(&message, &twin).is_ok());
        normalize(&mut twin);
        assert_eq!(twin, signature);
    }
}

#[test]
fn the_edge_of_low_s_is_half_the_order() {
    let mut signature = [0; 64];
    signature[32..].copy_from_slice(&HALF_ORDER);
    assert!(is_low(&signature));
    negate(&mut signature);
    assert!(!is_low(&signature));
    signature[32..].copy_from_slice(&ORDER);
    assert!(!is_low(&signature));
}

#[test]
fn zero_and_oversized_values_are_no_signatures() {
    let key = key(1);
    let mut of_order = [0; 64];
    of_order[..32].copy_from_slice(&ORDER);
    of_order[63] = 1;
    for signature in [[0; 64], [0xff; 64], of_order] {
        assert!(key.public().verify(b"message", &signature).is_err());
    }
}

#[test]
fn equal_seeds_make_equal_keys_and_pem_round_trips() {
    let first = key(5);
    assert_eq!(first.public(), key(5).public());
    assert_ne!(first.public(), key(6).public());
    let pem = first.to_pem();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.ends_with("-----END PRIVATE KEY-----\n"));
    assert_eq!(SigningKey::from_pem(&pem).unwrap().public(), first.public());
    let public = first.public().to_pem();
    assert_eq!(VerifyingKey::from_pem(&public).as_ref(), Ok(first.public()));
    assert_eq!(first.public().id(), KeyId(sha256(first.public().spki_der())));
}

#[test]
fn compressed_points_round_trip_for_both_parities() {
    let mut seen = [false; 2];
    for seed in 0..16 {
        let public = key(seed).public().clone();
        let compressed = public.compressed();
        seen[usize::from(compressed[0] & 1)] = true;
        assert_eq!(VerifyingKey::from_compressed(&compressed).as_ref(), Ok(&public));
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn other_keys_and_forms_are_refused() {
    assert_eq!(SigningKey::from_pem("nothing").err(), Some(KeyError::NotPem));
    let p384 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let der = p384.to_pkcs8v1().unwrap();
    assert_eq!(SigningKey::from_pkcs8_der(der.as_ref()).err(), Some(KeyError::NotPrivateKey));
    let public = key(1).public().clone();
    let spki = public.spki_der();
    assert_eq!(VerifyingKey::from_spki_der(&spki[..90]).err(), Some(KeyError::NotPublicKey));
    let mut off_curve = spki.to_vec();
    off_curve[90] ^= 1;
    assert_eq!(VerifyingKey::from_spki_der(&off_curve).err(), Some(KeyError::NotPublicKey));
    let mut compressed = public.compressed();
    compressed[0] = 4;
    assert_eq!(VerifyingKey::from_compressed(&compressed).err(), Some(KeyError::NotPublicKey));
}

#[test]
fn debug_shows_no_private_byte() {
    let key = key(1);
    let text = format!("{key:?}");
    assert_eq!(
        text,
        format!("SigningKey {{ private: \"redacted\", public: VerifyingKey({}) }}", key.public().id())
    );
}
