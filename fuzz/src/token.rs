//! Fuzz bodies for tokens and credentials: whatever the bytes, nothing panics and one form exists.

use std::sync::LazyLock;

use trireme_identity::time::WallTime;
use trireme_token::authority::{Authority, Period};
use trireme_token::credential::NodeCredential;
use trireme_token::{
    Constraints, Psk, PublicKeyAdder, SeededRandom, SigningKey, TrustRoot, Verifier, VerifyingKey,
};

/// The instant at which every token is judged.
pub const NOW: WallTime = WallTime(1_800_000_000);

/// A verifier of each kind, from fixed keys: pre-shared key, certified keys, pre-populated key.
static VERIFIERS: LazyLock<[Verifier; 3]> = LazyLock::new(|| {
    let added = Verifier::pki(Vec::new());
    let node = "node-a".parse().expect("a node id");
    added
        .add_public_key(node, node_key().public().clone(), Constraints::Unrestricted)
        .expect("a PKI verifier");
    [Verifier::psk(psk()), Verifier::pki(vec![root()]), added]
});

/// The pre-shared key of the corpus.
#[must_use]
pub fn psk() -> Psk {
    Psk::new(b"k3Xw9qLr7TzB2mVd").expect("a long key")
}

/// The node key of the corpus.
#[must_use]
pub fn node_key() -> SigningKey {
    SigningKey::generate(&mut SeededRandom::new([2; 32])).expect("a key")
}

/// The CA of the corpus.
#[must_use]
pub fn authority() -> Authority {
    let period = Period { now: NOW, lifetime_secs: 10 * 365 * 24 * 3600 };
    let mut random = SeededRandom::new([1; 32]);
    Authority::create("fuzz CA", &Constraints::Unrestricted, period, &mut random).expect("an authority")
}

fn root() -> TrustRoot {
    TrustRoot::from_der("fuzz", authority().certificate_der(), Constraints::Unrestricted).expect("a root")
}

/// A token that is accepted has one id, says the same to the cheap check, and no byte less is accepted.
///
/// Input layout: verifier 1 B | token length 2 B | token | credential.
pub fn token(data: &[u8]) {
    let [selector, high, low, rest @ ..] = data else {
        return;
    };
    let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (token, credential) = rest.split_at(len);
    let Some(verifier) = VERIFIERS.get(usize::from(selector % 3)) else {
        return;
    };
    let cheap = verifier.cheap_check(token, credential);
    let Ok(verified) = verifier.verify(token, credential, NOW) else {
        return;
    };
    assert_eq!(cheap.ok(), Some(verified.id));
    assert!(verified.is_valid_at(NOW));
    let shorter = token.split_last().map(|(_, shorter)| shorter).unwrap_or_default();
    assert!(verifier.verify(shorter, credential, NOW).is_err());
    let longer = [token, &[0]].concat();
    assert!(verifier.verify(&longer, credential, NOW).is_err());
}

/// Certificates, key tokens and keys parse or are refused; PEM gives back what it was given.
pub fn credential(data: &[u8]) {
    for credential in [NodeCredential::Certificate(data.into()), NodeCredential::KeyToken(data.into())] {
        if credential.statement().is_ok() {
            let again = NodeCredential::from_pem(&credential.to_pem());
            assert_eq!(again.ok(), Some(credential));
        }
    }
    if let Ok(root) = TrustRoot::from_der("fuzz", data, Constraints::Unrestricted) {
        assert_eq!(root.name(), "fuzz");
    }
    if let Ok(key) = VerifyingKey::from_spki_der(data) {
        assert_eq!(key.spki_der(), data);
    }
    drop(SigningKey::from_pkcs8_der(data));
    if let Ok(text) = std::str::from_utf8(data) {
        drop(NodeCredential::from_pem(text));
        drop(SigningKey::from_pem(text));
        drop(VerifyingKey::from_pem(text));
    }
}
