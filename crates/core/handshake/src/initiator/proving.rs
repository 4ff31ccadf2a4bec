//! From the SYN-ACK on, until the responder is known to have the proof.

use trireme_token::Role;
use trireme_wire::tap::{Body, Header};

use super::{Authenticated, Input, Message, Output, Proof, SynSent};
use crate::Fault;
use crate::message::{self, Sender};

/// The responder is authenticated and accepted; the proof stands ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proving {
    sent: SynSent,
    authenticated: Authenticated,
    unit: Unit,
}

/// Whether the unit's stack has shown that it took the SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Unheard,
    Heard,
}

impl Proving {
    pub(super) const fn new(sent: SynSent, authenticated: Authenticated) -> Self {
        Self { sent, authenticated, unit: Unit::Unheard }
    }

    /// The state that the SYN left behind.
    #[must_use]
    pub const fn sent(&self) -> &SynSent {
        &self.sent
    }

    /// The responder's token and nonce.
    #[must_use]
    pub const fn peer(&self) -> Sender {
        self.authenticated.peer
    }

    /// The proof.
    #[must_use]
    pub const fn proof(&self) -> &Proof {
        &self.authenticated.proof
    }

    pub(super) fn handle(&mut self, input: Input<'_>) -> Output {
        if matches!(input, Input::Ack { .. } | Input::Data { .. }) {
            self.unit = Unit::Heard;
        }
        let proof = &self.authenticated.proof;
        match input {
            Input::Ack { seq } if seq == proof.seq => Output::AttachProof(proof.clone()),
            Input::Ack { .. } => Output::ProofFirst(proof.clone()),
            Input::Data { seq } if seq == proof.seq => Output::ProofFirst(proof.clone()),
            Input::Data { .. } | Input::Reset | Input::PeerSyn => Output::Pass,
            Input::SynAck { ack, message } => match self.sent.authenticate(ack, message) {
                // Roll-over may show another token of the responder's; the nonce says that it is the same handshake.
                Ok(Some(again))
                    if again.peer.nonce == self.authenticated.peer.nonce
                        && again.endpoint == self.authenticated.endpoint =>
                {
                    self.handle_again()
                }
                // A new connection of the responder, from a replayed SYN: this handshake proves itself once.
                Ok(Some(_)) => Output::Drop(Fault::NonceMismatch),
                Ok(None) => Output::Drop(Fault::IdentityStripped),
                Err(fault) => Output::Drop(fault),
            },
            Input::PeerReset { .. } | Input::PeerAck { .. } | Input::PeerData { .. } => Output::Confirmed,
            Input::Confirmation(message) => match self.check_confirmation(message) {
                Ok(()) => Output::Confirmed,
                Err(fault) => Output::Drop(fault),
            },
            Input::Refusal { header, .. } | Input::TokenRequest { header } => self.handle_late(header),
            Input::Syn => Output::Drop(Fault::Stray),
        }
    }

    /// A stack that never took the SYN-ACK (it is long gone, and the SYN was replayed) must not be spoken for.
    fn handle_again(&self) -> Output {
        match self.unit {
            Unit::Heard => Output::ProveAgain(self.authenticated.proof.clone()),
            Unit::Unheard => Output::Pass,
        }
    }

    fn check_confirmation(&self, Message { header, keys, own }: Message<'_>) -> Result<(), Fault> {
        let Body::Ack { echo, .. } = header.body else { return Err(Fault::Unexpected) };
        let sent = self.sent.own();
        if echo != sent.nonce.0 || message::sender(header) != self.authenticated.peer {
            return Err(Fault::NonceMismatch);
        }
        message::check_mac(header, keys.of(Role::Responder), Sender { token: own, ..sent })
    }

    /// A late message of the peer's enforcer ends here; anything else is the responder's first data.
    fn handle_late(&self, header: &Header) -> Output {
        match header.body {
            Body::Refusal { echo, .. } | Body::TokenRequest { echo, .. }
                if echo == self.sent.own().nonce.0 =>
            {
                Output::Consume
            }
            Body::Refusal { .. }
            | Body::TokenRequest { .. }
            | Body::Syn { .. }
            | Body::SynAck { .. }
            | Body::Ack { .. } => Output::Confirmed,
        }
    }
}
