//! Revocation.

use std::collections::BTreeSet;

use trireme_identity::NodeId;

use crate::{KeyId, TokenId};

/// What a deny list names of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denied {
    /// The token itself.
    Token,
    /// The key that signed it.
    Key,
    /// The node that issued it.
    Node,
}

/// Tokens, keys and nodes that are refused although they verify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    /// Refused tokens.
    pub tokens: BTreeSet<TokenId>,
    /// Refused signing keys.
    pub keys: BTreeSet<KeyId>,
    /// Refused nodes.
    pub nodes: BTreeSet<NodeId>,
}

impl DenyList {
    /// Tells what, if anything, is refused of a token.
    #[must_use]
    pub fn denies(&self, token: &TokenId, key: &KeyId, node: &NodeId) -> Option<Denied> {
        if self.tokens.contains(token) {
            Some(Denied::Token)
        } else if self.keys.contains(key) {
            Some(Denied::Key)
        } else if self.nodes.contains(node) {
            Some(Denied::Node)
        } else {
            None
        }
    }

    /// Whether nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.keys.is_empty() && self.nodes.is_empty()
    }
}
