use std::sync::Arc;

use super::*;
use crate::testing::{NODE, NOW, Trust, request, signer, verifier};
use crate::{Denied, Encoding};

fn verified(tag: &str) -> Arc<Verified> {
    let token = signer(Trust::Psk).issue(&request(&[tag]), Encoding::Cwt).unwrap();
    Arc::new(verifier(Trust::Psk).verify(&token.bytes, &[], NOW).unwrap())
}

fn cache(capacity: usize) -> TokenCache {
    TokenCache::new(NonZeroUsize::new(capacity).unwrap())
}

#[test]
fn a_full_cache_forgets_what_was_used_least_recently() {
    let mut cache = cache(2);
    let [a, b, c] = ["t=a", "t=b", "t=c"].map(verified);
    assert_eq!(cache.insert(Arc::clone(&a)), None);
    assert_eq!(cache.insert(Arc::clone(&b)), None);
    assert_eq!(cache.fetch(&a.id, NOW).as_ref(), Some(&a));
    assert_eq!(cache.insert(Arc::clone(&c)), Some(b.id));
    assert_eq!((cache.len(), cache.fetch(&b.id, NOW)), (2, None));
    assert_eq!(cache.remove(&c.id), Some(c));
    assert!(!cache.is_empty());
}

#[test]
fn an_ended_token_is_not_found_again() {
    let mut cache = cache(8);
    let [a, b] = ["t=a", "t=b"].map(verified);
    cache.insert(Arc::clone(&a));
    cache.insert(Arc::clone(&b));
    assert_eq!(cache.fetch(&a.id, a.valid_until), Some(Arc::clone(&a)));
    assert_eq!(cache.fetch(&a.id, a.valid_until.plus_secs(1)), None);
    assert_eq!(cache.len(), 1);
    assert_eq!(cache.expire(b.valid_until), vec![]);
    assert_eq!(cache.expire(b.valid_until.plus_secs(1)), vec![b.id]);
    assert!(cache.is_empty());
}

#[test]
fn revoked_tokens_leave_the_cache() {
    let [a, b] = ["t=a", "t=b"].map(verified);
    let mut both = [a.id, b.id];
    both.sort_unstable();
    let lists = [
        (DenyList { tokens: [a.id].into(), ..DenyList::default() }, vec![a.id]),
        (DenyList { keys: [a.key].into(), ..DenyList::default() }, both.to_vec()),
        (DenyList { nodes: [NODE.parse().unwrap()].into(), ..DenyList::default() }, both.to_vec()),
        (DenyList::default(), vec![]),
    ];
    for (list, gone) in lists {
        let mut cache = cache(8);
        cache.insert(Arc::clone(&a));
        cache.insert(Arc::clone(&b));
        assert_eq!(cache.revoke(&list), gone);
        assert_eq!(cache.len(), 2 - gone.len());
    }
    let list = DenyList { tokens: [a.id].into(), ..DenyList::default() };
    assert_eq!(list.denies(&a.id, &a.key, &a.claims.issuer), Some(Denied::Token));
}
