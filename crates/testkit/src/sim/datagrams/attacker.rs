//! Somebody who hears everything and sends what he likes, but changes and stops nothing on its way.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use trireme_handshake::message::{self, Seal, Sender};
use trireme_identity::Protocol;
use trireme_token::{MacKey, Nonce, TokenId};
use trireme_wire::datagram::Datagram;
use trireme_wire::tap;
use trireme_wire::tuple::Endpoint;

use super::{CLIENT, Plan, SERVER, Verdict, packet};

/// Messages that he remembers.
const MEMORY: usize = 64;

pub(super) struct Attacker {
    rng: ChaCha8Rng,
    overheard: Vec<Vec<u8>>,
}

impl Attacker {
    pub(super) const fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, overheard: Vec::new() }
    }

    /// Remembers messages of enforcers.
    pub(super) fn overhear(&mut self, bytes: &[u8]) {
        let Ok(datagram) = Datagram::parse(bytes) else { return };
        let data = datagram.udp_data(bytes);
        if !tap::is_tap(data) {
            return;
        }
        if self.overheard.len() >= MEMORY {
            self.overheard.remove(0);
        }
        self.overheard.push(data.to_vec());
    }

    /// Packets that arrive at an end's edge, from the other end as far as they tell.
    pub(super) fn strike(&mut self, plan: &Plan, translated: &BTreeMap<u16, u16>) -> Vec<(usize, Vec<u8>)> {
        let port = self.rng.random_range(plan.ports());
        let side = if self.rng.random_bool(0.5) { CLIENT } else { SERVER };
        let far = match plan.translator {
            Some(outside) => Endpoint::new(outside, translated.get(&port).copied().unwrap_or(port)),
            None => plan.client(port),
        };
        let (from, to) =
            if side == CLIENT { (plan.server(), plan.client(port)) } else { (far, plan.server()) };
        let denied = !matches!(plan.verdict, Verdict::ByIdentity | Verdict::ByAddress);
        let data = match self.rng.random_range(0..6) {
            // Data in another's name gets through where the flow is open: there is no secret in it.
            0 if denied && plan.has_enforcer(side) => b"ask 1 2 3".to_vec(),
            1 => self.forge(),
            2 | 3 => self.replay(),
            _ => self.bend(),
        };
        vec![(side, packet(from, to, &data))]
    }

    fn replay(&mut self) -> Vec<u8> {
        match self.overheard.len() {
            0 => b"TAP\x01".to_vec(),
            len => self.overheard[self.rng.random_range(0..len)].clone(),
        }
    }

    /// An overheard message with one byte changed.
    fn bend(&mut self) -> Vec<u8> {
        let mut data = self.replay();
        let at = self.rng.random_range(0..data.len());
        data[at] ^= 1 << self.rng.random_range(0..8);
        data
    }

    /// A refusal or a request, with the nonce of an overheard message where it takes one.
    fn forge(&mut self) -> Vec<u8> {
        let heard = tap::Header::parse(&self.replay()).ok();
        let (token, nonce) = heard.map_or(([1; 16], [2; 16]), |header| (header.token_id, header.nonce));
        let key = MacKey::from_bytes(self.rng.random());
        let to = Sender { token: TokenId(token), nonce: Nonce(nonce) };
        let forged = match self.rng.random_range(0..4) {
            0 => message::refusal(Protocol::UDP, TokenId(token), Some(&key), to, 400, 1),
            1 => message::refusal(Protocol::UDP, TokenId(token), None, to, 0, 0),
            2 => message::token_request(Protocol::UDP, TokenId(token), to.nonce, Seal::Open),
            _ => {
                message::token_request(Protocol::UDP, TokenId(token), Nonce::ZERO, Seal::Mac(&key, to.token))
            }
        };
        forged.unwrap_or_default()
    }
}
