//! Who vouches for whom, and what they may claim.

use crate::authority::{Authority, NodeRequest, Period};
use crate::credential::{CredentialError, NodeCredential};
use crate::testing::{
    NODE, NOW, TAGS, Trust, YEAR, authority, authority_with, credential, node_key, node_request, request,
    rng, root, signer,
};
use crate::{
    Constraints, Encoding, PublicKeyAdder, Signer, SignerError, SigningKey, Token, TrustRoot, Verifier,
    VerifyError,
};

const ON_WIRE: [Trust; 2] = [Trust::Certificate, Trust::KeyToken];

fn allow(patterns: &[&str]) -> Constraints {
    Constraints::parse(patterns.iter().copied()).unwrap()
}

/// A token of node-a whose credential comes from `authority`.
fn token(authority: &Authority, trust: Trust, node: &NodeRequest, tags: &[&str]) -> Token {
    let credential = credential(authority, trust, node);
    let signer = Signer::pki(NODE.parse().unwrap(), node_key(), &credential).unwrap();
    signer.issue(&request(tags), Encoding::Cwt).unwrap()
}

fn violation(tag: &str) -> Option<VerifyError> {
    Some(VerifyError::ConstraintViolated { tag: tag.parse().unwrap(), node: NODE.parse().unwrap() })
}

#[test]
fn a_node_may_claim_only_what_its_credential_allows() {
    let verifier = Verifier::pki(vec![root(&authority())]);
    for trust in ON_WIRE {
        let node = node_request(allow(&["role=web", "app=shop*", "env"]));
        let check = |tags: &[&str]| {
            let token = token(&authority(), trust, &node, tags);
            verifier.verify(&token.bytes, &token.credential, NOW).err()
        };
        assert_eq!(check(&["role=web", "app=shop-2", "env=any"]), None);
        assert_eq!(check(&["role=web", "role=db"]), violation("role=db"));
        assert_eq!(check(&["app=other"]), violation("app=other"));
        let none = node_request(allow(&[]));
        let token = token(&authority(), trust, &none, &["a=b"]);
        assert_eq!(verifier.verify(&token.bytes, &token.credential, NOW).err(), violation("a=b"));
    }
}

#[test]
fn constraints_of_node_authority_and_verifier_all_hold() {
    for trust in ON_WIRE {
        let authority = authority_with(1, &allow(&["role", "app"]));
        let ours = allow(&["role", "env"]);
        let root = TrustRoot::from_pem("demo", &authority.certificate_pem(), ours).unwrap();
        let verifier = Verifier::pki(vec![root]);
        let node = node_request(allow(&["role=web", "app", "env"]));
        let check = |tags: &[&str]| {
            let token = token(&authority, trust, &node, tags);
            verifier.verify(&token.bytes, &token.credential, NOW).err()
        };
        assert_eq!(check(&["role=web"]), None);
        assert_eq!(check(&["role=db"]), violation("role=db"));
        assert_eq!(check(&["app=shop"]), violation("app=shop"));
        assert_eq!(check(&["env=prod"]), violation("env=prod"));
    }
}

#[test]
fn a_prepopulated_key_may_be_constrained_too() {
    let verifier = Verifier::pki(Vec::new());
    verifier.add_public_key(NODE.parse().unwrap(), node_key().public().clone(), allow(&["role"])).unwrap();
    let token =
        signer(Trust::Prepopulated).issue(&request(&["role=web", "env=prod"]), Encoding::Jwt).unwrap();
    assert_eq!(verifier.verify(&token.bytes, &[], NOW).err(), violation("env=prod"));
}

#[test]
fn a_second_root_is_told_apart_by_its_trust_tag() {
    let other = authority_with(7, &Constraints::Unrestricted);
    let verifier = Verifier::pki(vec![
        root(&authority()),
        TrustRoot::from_der("partner", other.certificate_der(), allow(&["partner"])).unwrap(),
    ]);
    for trust in ON_WIRE {
        let node = node_request(Constraints::Unrestricted);
        let theirs = token(&other, trust, &node, &["partner=yes"]);
        let verified = verifier.verify(&theirs.bytes, &theirs.credential, NOW).unwrap();
        assert_eq!(verified.root.as_deref(), Some("partner"));
        assert_eq!(verified.policy_tags.to_string(), "partner=yes,@trust=partner");
        assert_eq!(verified.claims.tags.to_string(), "partner=yes");
        let impostor = token(&other, trust, &node, &["role=frontend"]);
        let refusal = verifier.verify(&impostor.bytes, &impostor.credential, NOW).err();
        assert_eq!(refusal, violation("role=frontend"));
        let ours = token(&authority(), trust, &node, &["role=frontend"]);
        let verified = verifier.verify(&ours.bytes, &ours.credential, NOW).unwrap();
        assert_eq!(verified.policy_tags.to_string(), "role=frontend,@trust=demo");
    }
}

#[test]
fn credentials_of_a_foreign_authority_are_refused() {
    let foreign = authority_with(8, &Constraints::Unrestricted);
    let verifier = Verifier::pki(vec![root(&authority())]);
    let node = node_request(Constraints::Unrestricted);
    let key_token = token(&foreign, Trust::KeyToken, &node, &TAGS);
    assert_eq!(
        verifier.verify(&key_token.bytes, &key_token.credential, NOW),
        Err(VerifyError::UntrustedRoot)
    );
    // The foreign CA has the same name: only the signature tells.
    let certificate = token(&foreign, Trust::Certificate, &node, &TAGS);
    let refusal = verifier.verify(&certificate.bytes, &certificate.credential, NOW);
    assert_eq!(refusal, Err(VerifyError::BadCredentialSignature));
    let empty = Verifier::pki(Vec::new());
    for token in [key_token, certificate] {
        assert_eq!(empty.verify(&token.bytes, &token.credential, NOW), Err(VerifyError::UntrustedRoot));
    }
}

#[test]
fn credentials_outside_their_period_are_refused() {
    let verifier = Verifier::pki(vec![root(&authority())]);
    for trust in ON_WIRE {
        for (now, lifetime_secs, error) in [
            (NOW.minus_secs(1000), 999, VerifyError::CredentialExpired),
            (NOW.plus_secs(301), 1000, VerifyError::CredentialNotYetValid),
        ] {
            let node = NodeRequest {
                period: Period { now, lifetime_secs },
                ..node_request(Constraints::Unrestricted)
            };
            let token = token(&authority(), trust, &node, &TAGS);
            assert_eq!(verifier.verify(&token.bytes, &token.credential, NOW), Err(error), "{trust:?}");
        }
        // Known from before its end: the end is looked at again.
        let period = Period { now: NOW, lifetime_secs: 100 };
        let node = NodeRequest { period, ..node_request(Constraints::Unrestricted) };
        let token = token(&authority(), trust, &node, &TAGS);
        let verified = verifier.verify(&token.bytes, &token.credential, NOW.plus_secs(100)).unwrap();
        assert_eq!(verified.valid_until, NOW.plus_secs(100));
        assert_eq!(
            verifier.verify(&token.bytes, &token.credential, NOW.plus_secs(101)),
            Err(VerifyError::CredentialExpired)
        );
    }
}

#[test]
fn an_expired_root_certifies_nobody() {
    let period = Period { now: NOW.minus_secs(YEAR), lifetime_secs: YEAR - 1 };
    let old = Authority::create("demo CA", &Constraints::Unrestricted, period, &mut rng(1)).unwrap();
    for trust in ON_WIRE {
        let verifier = Verifier::pki(vec![root(&old)]);
        let token = token(&old, trust, &node_request(Constraints::Unrestricted), &TAGS);
        assert_eq!(
            verifier.verify(&token.bytes, &token.credential, NOW),
            Err(VerifyError::RootExpired),
            "{trust:?}"
        );
    }
}

#[test]
fn a_token_with_another_nodes_credential_is_refused() {
    let verifier = Verifier::pki(vec![root(&authority())]);
    for trust in ON_WIRE {
        let own = token(&authority(), trust, &node_request(Constraints::Unrestricted), &TAGS);
        let other_key = SigningKey::generate(&mut rng(20)).unwrap();
        let mut other = node_request(Constraints::Unrestricted);
        other.key = other_key.public().clone();
        let same_name = credential(&authority(), trust, &other).bytes();
        let mismatch = VerifyError::SignerMismatch {
            claimed: node_key().public().id(),
            certified: other_key.public().id(),
        };
        assert_eq!(verifier.verify(&own.bytes, &same_name, NOW), Err(mismatch.clone()));
        assert_eq!(verifier.cheap_check(&own.bytes, &same_name), Err(mismatch));
        other.node = "node-b".parse().unwrap();
        let other_name = credential(&authority(), trust, &other).bytes();
        let mismatch = VerifyError::IssuerMismatch {
            claimed: NODE.parse().unwrap(),
            certified: "node-b".parse().unwrap(),
        };
        assert_eq!(verifier.verify(&own.bytes, &other_name, NOW), Err(mismatch.clone()));
        assert_eq!(verifier.cheap_check(&own.bytes, &other_name), Err(mismatch));
    }
}

#[test]
fn a_node_cannot_issue_under_another_nodes_name() {
    let credential = credential(&authority(), Trust::KeyToken, &node_request(Constraints::Unrestricted));
    let node_b = "node-b".parse().unwrap();
    assert_eq!(
        Signer::pki(node_b, node_key(), &credential).err(),
        Some(SignerError::OtherNode { node: "node-b".parse().unwrap(), certified: NODE.parse().unwrap() })
    );
    let other = SigningKey::generate(&mut rng(21)).unwrap();
    let node: trireme_identity::NodeId = NODE.parse().unwrap();
    assert_eq!(Signer::pki(node.clone(), other, &credential).err(), Some(SignerError::OtherKey(node)));
    // Pre-populated: nothing certifies the name until the receiver looks it up.
    let liar = Signer::pki("node-b".parse().unwrap(), node_key(), &NodeCredential::Prepopulated).unwrap();
    let token = liar.issue(&request(&TAGS), Encoding::Cwt).unwrap();
    let verifier = Verifier::pki(Vec::new());
    verifier
        .add_public_key(NODE.parse().unwrap(), node_key().public().clone(), Constraints::Unrestricted)
        .unwrap();
    let mismatch =
        VerifyError::IssuerMismatch { claimed: "node-b".parse().unwrap(), certified: NODE.parse().unwrap() };
    assert_eq!(verifier.verify(&token.bytes, &[], NOW), Err(mismatch));
}

#[test]
fn an_identity_token_is_no_key_token_and_an_authority_is_no_node() {
    let token = signer(Trust::KeyToken).issue(&request(&TAGS), Encoding::Cwt).unwrap();
    let verifier = Verifier::pki(vec![root(&authority())]);
    let refusal = verifier.verify(&token.bytes, &token.bytes, NOW);
    assert!(matches!(refusal, Err(VerifyError::BadCredential(_))), "{refusal:?}");
    assert_eq!(
        verifier.verify(&token.credential, &token.credential, NOW).err().map(|e| e.name()),
        Some("not-canonical")
    );
    let own = authority();
    assert_eq!(
        verifier.verify(&token.bytes, own.certificate_der(), NOW),
        Err(VerifyError::BadCredential(CredentialError::NoNodeId))
    );
}

#[test]
fn a_node_certificate_is_no_trust_root() {
    let NodeCredential::Certificate(der) =
        credential(&authority(), Trust::Certificate, &node_request(Constraints::Unrestricted))
    else {
        unreachable!("a certificate")
    };
    let error = TrustRoot::from_der("demo", &der, Constraints::Unrestricted).err();
    assert_eq!(error, Some(crate::RootError::NotAuthority));
    let own = authority();
    for name in ["", "a\nb"] {
        let error = TrustRoot::from_der(name, own.certificate_der(), Constraints::Unrestricted).err();
        assert_eq!(error, Some(crate::RootError::BadName));
    }
}
