//! What was taught, for computing MACs beside engine and programs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use trireme_datapath::{KeyName, Lesson};
use trireme_handshake::message::{self, Sender};
use trireme_token::{MacKey, Nonce, PairKeys, Role, TokenId, mac};
use trireme_wire::tap::Header;

/// Keys and tokens by name.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Our tokens, newest first.
    pub(crate) own: Vec<TokenId>,
    keys: HashMap<TokenId, KeyName>,
    pairs: HashMap<(KeyName, KeyName, &'static str), Arc<PairKeys>>,
    destinations: HashMap<(IpAddr, u16), Option<TokenId>>,
}

/// How to make a message anew that the receiver takes for genuine.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    pub(crate) key: MacKey,
    pub(crate) to: Sender,
}

const fn name(role: Role) -> &'static str {
    match role {
        Role::Initiator => "initiator",
        Role::Responder => "responder",
    }
}

impl Book {
    pub(crate) fn learn(&mut self, lesson: &Lesson) {
        match lesson {
            Lesson::OwnTokens { tokens, .. } => {
                self.own = tokens.iter().map(|own| own.id).collect();
                self.keys.extend(tokens.iter().map(|own| (own.id, own.key)));
            }
            Lesson::Peer { token, key, .. } => {
                self.keys.insert(*token, *key);
            }
            Lesson::Pair { own, peer, role, keys } => {
                self.pairs.insert((*own, *peer, name(*role)), Arc::clone(keys));
            }
            Lesson::Destination { remote, peer, .. } => {
                self.destinations.insert(*remote, peer.map(|(peer, _)| peer));
            }
            Lesson::ForgetPeer(_)
            | Lesson::Verdict { .. }
            | Lesson::ForgetDestination { .. }
            | Lesson::Refusal { .. } => {}
        }
    }

    /// The MAC keys between a token of ours and a peer's.
    pub(crate) fn pair(&self, own: TokenId, peer: TokenId, role: Role) -> Option<&PairKeys> {
        let (own, peer) = (self.keys.get(&own)?, self.keys.get(&peer)?);
        self.pairs.get(&(*own, *peer, name(role))).map(|keys| &**keys)
    }

    /// The MAC that a SYN of ours must have at this address.
    pub(crate) fn mac_of_syn(&self, header: &Header, remote: (IpAddr, u16)) -> Option<[u8; 16]> {
        let peer = (*self.destinations.get(&remote)?)?;
        let keys = self.pair(TokenId(header.token_id), peer, Role::Initiator)?;
        let (front, back) = header.mac_input();
        Some(mac(&keys.initiator, &front, &back, &peer, &Nonce::ZERO))
    }

    /// Whether the sender of this SYN has shown that it holds one of our tokens.
    pub(crate) fn holds(&self, header: &Header) -> bool {
        self.own.iter().any(|own| {
            let to = Sender { token: *own, nonce: Nonce::ZERO };
            self.pair(*own, TokenId(header.token_id), Role::Responder)
                .is_some_and(|keys| message::check_mac(header, &keys.initiator, to).is_ok())
        })
    }
}
