use super::*;
use crate::testing::{NODE, NOW, YEAR, authority, node_key, node_request, rng};

fn statement(credential: &NodeCredential) -> Statement {
    credential.statement().unwrap().unwrap()
}

#[test]
fn certificate_and_key_token_say_the_same() {
    let constraints = Constraints::parse(["role=web", "app=shop*"]).unwrap();
    let request = node_request(constraints.clone());
    let certificate = authority().certify(&request, &mut rng(3)).unwrap();
    let key_token = authority().key_token(&request).unwrap();
    let expected = Statement {
        node: NODE.parse().unwrap(),
        key: node_key().public().clone(),
        constraints,
        not_before: NOW.minus_secs(300),
        not_after: NOW.plus_secs(YEAR),
    };
    assert_eq!(statement(&certificate), expected);
    assert_eq!(statement(&key_token), expected);
    for credential in [certificate, key_token] {
        assert_eq!(NodeCredential::from_pem(&credential.to_pem()), Ok(credential));
    }
    assert_eq!(NodeCredential::Prepopulated.to_pem(), "");
}

#[test]
fn an_authority_reads_back_from_its_files() {
    let own = authority();
    let again = Authority::from_pem(&own.key_pem(), &own.certificate_pem()).unwrap();
    assert_eq!(again.certificate_der(), own.certificate_der());
    assert_eq!(again.key_pem(), own.key_pem());
    let other = node_key().to_pem();
    assert!(matches!(Authority::from_pem(&other, &own.certificate_pem()), Err(AuthorityError::OtherKey)));
    let node = own.certify(&node_request(Constraints::Unrestricted), &mut rng(3)).unwrap();
    assert!(matches!(Authority::from_pem(&other, &node.to_pem()), Err(AuthorityError::NotAuthority)));
    assert!(matches!(
        Authority::from_pem(&other, "none"),
        Err(AuthorityError::Certificate(CredentialError::NotPem))
    ));
}

#[test]
fn periods_that_cannot_be_written_are_refused() {
    for (now, lifetime_secs) in [(NOW.0, 0), (u64::MAX, 1), (u64::MAX - 10, 5), (1 << 62, 1)] {
        let period = Period { now: WallTime(now), lifetime_secs };
        let refused = Authority::create("CA", &Constraints::Unrestricted, period, &mut rng(1));
        assert!(matches!(refused, Err(AuthorityError::Period)), "{now} {refused:?}");
    }
}

#[test]
fn foreign_pem_sections_are_no_credentials() {
    for text in ["", "x", &node_key().to_pem(), &node_key().public().to_pem()] {
        assert_eq!(NodeCredential::from_pem(text), Err(CredentialError::NotPem));
    }
    let ca = authority().certificate_pem();
    assert_eq!(NodeCredential::from_pem(&ca), Err(CredentialError::NoNodeId));
}

#[test]
fn debug_shows_no_private_key() {
    let text = format!("{:?}", authority());
    assert!(text.contains("redacted"), "{text}");
}
