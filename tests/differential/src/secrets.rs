//! Keys of the two nodes.

use std::sync::Arc;

use trireme_datapath::Secrets;
use trireme_identity::time::WallTime;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::{Constraints, Encoding, Psk, SeededRandom, Signer, SigningKey, TrustRoot, Verifier};

/// How the nodes trust each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A key that both have.
    Shared(Encoding),
    /// Certificates of one authority.
    Certified,
    /// Key tokens of one authority.
    Vouched,
}

/// In the order of the seasons.
pub(crate) const TRUSTS: [Trust; 4] =
    [Trust::Shared(Encoding::Cwt), Trust::Certified, Trust::Shared(Encoding::Jwt), Trust::Vouched];

const YEAR: u64 = 365 * 24 * 3600;

/// Secrets of two nodes.
pub(crate) fn secrets(trust: Trust, now: WallTime) -> [Secrets; 2] {
    let rng = &mut SeededRandom::new([7; 32]);
    let period = Period { now, lifetime_secs: YEAR };
    let authority = Authority::create("differential", &Constraints::Unrestricted, period, rng).unwrap();
    ["node-a", "node-b"].map(|name| {
        if let Trust::Shared(encoding) = trust {
            let psk = || Psk::new(b"Wq7xKp2Lr9Tz4VbN8mHc").unwrap();
            let signer = Arc::new(Signer::psk(name.parse().unwrap(), psk()));
            return Secrets { signer, verifier: Arc::new(Verifier::psk(psk())), encoding };
        }
        let key = SigningKey::generate(rng).unwrap();
        let request = NodeRequest {
            node: name.parse().unwrap(),
            key: key.public().clone(),
            constraints: Constraints::Unrestricted,
            period,
        };
        let credential = if trust == Trust::Certified {
            authority.certify(&request, rng).unwrap()
        } else {
            authority.key_token(&request).unwrap()
        };
        let root =
            TrustRoot::from_der("differential", authority.certificate_der(), Constraints::Unrestricted);
        Secrets {
            signer: Arc::new(Signer::pki(request.node, key, &credential).unwrap()),
            verifier: Arc::new(Verifier::pki(vec![root.unwrap()])),
            encoding: Encoding::Cwt,
        }
    })
}
