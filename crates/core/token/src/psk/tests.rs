use super::*;
use crate::SeededRandom;

fn refusal(text: &str) -> Option<PskError> {
    Psk::from_text(text).err()
}

#[test]
fn empty_short_default_and_simple_keys_are_refused() {
    assert_eq!(refusal(""), Some(PskError::Empty));
    assert_eq!(refusal(" \n"), Some(PskError::Empty));
    assert_eq!(refusal("k3Xw9qLr7TzB2mV"), Some(PskError::TooShort(15)));
    assert_eq!(refusal("k3Xw9qLr7TzB2mVd"), None);
    let default = [
        "BADPASS",
        "changeme",
        "password",
        "ChangeMeChangeMe",
        "badpassbadpassbadpass",
        "secret-0000000000000",
        "trireme-default-psk",
        "mysecretpassword123",
    ];
    for text in default {
        assert_eq!(refusal(text), Some(PskError::Default), "{text}");
    }
    assert_eq!(refusal(&"a".repeat(40)), Some(PskError::TooSimple));
    assert_eq!(refusal(&"abc123".repeat(10)), Some(PskError::TooSimple));
    assert_eq!(Psk::new(&[0; 32]).err(), Some(PskError::TooSimple));
    assert_eq!(Psk::new(&[b'x'; 513]).err(), Some(PskError::TooLong(513)));
}

#[test]
fn generated_keys_are_accepted_and_long_enough() {
    for seed in 0..=255 {
        let text = Psk::generate_text(&mut SeededRandom::new([seed; 32]));
        assert_eq!((text.len(), refusal(&text)), (43, None), "seed {seed}");
    }
}

#[test]
fn white_space_around_the_text_does_not_matter() {
    let key = |text: &str| Psk::from_text(text).unwrap().key_id();
    assert_eq!(key("k3Xw9qLr7TzB2mVd\n"), key("k3Xw9qLr7TzB2mVd"));
    assert_ne!(key("k3Xw9qLr7TzB2mVd"), key("k3Xw9qLr7TzB2mVe"));
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", Psk::new(b"k3Xw9qLr7TzB2mVd").unwrap());
    assert!(text.contains("redacted") && !text.contains("k3Xw") && !text.contains("107, 51"), "{text}");
}

#[test]
fn a_key_is_wiped_on_request() {
    let mut psk = Psk::new(b"k3Xw9qLr7TzB2mVd").unwrap();
    psk.zeroize();
    assert!(psk.secret_bytes().is_empty());
    assert_eq!(psk.token_key, [0; 32]);
}
