//! A connection to a responder without identity.

use super::{Initiator, Input, Output, PlainSent, SynSent};
use crate::Fault;

/// The state that the SYN left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It left with identity.
    SynSent(SynSent),
    /// It left without.
    PlainSent(PlainSent),
}

impl Before {
    pub(super) fn into_initiator(self) -> Initiator {
        match self {
            Self::SynSent(state) => Initiator::SynSent(state),
            Self::PlainSent(state) => Initiator::PlainSent(state),
        }
    }
}

/// The responder has no identity and its address is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressAdmitted {
    before: Before,
}

impl AddressAdmitted {
    pub(super) const fn new(before: Before) -> Self {
        Self { before }
    }

    /// The state that the SYN left behind.
    #[must_use]
    pub const fn before(&self) -> &Before {
        &self.before
    }

    pub(super) fn handle(&self, input: Input<'_>) -> Output {
        match input {
            Input::SynAck { message: Some(_), .. } | Input::Confirmation(_) => {
                Output::Drop(Fault::Unexpected)
            }
            Input::Ack { .. }
            | Input::Data { .. }
            | Input::Reset
            | Input::SynAck { message: None, .. }
            | Input::PeerReset { .. }
            | Input::PeerAck { .. }
            | Input::PeerData { .. }
            | Input::PeerSyn
            | Input::Refusal { .. }
            | Input::TokenRequest { .. } => Output::Pass,
            Input::Syn => Output::Drop(Fault::Stray),
        }
    }
}
