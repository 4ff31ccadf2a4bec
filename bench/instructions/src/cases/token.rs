//! Tokens and MACs.

use std::hint::black_box;

use anyhow::Context;
use trireme_identity::TagSet;
use trireme_identity::time::WallTime;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::{
    AgreementPublic, Constraints, Encoding, MacKey, Nonce, SeededRandom, Signer, SigningKey, TokenId,
    TokenRequest, TrustRoot, Verifier, mac as make_mac,
};
use trireme_wire::ip::Family;
use trireme_wire::tap::{Body, Flags, Header};

use super::{CALLS, measured_section};

const NOW: WallTime = WallTime(1_800_000_000);

/// The MAC over one header.
pub(super) fn mac() -> anyhow::Result<()> {
    let header = Header {
        flags: Flags::MAC,
        token_id: [1; 16],
        nonce: [2; 16],
        mac: [0; 16],
        body: Body::Syn {
            family: Family::V4,
            protocol: trireme_identity::Protocol::TCP,
            token_len: 0,
            credential_len: 0,
        },
    };
    let key = MacKey::from_bytes([7; 16]);
    for _ in 0..CALLS {
        measured_section(|| compute(black_box(&key), black_box(&header)));
    }
    Ok(())
}

fn compute(key: &MacKey, header: &Header) -> [u8; 16] {
    let (front, back) = header.mac_input();
    make_mac(key, &front, &back, &TokenId([3; 16]), &Nonce([4; 16]))
}

/// A token whose node is certified; with the certificate known, or seen for the first time.
pub(super) fn verify(known: bool) -> anyhow::Result<()> {
    let mut rng = SeededRandom::new([9; 32]);
    let period = Period { now: NOW, lifetime_secs: 3600 };
    let authority = Authority::create("ca", &Constraints::Unrestricted, period, &mut rng)?;
    let key = SigningKey::generate(&mut rng)?;
    let node: trireme_identity::NodeId = "node-a".parse().context("a node's name")?;
    let constraints = Constraints::Unrestricted;
    let request = NodeRequest { node: node.clone(), key: key.public().clone(), constraints, period };
    let credential = authority.certify(&request, &mut rng)?;
    let signer = Signer::pki(node, key, &credential)?;
    let root = || TrustRoot::from_der("ca", authority.certificate_der(), Constraints::Unrestricted);
    let shared = Verifier::pki(vec![root()?]);
    for number in 0..=CALLS {
        let request = TokenRequest {
            subject: format!("unit-{number}").parse().context("a unit's name")?,
            tags: TagSet::parse(["role=client", "env=prod"]).context("a tag")?,
            partial: false,
            agreement: AgreementPublic([7; 32]),
            issued_at: NOW,
            lifetime_secs: 600,
        };
        let token = signer.issue(&request, Encoding::Cwt)?;
        let check = |verifier: &Verifier| verifier.verify(&token.bytes, &token.credential, NOW);
        if known && number == 0 {
            // Puts the certificate into the verifier's cache, uncounted.
            check(&shared)?;
        } else if known {
            measured_section(|| check(black_box(&shared)))?;
        } else if number > 0 {
            let fresh = Verifier::pki(vec![root()?]);
            measured_section(|| check(black_box(&fresh)))?;
        }
    }
    Ok(())
}
