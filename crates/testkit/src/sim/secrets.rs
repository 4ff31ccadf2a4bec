//! Keys of the simulated nodes, made once per process because signing is slow.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use trireme_datapath::Secrets;
use trireme_identity::NodeId;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::credential::NodeCredential;
use trireme_token::{
    Constraints, Encoding, Psk, PublicKeyAdder, SeededRandom, Signer, SigningKey, TrustRoot, Verifier,
};

use super::scenario::Trust;
use crate::clock::EPOCH;

/// Longer than any run.
const LIFETIME_SECS: u64 = 30 * 24 * 3600;

struct Material {
    psk: Psk,
    root: Vec<u8>,
    nodes: Vec<NodeKeys>,
}

struct NodeKeys {
    id: NodeId,
    key: SigningKey,
    certificate: NodeCredential,
    key_token: NodeCredential,
}

/// Secrets of node `node`, freshly wired so that no run sees another's caches.
pub(super) fn secrets(trust: Trust, node: usize, encoding: Encoding) -> Secrets {
    static MATERIAL: OnceLock<Material> = OnceLock::new();
    let material = MATERIAL.get_or_init(Material::make);
    let own = &material.nodes[node];
    let pki = |credential: &NodeCredential| {
        Signer::pki(own.id.clone(), own.key.clone(), credential).expect("the credential is the node's own")
    };
    let signer = match trust {
        Trust::Psk => Signer::psk(own.id.clone(), material.psk.clone()),
        Trust::Certificate => pki(&own.certificate),
        Trust::KeyToken => pki(&own.key_token),
        Trust::Prepopulated => pki(&NodeCredential::Prepopulated),
    };
    Secrets { signer: Arc::new(signer), verifier: Arc::new(material.verifier(trust)), encoding }
}

impl Material {
    fn make() -> Self {
        let rng = &mut SeededRandom::new([7; 32]);
        let period = Period { now: EPOCH, lifetime_secs: LIFETIME_SECS };
        let authority =
            Authority::create("simulated", &Constraints::Unrestricted, period, rng).expect("a CA");
        let nodes = ["node-0", "node-1"].map(|name| {
            let id = NodeId::from_str(name).expect("a valid name");
            let key = SigningKey::generate(rng).expect("a key");
            let request = NodeRequest {
                node: id.clone(),
                key: key.public().clone(),
                constraints: Constraints::Unrestricted,
                period,
            };
            NodeKeys {
                id,
                certificate: authority.certify(&request, rng).expect("a certificate"),
                key_token: authority.key_token(&request).expect("a key token"),
                key,
            }
        });
        Self {
            psk: Psk::new(b"simulated-pre-shared-key-of-32-b").expect("a long enough key"),
            root: authority.certificate_der().to_vec(),
            nodes: nodes.into(),
        }
    }

    fn verifier(&self, trust: Trust) -> Verifier {
        match trust {
            Trust::Psk => Verifier::psk(self.psk.clone()),
            Trust::Certificate | Trust::KeyToken => {
                let root = TrustRoot::from_der("simulated", &self.root, Constraints::Unrestricted);
                Verifier::pki(vec![root.expect("a CA certificate")])
            }
            Trust::Prepopulated => {
                let verifier = Verifier::pki(Vec::new());
                for node in &self.nodes {
                    verifier
                        .add_public_key(node.id.clone(), node.key.public().clone(), Constraints::Unrestricted)
                        .expect("a PKI verifier takes keys");
                }
                verifier
            }
        }
    }
}
