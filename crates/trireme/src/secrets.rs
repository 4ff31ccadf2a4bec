//! What a node proves itself with and whom it believes.

use std::sync::Arc;

use trireme_token::{Encoding, Signer, Verifier};

/// How nodes prove who they are, for status and warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsKind {
    /// One key for all nodes.
    Psk,
    /// A key per node; its certificate travels with the token.
    Certificate,
    /// A key per node; its key token travels with the token.
    KeyToken,
    /// A key per node; peers hold the public one already.
    PrePopulated,
}

impl SecretsKind {
    /// The name in status and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Psk => "psk",
            Self::Certificate => "pki, certificate on the wire",
            Self::KeyToken => "pki, key token on the wire",
            Self::PrePopulated => "pki, pre-populated keys",
        }
    }
}

/// A node's secrets, checked and ready to use. Their `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct NodeSecrets {
    /// How nodes prove who they are.
    pub kind: SecretsKind,
    /// Makes the node's tokens.
    pub signer: Arc<Signer>,
    /// Judges the peers' tokens.
    pub verifier: Arc<Verifier>,
    /// The form of the node's tokens; both are accepted.
    pub encoding: Encoding,
    /// Seconds a token is valid.
    pub lifetime_secs: u64,
}

impl NodeSecrets {
    pub(crate) fn for_engine(&self) -> trireme_datapath::Secrets {
        trireme_datapath::Secrets {
            signer: Arc::clone(&self.signer),
            verifier: Arc::clone(&self.verifier),
            encoding: self.encoding,
        }
    }
}
