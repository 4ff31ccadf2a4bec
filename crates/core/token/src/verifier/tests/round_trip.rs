//! Every valid combination is accepted by the right verifier, and says what was signed.

use std::sync::Arc;

use proptest::prelude::*;
use trireme_identity::{Tag, TagSet};

use crate::testing::{ENCODINGS, NODE, NOW, TAGS, TRUSTS, Trust, node_key, request, signer, verifier};
use crate::{Encoding, IssueError, Presented, PublicKeyAdder, Verified, VerifyError};

fn expected_signatures(trust: Trust) -> [u8; 2] {
    match trust {
        Trust::Psk => [0, 0],
        Trust::Certificate | Trust::KeyToken => [2, 1],
        Trust::Prepopulated => [1, 1],
    }
}

#[test]
fn every_mode_and_encoding_round_trips_and_a_known_node_costs_one_signature() {
    for trust in TRUSTS {
        for encoding in ENCODINGS {
            let token = signer(trust).issue(&request(&TAGS), encoding).unwrap();
            let verifier = verifier(trust);
            let on_wire = matches!(trust, Trust::Certificate | Trust::KeyToken);
            let mut policy_tags = token.claims.tags.clone();
            if on_wire {
                policy_tags.insert("@trust=demo".parse().unwrap());
            }
            for signatures_checked in expected_signatures(trust) {
                let verified = verifier.verify(&token.bytes, &token.credential, NOW).unwrap();
                let expected = Verified {
                    id: token.id,
                    claims: token.claims.clone(),
                    root: on_wire.then(|| "demo".to_owned()),
                    key: signer(trust).key_id(),
                    policy_tags: policy_tags.clone(),
                    valid_until: NOW.plus_secs(600 + 59),
                    signatures_checked,
                    presented: Presented {
                        token: Arc::clone(&token.bytes),
                        credential: Arc::clone(&token.credential),
                    },
                };
                assert_eq!(verified, expected, "{trust:?} {encoding:?}");
            }
            assert_eq!(verifier.cheap_check(&token.bytes, &token.credential), Ok(token.id));
            assert_eq!(token.claims.issuer.as_str(), NODE);
        }
    }
}

#[test]
fn a_token_of_one_trust_mode_is_refused_by_the_others() {
    for (made, checked) in [(Trust::Psk, Trust::Certificate), (Trust::Psk, Trust::Prepopulated)] {
        for encoding in ENCODINGS {
            let token = signer(made).issue(&request(&TAGS), encoding).unwrap();
            assert_eq!(
                verifier(checked).verify(&token.bytes, &token.credential, NOW),
                Err(VerifyError::WrongAlgorithm)
            );
        }
    }
    for encoding in ENCODINGS {
        let token = signer(Trust::Prepopulated).issue(&request(&TAGS), encoding).unwrap();
        let psk = verifier(Trust::Psk);
        assert_eq!(psk.verify(&token.bytes, &[], NOW), Err(VerifyError::WrongAlgorithm));
        let token = signer(Trust::Certificate).issue(&request(&TAGS), encoding).unwrap();
        assert_eq!(psk.verify(&token.bytes, &token.credential, NOW), Err(VerifyError::UnexpectedCredential));
        let roots_only = verifier(Trust::Certificate);
        assert_eq!(
            roots_only.verify(&token.bytes, &[], NOW),
            Err(VerifyError::UnknownKey(node_key().public().id()))
        );
    }
}

#[test]
fn a_prepopulated_key_can_be_removed_at_run_time() {
    let token = signer(Trust::Prepopulated).issue(&request(&TAGS), Encoding::Cwt).unwrap();
    let verifier = verifier(Trust::Prepopulated);
    let key = node_key().public().id();
    assert!(verifier.verify(&token.bytes, &[], NOW).is_ok());
    assert!(verifier.remove_public_key(&key) && !verifier.remove_public_key(&key));
    assert_eq!(verifier.verify(&token.bytes, &[], NOW), Err(VerifyError::UnknownKey(key)));
    assert_eq!(verifier.cheap_check(&token.bytes, &[]), Err(VerifyError::UnknownKey(key)));
    let again = crate::testing::verifier(Trust::Prepopulated);
    assert_eq!(
        (again.remove_node(&NODE.parse().unwrap()), again.remove_node(&NODE.parse().unwrap())),
        (1, 0)
    );
    assert_eq!(again.verify(&token.bytes, &[], NOW), Err(VerifyError::UnknownKey(key)));
}

#[test]
fn a_psk_verifier_says_that_it_uses_no_public_keys() {
    let psk = verifier(Trust::Psk);
    let added = psk.add_public_key(NODE.parse().unwrap(), node_key().public().clone(), Default::default());
    assert_eq!(added, Err(crate::KeysUnused));
}

#[test]
fn sizes_stay_inside_their_budget() {
    for trust in TRUSTS {
        for encoding in ENCODINGS {
            let token = signer(trust).issue(&request(&TAGS), encoding).unwrap();
            let (token, credential) = (token.bytes.len(), token.credential.len());
            eprintln!(
                "{trust:?} {encoding:?}: token {token} B, credential {credential} B, payload {} B",
                80 + token + credential
            );
            let limits = match (encoding, trust) {
                (Encoding::Jwt, Trust::Psk) => (620, 0),
                (Encoding::Jwt, _) => (660, 460),
                (Encoding::Cwt, Trust::Psk) => (330, 0),
                (Encoding::Cwt, _) => (360, 460),
            };
            assert!(token <= limits.0 && credential <= limits.1, "{trust:?} {encoding:?}");
            if trust == Trust::KeyToken {
                assert!(credential <= 170, "{credential}");
            }
        }
    }
}

#[test]
fn a_token_over_the_budget_is_refused_with_its_size_and_longest_tags() {
    let long = format!("annotation={}", "x".repeat(500));
    let longer = format!("note={}", "y".repeat(510));
    let tags = ["role=web", &long, &longer, "app=shop"];
    let Err(error) = signer(Trust::Psk).issue(&request(&tags), Encoding::Cwt) else {
        unreachable!("1,200 bytes do not fit")
    };
    let text = error.to_string();
    let IssueError::TooLarge { size, limit, token, credential, longest } = error else {
        unreachable!("{text}")
    };
    assert_eq!((size, limit, credential), (80 + token, 1160, 0));
    assert_eq!(longest.to_string(), "note (515 bytes), annotation (511 bytes), role (8 bytes)");
    assert!(text.contains(&size.to_string()) && text.contains("identity.tags.include"), "{text}");
    let wide = signer(Trust::Psk).with_payload_limit(1400).issue(&request(&tags), Encoding::Cwt).unwrap();
    assert_eq!(wide.bytes.len(), token);
}

#[test]
fn reserved_tags_odd_lifetimes_and_too_many_tags_are_not_issued() {
    let signer = signer(Trust::Psk);
    let issue = |change: &dyn Fn(&mut crate::TokenRequest)| {
        let mut request = request(&["a=b"]);
        change(&mut request);
        signer.issue(&request, Encoding::Cwt).err()
    };
    assert_eq!(issue(&|r| r.lifetime_secs = 59), Some(IssueError::Lifetime(59)));
    assert_eq!(issue(&|r| r.lifetime_secs = 86_401), Some(IssueError::Lifetime(86_401)));
    assert_eq!(issue(&|r| r.lifetime_secs = 86_400), None);
    assert_eq!(issue(&|r| r.lifetime_secs = 60), None);
    assert_eq!(issue(&|r| r.tags = TagSet::parse(["@trust=demo"]).unwrap()), Some(IssueError::ReservedTag));
    let many: Vec<Tag> = (0..257).map(|n| format!("k={n}").parse().unwrap()).collect();
    assert_eq!(issue(&|r| r.tags = many.clone().into()), Some(IssueError::TooManyTags(257)));
}

fn tags() -> impl Strategy<Value = TagSet> {
    let tag = ("[a-z$/.{}\"\\\\ é-]{1,12}", "[^\\p{Cc}]{0,16}");
    proptest::collection::vec(tag, 0..12)
        .prop_map(|tags| tags.iter().filter_map(|(key, value)| Tag::new(key, value).ok()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn arbitrary_claims_round_trip(
        tags in tags(),
        partial: bool,
        agreement: [u8; 32],
        subject in "[A-Za-z0-9._:/@-]{1,64}",
        issued_at in 1_000_000_u64..u64::from(u32::MAX) * 2,
        lifetime_secs in 60_u64..=86_400,
        jwt: bool,
        psk: bool,
    ) {
        let encoding = if jwt { Encoding::Jwt } else { Encoding::Cwt };
        let trust = if psk { Trust::Psk } else { Trust::Prepopulated };
        let request = crate::TokenRequest {
            subject: subject.parse().unwrap(),
            tags,
            partial,
            agreement: crate::AgreementPublic(agreement),
            issued_at: trireme_identity::time::WallTime(issued_at),
            lifetime_secs,
        };
        let token = signer(trust).with_payload_limit(8000).issue(&request, encoding).unwrap();
        let verified = verifier(trust).verify(&token.bytes, &token.credential, request.issued_at).unwrap();
        prop_assert_eq!(&verified.claims, &token.claims);
        prop_assert_eq!(&verified.claims.tags, &request.tags);
        prop_assert_eq!((verified.id, verified.claims.partial), (token.id, partial));
    }
}
