//! From the SYN-ACK on, until the responder is known to have the proof.

use trireme_wire::tap::{Body, Header};

use super::{Authenticated, Input, Output, Proof, SynSent};
use crate::Fault;
use crate::message::Sender;

/// The responder is authenticated and accepted; the proof stands ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proving {
    sent: SynSent,
    authenticated: Authenticated,
}

impl Proving {
    pub(super) const fn new(sent: SynSent, authenticated: Authenticated) -> Self {
        Self { sent, authenticated }
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

    pub(super) fn handle(&self, input: Input<'_>) -> Output {
        let proof = &self.authenticated.proof;
        match input {
            Input::Ack { seq } if seq == proof.seq => Output::AttachProof(proof.clone()),
            Input::Ack { .. } => Output::ProofFirst(proof.clone()),
            Input::Data { seq } if seq == proof.seq => Output::ProofFirst(proof.clone()),
            Input::Data { .. } | Input::Reset | Input::PeerSyn => Output::Pass,
            Input::SynAck { ack, message } => match self.sent.authenticate(ack, message) {
                Ok(Some(again)) if again == self.authenticated => Output::ProveAgain(again.proof),
                Ok(Some(other)) => Output::Authorize(other),
                Ok(None) => Output::Drop(Fault::IdentityStripped),
                Err(fault) => Output::Drop(fault),
            },
            Input::PeerReset { .. } | Input::PeerAck { .. } | Input::PeerData => Output::Confirmed,
            Input::Refusal { header, .. } | Input::TokenRequest { header } => self.handle_late(header),
            Input::Syn => Output::Drop(Fault::Stray),
        }
    }

    /// A late message of the peer's enforcer ends here; anything else is the responder's first data.
    fn handle_late(&self, header: &Header) -> Output {
        match header.body {
            Body::Refusal { echo, .. } | Body::TokenRequest { echo } if echo == self.sent.own().nonce.0 => {
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
