//! Tokens that mean the same, or almost, in another form: signed correctly and refused all the same.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ciborium::Value;

use crate::claims::Algorithm;
use crate::cose;
use crate::p256::negate_s;
use crate::testing::{NOW, TAGS, Trust, node_key, request, signer, verifier};
use crate::{Encoding, Psk, Token, VerifyError};

fn es256_cwt() -> Token {
    signer(Trust::Prepopulated).issue(&request(&TAGS), Encoding::Cwt).unwrap()
}

fn es256_jwt() -> Token {
    signer(Trust::Prepopulated).issue(&request(&TAGS), Encoding::Jwt).unwrap()
}

/// Checks without a credential in PKI mode, the key being known.
fn check(token: &[u8]) -> Result<(), VerifyError> {
    verifier(Trust::Prepopulated).verify(token, &[], NOW).map(|_| ())
}

/// Signs any header and payload texts as a JWT.
fn jwt(header: &str, payload: &str) -> Vec<u8> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = node_key().sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()
}

const HEADER: &str = r#"{"alg":"ES256","typ":"tap+jwt"}"#;

fn jwt_payload() -> String {
    let token = es256_jwt();
    let text = std::str::from_utf8(&token.bytes).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).unwrap()).unwrap();
    String::from_utf8(payload).unwrap()
}

/// Signs any protected header and payload bytes as a CWT; `unprotected` and `tail` as given.
fn cwt(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let signed = cose::signed_bytes(Algorithm::Es256, protected, b"", payload);
    let signature = node_key().sign(&signed).unwrap();
    let message = [protected, payload, &signature].map(|bytes| Value::Bytes(bytes.to_vec()));
    let [protected, payload, signature] = message;
    let array = Value::Array(vec![protected, Value::Map(Vec::new()), payload, signature]);
    cose::to_bytes(&Value::Tag(18, Box::new(array))).unwrap()
}

fn cwt_payload() -> Vec<u8> {
    let token = es256_cwt();
    cose::parse(&token.bytes, Algorithm::Es256).unwrap().payload
}

fn entries(payload: &[u8]) -> Vec<(Value, Value)> {
    let Ok(Value::Map(entries)) = cose::value(payload) else { unreachable!("a map") };
    entries
}

fn cwt_of(entries: Vec<(Value, Value)>) -> Vec<u8> {
    cwt(&cose::ES256, &cose::to_bytes(&Value::Map(entries)).unwrap())
}

#[test]
fn the_forging_helpers_write_the_accepted_form() {
    assert_eq!(check(&jwt(HEADER, &jwt_payload())), Ok(()));
    assert_eq!(check(&cwt(&cose::ES256, &cwt_payload())), Ok(()));
    assert_eq!(check(&cwt_of(entries(&cwt_payload()))), Ok(()));
}

#[test]
fn other_algorithms_are_refused_whatever_the_token_says() {
    let payload = jwt_payload();
    for alg in ["none", "RS256", "HS256", "ES384", "es256", "EdDSA"] {
        let header = format!(r#"{{"alg":"{alg}","typ":"tap+jwt"}}"#);
        assert_eq!(check(&jwt(&header, &payload)), Err(VerifyError::WrongAlgorithm), "{alg}");
    }
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"tap+jwt"}"#);
    let unsigned = format!("{head}.{}.", URL_SAFE_NO_PAD.encode(&payload));
    assert_eq!(check(unsigned.as_bytes()), Err(VerifyError::WrongAlgorithm));
    for protected in [[0xa1, 0x01, 0x05].as_slice(), &[0xa1, 0x01, 0x38, 0x22], &[0xa1, 0x01, 0x27]] {
        assert_eq!(check(&cwt(protected, &cwt_payload())), Err(VerifyError::WrongAlgorithm), "{protected:?}");
    }
}

#[test]
fn a_mac_made_with_the_public_key_is_refused() {
    let spki = node_key().public().spki_der().to_vec();
    let hmac = |key: &[u8], message: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
    };
    for key in [spki.clone(), node_key().public().to_pem().into_bytes()] {
        for alg in ["HS256", "ES256"] {
            let header = format!(r#"{{"alg":"{alg}","typ":"tap+jwt"}}"#);
            let signed =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(jwt_payload()));
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac(&key, signed.as_bytes())));
            assert!(
                matches!(check(token.as_bytes()), Err(VerifyError::WrongAlgorithm | VerifyError::Malformed)),
                "{alg}"
            );
        }
    }
    let payload = cwt_payload();
    let signed = cose::signed_bytes(Algorithm::Hs256, &cose::HS256, b"", &payload);
    let signature = hmac(&spki, &signed);
    let message = cose::Message { protected: cose::HS256.to_vec(), payload, signature };
    let token = cose::assemble(Algorithm::Hs256, message).unwrap();
    assert_eq!(check(&token), Err(VerifyError::WrongAlgorithm));
}

#[test]
fn jwts_in_another_form_are_refused() {
    let payload = jwt_payload();
    let iat = format!(r#""iat":{}"#, NOW.0);
    let variants = [
        payload.replace(",", ", "),
        payload.replacen("{", "{ ", 1),
        format!("{payload} "),
        payload.replacen(r#"{"iss":"node-a","sub":"frontend-0""#, r#"{"sub":"frontend-0","iss":"node-a""#, 1),
        payload.replacen('{', r#"{"jti":"x","#, 1),
        payload.replacen(r#""iss":"node-a""#, r#""iss":"node-b","iss":"node-a""#, 1),
        payload.replacen("node-a", r"node\u002da", 1),
        payload.replacen(&iat, &format!("{iat}.0"), 1),
        payload.replacen(&iat, &format!("{iat}e0"), 1),
        payload.replacen(&iat, &iat.replacen(':', ":0", 1), 1),
        payload.replacen(r#""tags":["#, r#""tags":["app=shop","#, 1),
        payload.replacen(r#""tags""#, r#""partial":false,"tags""#, 1),
        payload.replacen(r#""tags""#, r#""extra":1,"tags""#, 1),
        payload.replacen(r#""v":1"#, r#""v":"1""#, 1),
    ];
    for variant in variants {
        assert_ne!(variant, payload);
        let refusal = check(&jwt(HEADER, &variant));
        assert!(
            matches!(refusal, Err(VerifyError::Malformed | VerifyError::NotCanonical)),
            "{variant} {refusal:?}"
        );
    }
    let version = payload.replacen(r#""v":1"#, r#""v":2"#, 1);
    assert_eq!(check(&jwt(HEADER, &version)), Err(VerifyError::UnknownVersion));
    let headers = [
        r#"{"typ":"tap+jwt","alg":"ES256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"ES256","typ":"JWT"}"#,
        r#"{"alg": "ES256","typ":"tap+jwt"}"#,
        r#"{"alg":"ES256","typ":"tap+jwt","kid":"1"}"#,
        r#"{"alg":"ES256","typ":"tap+jwt","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","typ":"tap+jwt","jwk":{}}"#,
    ];
    for header in headers {
        assert_eq!(check(&jwt(header, &payload)), Err(VerifyError::NotCanonical), "{header}");
    }
    for (at, alg) in [("NONE", r#"{"alg":null}"#), ("list", "[]"), ("empty", "")] {
        assert_eq!(check(&jwt(alg, &payload)), Err(VerifyError::Malformed), "{at}");
    }
}

#[test]
fn base64_in_another_form_is_refused() {
    let token = String::from_utf8(es256_jwt().bytes.to_vec()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { unreachable!("three parts") };
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let padded = URL_SAFE.encode(&bytes);
    assert!(padded.ends_with('='));
    assert_eq!(check(format!("{header}.{payload}.{padded}").as_bytes()), Err(VerifyError::NotCanonical));
    // 64 bytes leave four unused bits in the last character.
    let last = signature.chars().last().unwrap();
    let mut odd = signature.to_owned();
    odd.pop();
    odd.push(char::from(last as u8 + 1));
    assert_eq!(check(format!("{header}.{payload}.{odd}").as_bytes()), Err(VerifyError::NotCanonical));
    for bad in [
        "{h}.{p}",
        "{h}.{p}.{s}.",
        "{h}.{p}.{s}.{s}",
        "{h}. {p}.{s}",
        "{h}.{p}.{s}\n",
        "{h}\n.{p}.{s}",
        "..",
        "e",
    ] {
        let text = bad.replace("{h}", header).replace("{p}", payload).replace("{s}", signature);
        let refusal = check(text.as_bytes());
        assert!(
            matches!(refusal, Err(VerifyError::Malformed | VerifyError::NotCanonical)),
            "{bad} {refusal:?}"
        );
    }
}

#[test]
fn cwts_with_other_claims_are_refused() {
    let claims = entries(&cwt_payload());
    let mut reordered = claims.clone();
    reordered.swap(0, 1);
    let mut duplicated = claims.clone();
    duplicated.push(claims[0].clone());
    let mut extra = claims.clone();
    extra.push((Value::from(7), Value::Bytes(vec![1])));
    let mut missing = claims.clone();
    missing.pop();
    let mut replaced = claims.clone();
    replaced[3] = replaced[2].clone();
    let mut negative = claims.clone();
    negative[3].1 = Value::from(-1);
    let mut float = claims.clone();
    float[3].1 = Value::from(1_800_000_000.0);
    let mut tagged = claims.clone();
    tagged[3].1 = Value::Tag(1, Box::new(tagged[3].1.clone()));
    let mut bignum = claims.clone();
    bignum[3].1 = Value::Tag(2, Box::new(Value::Bytes(vec![1, 0, 0, 0, 0])));
    for variant in [reordered, duplicated, extra, missing, replaced, negative, float, tagged, bignum] {
        let refusal = check(&cwt_of(variant.clone()));
        assert!(
            matches!(refusal, Err(VerifyError::Malformed | VerifyError::NotCanonical)),
            "{variant:?} {refusal:?}"
        );
    }
    let mut twice = claims.clone();
    let Value::Array(private) = &mut twice[4].1 else { unreachable!("an array") };
    let Some(Value::Array(tags)) = private.last_mut() else { unreachable!("tags") };
    tags.push(tags[0].clone());
    assert_eq!(check(&cwt_of(twice)), Err(VerifyError::NotCanonical));
    let mut version = claims;
    let Value::Array(private) = &mut version[4].1 else { unreachable!("an array") };
    private[0] = Value::from(2);
    assert_eq!(check(&cwt_of(version)), Err(VerifyError::UnknownVersion));
}

#[test]
fn cbor_in_another_form_is_refused() {
    let payload = cwt_payload();
    // a5 01 66 "node-a" 02 ...
    assert_eq!(payload[..4], [0xa5, 0x01, 0x66, b'n']);
    let indefinite = [&[0xbf], &payload[1..], &[0xff]].concat();
    let long_key = [&[0xa5, 0x18, 0x01], &payload[2..]].concat();
    let long_length = [&[0xa5, 0x01, 0x78, 0x06], &payload[3..]].concat();
    let long_count = [&[0xb8, 0x05], &payload[1..]].concat();
    let chunked = [&[0xa5, 0x01, 0x7f, 0x66], &payload[3..9], &[0xff], &payload[9..]].concat();
    let trailing = [payload.as_slice(), &[0xf6]].concat();
    for variant in [indefinite, long_key, long_length, long_count, chunked, trailing] {
        let token = cwt(&cose::ES256, &variant);
        assert_eq!(check(&token), Err(VerifyError::NotCanonical), "{variant:02x?}");
    }
}

#[test]
fn cose_envelopes_in_another_form_are_refused() {
    let token = es256_cwt().bytes;
    // d2 84 43 a1 01 26 a0 58 ...
    assert_eq!(token[..8], [0xd2, 0x84, 0x43, 0xa1, 0x01, 0x26, 0xa0, 0x58]);
    let untagged = token[1..].to_vec();
    let long_tag = [&[0xd8, 0x12], &token[1..]].concat();
    let double_tag = [&[0xd8, 0x3d], &token[..]].concat();
    let indefinite = [&[0xd2, 0x9f], &token[2..], &[0xff]].concat();
    let unprotected = [&token[..6], &[0xa1, 0x04, 0x41, 0x31], &token[7..]].concat();
    let indefinite_map = [&token[..6], &[0xbf, 0xff], &token[7..]].concat();
    let long_header = [&[0xd2, 0x84, 0x58, 0x03], &token[3..]].concat();
    let trailing = [&token[..], &[0]].concat();
    let other_tag = [&[0xd3], &token[1..]].concat();
    let variants = [
        untagged,
        long_tag,
        double_tag,
        indefinite,
        unprotected,
        indefinite_map,
        long_header,
        trailing,
        other_tag,
    ];
    for variant in variants {
        let refusal = check(&variant);
        assert!(
            matches!(refusal, Err(VerifyError::Malformed | VerifyError::NotCanonical)),
            "{variant:02x?} {refusal:?}"
        );
    }
    for protected in [
        [0xa1, 0x18, 0x01, 0x26].as_slice(),
        &[0xbf, 0x01, 0x26, 0xff],
        &[0xa2, 0x01, 0x26, 0x03, 0x18, 0x3d],
        &[0xa1, 0x01, 0x38, 0x06],
    ] {
        assert_eq!(
            check(&cwt(protected, &cwt_payload())),
            Err(VerifyError::NotCanonical),
            "{protected:02x?}"
        );
    }
    for protected in [[].as_slice(), &[0xa0], &[0x01]] {
        assert_eq!(check(&cwt(protected, &cwt_payload())), Err(VerifyError::Malformed), "{protected:02x?}");
    }
}

#[test]
fn the_other_value_of_s_is_refused() {
    let mut cwt = es256_cwt().bytes.to_vec();
    let at = cwt.len() - 64;
    let mut signature = <[u8; 64]>::try_from(&cwt[at..]).unwrap();
    negate_s(&mut signature);
    cwt[at..].copy_from_slice(&signature);
    assert_eq!(check(&cwt), Err(VerifyError::HighS));
    let jwt = String::from_utf8(es256_jwt().bytes.to_vec()).unwrap();
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let mut signature = <[u8; 64]>::try_from(URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    negate_s(&mut signature);
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(check(token.as_bytes()), Err(VerifyError::HighS));
}

#[test]
fn lifetimes_beyond_a_day_and_reserved_tags_are_refused_although_signed() {
    let payload = jwt_payload();
    let exp = format!(r#""exp":{}"#, NOW.0 + 600);
    let with_exp = |exp_at: u64| jwt(HEADER, &payload.replacen(&exp, &format!(r#""exp":{exp_at}"#), 1));
    assert_eq!(check(&with_exp(NOW.0 + 86_400)), Ok(()));
    assert_eq!(check(&with_exp(NOW.0 + 86_401)), Err(VerifyError::LifetimeTooLong));
    assert_eq!(check(&with_exp(u64::MAX)), Err(VerifyError::LifetimeTooLong));
    assert_eq!(check(&with_exp(NOW.0)), Err(VerifyError::Malformed));
    assert_eq!(check(&with_exp(NOW.0 - 1)), Err(VerifyError::Malformed));
    for tag in ["@trust=demo", "@trusted=x"] {
        let payload = payload.replacen("app=shop", tag, 1);
        assert_eq!(check(&jwt(HEADER, &payload)), Err(VerifyError::ReservedTag), "{tag}");
    }
}

#[test]
fn more_tags_than_a_token_holds_are_refused_before_they_are_compared() {
    let many: Vec<String> = (0..257).map(|n| format!(r#""k={n}""#)).collect();
    let start = jwt_payload().find(r#""tags":["#).unwrap();
    let payload = format!(r#"{}"tags":[{}]}}}}"#, &jwt_payload()[..start], many.join(","));
    assert_eq!(check(&jwt(HEADER, &payload)), Err(VerifyError::Malformed));
    let long = vec![b'e'; 8193];
    assert_eq!(check(&long), Err(VerifyError::Malformed));
}

#[test]
fn the_token_id_covers_the_signed_bytes_only() {
    let first = es256_cwt();
    let second = es256_cwt();
    assert_eq!(first.id, second.id);
    assert_ne!(first.bytes, second.bytes, "ECDSA signatures are random");
    assert_ne!(first.id, es256_jwt().id);
    let text = es256_jwt();
    let signed = text.bytes.len() - 87;
    assert_eq!(crate::TokenId::of(&text.bytes[..signed]), text.id);
}

#[test]
fn an_independent_library_reads_our_jwts() {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    let spki = node_key().public().point().to_vec();
    let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let key = DecodingKey::from_ec_der(&spki);
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    let token = es256_jwt();
    let data = decode::<serde_json::Value>(&token.bytes, &key, &validation).unwrap();
    assert_eq!(data.claims["iss"], "node-a");
    assert_eq!(data.claims["tap"]["tags"][1], "role=frontend");
    let psk = Psk::new(crate::testing::PSK).unwrap();
    assert_eq!(psk.key_id(), signer(Trust::Psk).key_id());
}
