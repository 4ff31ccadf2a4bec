//! Clocks, lifetimes and revocation.

use trireme_identity::time::WallTime;

use crate::testing::{ENCODINGS, NODE, NOW, TAGS, TRUSTS, Trust, node_key, request, signer, verifier};
use crate::{Denied, DenyList, Encoding, VerifyError};

#[test]
fn a_token_holds_from_its_issue_to_its_expiry_with_sixty_seconds_of_leeway() {
    for trust in TRUSTS {
        for encoding in ENCODINGS {
            let token = signer(trust).issue(&request(&TAGS), encoding).unwrap();
            let verifier = verifier(trust);
            let at = |now: WallTime| verifier.verify(&token.bytes, &token.credential, now).err();
            assert_eq!(at(NOW.minus_secs(61)), Some(VerifyError::NotYetValid));
            assert_eq!(at(NOW.minus_secs(60)), None);
            assert_eq!(at(NOW.plus_secs(659)), None);
            assert_eq!(at(NOW.plus_secs(660)), Some(VerifyError::Expired));
            assert_eq!(at(WallTime(0)), Some(VerifyError::NotYetValid));
            assert_eq!(at(WallTime(u64::MAX)), Some(VerifyError::Expired));
        }
    }
}

#[test]
fn what_was_verified_ends_with_the_sooner_of_token_and_credential() {
    let token = signer(Trust::Certificate).issue(&request(&TAGS), Encoding::Cwt).unwrap();
    let verified = verifier(Trust::Certificate).verify(&token.bytes, &token.credential, NOW).unwrap();
    assert!(verified.is_valid_at(NOW.plus_secs(659)) && !verified.is_valid_at(NOW.plus_secs(660)));
}

#[test]
fn revocation_by_token_key_or_node_refuses_a_valid_token() {
    for trust in TRUSTS {
        let token = signer(trust).issue(&request(&TAGS), Encoding::Cwt).unwrap();
        let lists = [
            (Denied::Token, DenyList { tokens: [token.id].into(), ..DenyList::default() }),
            (Denied::Key, DenyList { keys: [signer(trust).key_id()].into(), ..DenyList::default() }),
            (Denied::Node, DenyList { nodes: [NODE.parse().unwrap()].into(), ..DenyList::default() }),
        ];
        let verifier = verifier(trust);
        for (denied, list) in lists {
            assert!(verifier.verify(&token.bytes, &token.credential, NOW).is_ok());
            verifier.set_deny_list(list);
            assert_eq!(
                verifier.verify(&token.bytes, &token.credential, NOW),
                Err(VerifyError::Revoked(denied))
            );
            assert_eq!(
                verifier.cheap_check(&token.bytes, &token.credential),
                Err(VerifyError::Revoked(denied))
            );
            assert!(!verifier.deny_list().is_empty());
            verifier.set_deny_list(DenyList::default());
        }
    }
}

#[test]
fn node_keys_differ_from_psk_ids() {
    assert_ne!(signer(Trust::Psk).key_id(), node_key().public().id());
}
