//! Fixtures of the unit tests.

use trireme_identity::TagSet;
use trireme_identity::time::WallTime;

use crate::authority::{Authority, NodeRequest, Period};
use crate::credential::NodeCredential;
use crate::{
    AgreementPublic, Constraints, Encoding, Psk, PublicKeyAdder, SeededRandom, Signer, SigningKey,
    TokenRequest, TrustRoot, Verifier,
};

pub(crate) const NOW: WallTime = WallTime(1_800_000_000);
pub(crate) const YEAR: u64 = 365 * 24 * 3600;
pub(crate) const PSK: &[u8] = b"k3Xw9qLr7TzB2mVd";
pub(crate) const NODE: &str = "node-a";

/// Ten tags as a Kubernetes pod would carry them.
pub(crate) const TAGS: [&str; 10] = [
    "app=shop",
    "role=frontend",
    "env=production",
    "tier=web",
    "team=checkout",
    "version=v1.4.2",
    "region=eu-west-1",
    "zone=b",
    "$namespace=shop",
    "canary=false",
];

/// How the receiver learns the node's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Psk,
    Certificate,
    KeyToken,
    Prepopulated,
}

pub(crate) const TRUSTS: [Trust; 4] = [Trust::Psk, Trust::Certificate, Trust::KeyToken, Trust::Prepopulated];
pub(crate) const ENCODINGS: [Encoding; 2] = [Encoding::Jwt, Encoding::Cwt];

pub(crate) const fn rng(seed: u8) -> SeededRandom {
    SeededRandom::new([seed; 32])
}

pub(crate) fn authority() -> Authority {
    authority_with(1, &Constraints::Unrestricted)
}

pub(crate) fn authority_with(seed: u8, constraints: &Constraints) -> Authority {
    let period = Period { now: NOW, lifetime_secs: 10 * YEAR };
    Authority::create("demo CA", constraints, period, &mut rng(seed)).unwrap()
}

pub(crate) fn node_key() -> SigningKey {
    SigningKey::generate(&mut rng(2)).unwrap()
}

pub(crate) fn node_request(constraints: Constraints) -> NodeRequest {
    NodeRequest {
        node: NODE.parse().unwrap(),
        key: node_key().public().clone(),
        constraints,
        period: Period { now: NOW, lifetime_secs: YEAR },
    }
}

pub(crate) fn credential(authority: &Authority, trust: Trust, request: &NodeRequest) -> NodeCredential {
    match trust {
        Trust::Psk | Trust::Prepopulated => NodeCredential::Prepopulated,
        Trust::Certificate => authority.certify(request, &mut rng(3)).unwrap(),
        Trust::KeyToken => authority.key_token(request).unwrap(),
    }
}

pub(crate) fn root(authority: &Authority) -> TrustRoot {
    TrustRoot::from_der("demo", authority.certificate_der(), Constraints::Unrestricted).unwrap()
}

pub(crate) fn signer(trust: Trust) -> Signer {
    let node = NODE.parse().unwrap();
    if trust == Trust::Psk {
        return Signer::psk(node, Psk::new(PSK).unwrap());
    }
    let credential = credential(&authority(), trust, &node_request(Constraints::Unrestricted));
    Signer::pki(node, node_key(), &credential).unwrap()
}

pub(crate) fn verifier(trust: Trust) -> Verifier {
    match trust {
        Trust::Psk => Verifier::psk(Psk::new(PSK).unwrap()),
        Trust::Certificate | Trust::KeyToken => Verifier::pki(vec![root(&authority())]),
        Trust::Prepopulated => {
            let verifier = Verifier::pki(Vec::new());
            let key = node_key().public().clone();
            verifier.add_public_key(NODE.parse().unwrap(), key, Constraints::Unrestricted).unwrap();
            verifier
        }
    }
}

pub(crate) fn request(tags: &[&str]) -> TokenRequest {
    TokenRequest {
        subject: "frontend-0".parse().unwrap(),
        tags: TagSet::parse(tags.iter().copied()).unwrap(),
        partial: false,
        agreement: AgreementPublic([0x42; 32]),
        issued_at: NOW,
        lifetime_secs: 600,
    }
}
