use super::*;
use crate::testing::{NOW, Trust, rng, signer, verifier};
use crate::{DEFAULT_LIFETIME_SECS, Psk, SigningKey};

fn settings() -> Settings {
    Settings { encoding: Encoding::Cwt, lifetime_secs: DEFAULT_LIFETIME_SECS }
}

fn identity(tags: &[&str]) -> Filtered {
    Filtered { tags: TagSet::parse(tags.iter().copied()).unwrap(), partial: false }
}

fn unit() -> PuId {
    "web-0".parse().unwrap()
}

fn own_tokens() -> OwnTokens {
    OwnTokens::new(settings(), NOW, &mut rng(1)).unwrap()
}

fn id(own: Option<&OwnToken>) -> Option<TokenId> {
    own.map(|own| own.token.id)
}

#[test]
fn rotation_brings_a_new_key_and_keeps_the_old_one_for_a_lifetime() {
    let signer = signer(Trust::Psk);
    let mut tokens = own_tokens();
    let old = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW).unwrap().clone();
    assert_eq!(tokens.due_at(), NOW.plus_secs(300));
    let half = NOW.plus_secs(300);
    tokens.rotate(&signer, half, &mut rng(2)).unwrap();
    let new = tokens.current(&unit()).unwrap().clone();
    assert_ne!(new.token.id, old.token.id);
    assert_ne!(new.key.public(), old.key.public());
    assert_eq!(new.token.claims.agreement, new.key.public());
    assert_eq!(tokens.due_at(), NOW.plus_secs(600));
    assert_eq!(id(tokens.previous(&unit(), half)), Some(old.token.id));
    for (now, found) in [(half.plus_secs(600), Some(old.token.id)), (half.plus_secs(601), None)] {
        assert_eq!(id(tokens.find(&old.token.id, now)), found);
    }
    let found = tokens.find(&old.token.id, half).unwrap();
    assert_eq!(found.key.public(), old.key.public());
    assert_eq!(id(tokens.find(&new.token.id, half)), Some(new.token.id));
}

#[test]
fn a_second_rotation_within_the_lifetime_keeps_both_old_keys() {
    let signer = signer(Trust::Psk);
    let mut tokens = own_tokens();
    let first = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW).unwrap().token.id;
    tokens.rotate(&signer, NOW.plus_secs(300), &mut rng(2)).unwrap();
    let second = id(tokens.current(&unit())).unwrap();
    tokens.rotate(&signer, NOW.plus_secs(600), &mut rng(3)).unwrap();
    let now = NOW.plus_secs(600);
    assert!(tokens.find(&first, now).is_some() && tokens.find(&second, now).is_some());
    assert_eq!(id(tokens.previous(&unit(), now)), Some(second));
    for round in 0..10 {
        tokens.rotate(&signer, now, &mut rng(10 + round)).unwrap();
    }
    assert_eq!(tokens.units[&unit()].retired.len(), MAX_RETIRED);
    assert!(tokens.find(&first, now).is_none());
}

#[test]
fn changed_tags_replace_the_token_at_once_and_unchanged_ones_keep_it() {
    let signer = signer(Trust::Psk);
    let mut tokens = own_tokens();
    let first = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW).unwrap().clone();
    let same = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW.plus_secs(9)).unwrap();
    assert_eq!(same.token.id, first.token.id);
    let changed = tokens.upsert(&signer, &unit(), &identity(&["a=c"]), NOW.plus_secs(9)).unwrap().clone();
    assert_ne!(changed.token.id, first.token.id);
    assert_eq!(changed.key.public(), first.key.public());
    assert_eq!(id(tokens.find(&first.token.id, NOW)), Some(first.token.id));
    tokens.remove(&unit());
    assert_eq!(id(tokens.find(&changed.token.id, NOW)), None);
    assert_eq!(id(tokens.current(&unit())), None);
}

#[test]
fn a_token_that_cannot_be_made_leaves_the_old_one_in_force() {
    let signer = signer(Trust::Psk);
    let mut tokens = own_tokens();
    let first = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW).unwrap().token.id;
    let reserved = tokens.upsert(&signer, &unit(), &identity(&["@trust=x"]), NOW).map(|_| ());
    assert_eq!(reserved, Err(IssueError::ReservedTag));
    let small = signer.with_payload_limit(100);
    let before = tokens.due_at();
    let refused = tokens.rotate(&small, NOW.plus_secs(300), &mut rng(2));
    assert!(matches!(refused, Err(IssueError::TooLarge { limit: 100, .. })), "{refused:?}");
    assert_eq!((id(tokens.current(&unit())), tokens.due_at()), (Some(first), before));
}

#[test]
fn state_survives_a_restart_and_verifies_as_before() {
    for trust in [Trust::Psk, Trust::KeyToken, Trust::Prepopulated] {
        let signer = signer(trust);
        let mut tokens = own_tokens();
        let old = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW).unwrap().token.clone();
        tokens.rotate(&signer, NOW.plus_secs(300), &mut rng(2)).unwrap();
        let kept = tokens.export().unwrap();
        let restored = OwnTokens::import(&kept, &signer).unwrap();
        assert_eq!(*restored.export().unwrap(), *kept);
        let now = NOW.plus_secs(301);
        let current = restored.current(&unit()).unwrap();
        assert_eq!(current.token, tokens.current(&unit()).unwrap().token);
        assert_eq!(current.key.public(), tokens.current(&unit()).unwrap().key.public());
        assert_eq!(id(restored.find(&old.id, now)), Some(old.id));
        let verified = verifier(trust).verify(&current.token.bytes, &current.token.credential, now).unwrap();
        assert_eq!(verified.id, current.token.id);
    }
}

#[test]
fn damaged_or_foreign_state_is_refused() {
    let signer_psk = signer(Trust::Psk);
    let mut tokens = own_tokens();
    tokens.upsert(&signer_psk, &unit(), &identity(&["a=b"]), NOW).unwrap();
    let kept = tokens.export().unwrap();
    for len in 0..kept.len() {
        assert_eq!(OwnTokens::import(&kept[..len], &signer_psk).err(), Some(StateError::Damaged));
    }
    assert_eq!(OwnTokens::import(&kept, &signer(Trust::KeyToken)).err(), Some(StateError::Foreign));
    let text = std::str::from_utf8(&kept).unwrap();
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert_eq!(OwnTokens::import(newer.as_bytes(), &signer_psk).err(), Some(StateError::Damaged));
}

#[test]
fn a_new_secret_re_issues_on_the_next_change_or_rotation() {
    let mut tokens = own_tokens();
    let old = tokens.upsert(&signer(Trust::Psk), &unit(), &identity(&["a=b"]), NOW).unwrap().token.id;
    let other = Signer::psk("node-a".parse().unwrap(), Psk::new(b"another secret of enough bytes").unwrap());
    let new = tokens.upsert(&other, &unit(), &identity(&["a=b"]), NOW).unwrap().token.clone();
    assert_eq!(new.claims.signer, other.key_id());
    assert_ne!(new.id, old);
    let key = SigningKey::generate(&mut rng(4)).unwrap();
    let pki = Signer::pki("node-a".parse().unwrap(), key, &crate::credential::NodeCredential::Prepopulated)
        .unwrap();
    tokens.rotate(&pki, NOW, &mut rng(5)).unwrap();
    assert_eq!(tokens.current(&unit()).unwrap().token.claims.signer, pki.key_id());
}

#[test]
fn a_renewed_credential_re_issues_the_token() {
    let authority = crate::testing::authority();
    let request = crate::testing::node_request(crate::Constraints::Unrestricted);
    let old = signer(Trust::KeyToken);
    let mut tokens = own_tokens();
    tokens.upsert(&old, &unit(), &identity(&["a=b"]), NOW).unwrap();
    let renewed = authority.key_token(&request).unwrap();
    let renewed = Signer::pki(old.node().clone(), crate::testing::node_key(), &renewed).unwrap();
    let token =
        tokens.upsert(&renewed, &unit(), &identity(&["a=b"]), NOW.plus_secs(1)).unwrap().token.clone();
    assert_eq!(*token.credential, *renewed.credential());
    assert_ne!(*token.credential, *old.credential());
}

#[test]
fn debug_shows_no_private_key() {
    let mut tokens = own_tokens();
    tokens.upsert(&signer(Trust::Psk), &unit(), &identity(&["a=b"]), NOW).unwrap();
    let text = format!("{tokens:?}");
    assert!(text.contains("private: \"redacted\""), "{text}");
    assert!(!text.contains("private: ["), "{text}");
}

fn usable(tokens: &OwnTokens, now: WallTime) -> Vec<TokenId> {
    tokens.usable(&unit(), now).into_iter().map(|own| own.token.id).collect()
}

#[test]
fn the_token_before_the_last_rotation_is_usable_until_it_ends() {
    let signer = signer(Trust::Psk);
    let mut tokens = own_tokens();
    let old = tokens.upsert(&signer, &unit(), &identity(&["a=b"]), NOW).unwrap().token.id;
    let half = NOW.plus_secs(300);
    tokens.rotate(&signer, half, &mut rng(2)).unwrap();
    let new = id(tokens.current(&unit())).unwrap();
    assert_eq!(usable(&tokens, half), [new, old]);
    assert_eq!(usable(&tokens, NOW.plus_secs(599)), [new, old]);
    assert_eq!(usable(&tokens, NOW.plus_secs(600)), [new]);
    assert_eq!(usable(&tokens, half.plus_secs(600)), []);
}

#[test]
fn a_token_of_other_tags_or_of_another_signing_key_is_not_shown_again() {
    let mut tokens = own_tokens();
    let (first, second) = (signer(Trust::Psk), signer(Trust::Certificate));
    tokens.upsert(&first, &unit(), &identity(&["a=b"]), NOW).unwrap();
    let changed = tokens.upsert(&first, &unit(), &identity(&["a=c"]), NOW).unwrap().token.id;
    assert_eq!(usable(&tokens, NOW), [changed]);
    tokens.rotate(&second, NOW, &mut rng(2)).unwrap();
    assert_eq!(usable(&tokens, NOW).len(), 1);
}
