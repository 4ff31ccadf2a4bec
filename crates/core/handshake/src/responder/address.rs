//! An initiator without identity, judged by its address.

use super::{Input, Output, Responder, Step, check_reset, stay};
use crate::Fault;

/// The initiator's SYN was accepted by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSyn {
    isn: u32,
}

impl AddressSyn {
    /// Starts a handshake with an initiator whose address is allowed.
    #[must_use]
    pub const fn new(isn: u32) -> Self {
        Self { isn }
    }

    pub(super) fn handle(&self, input: Input<'_>) -> Step {
        match input {
            Input::PeerSyn(again) => stay(identity_first(again.is_some())),
            Input::SynAck { seq, .. } => {
                let answered = AddressSynAck { isn: self.isn, syn_acks: [seq; 2] };
                (Some(Responder::AddressSynAck(answered)), Output::Pass)
            }
            Input::Reset => stay(Output::Pass),
            Input::PeerReset { seq } => check_reset(self.isn, seq),
            Input::Segment | Input::Proof { .. } | Input::PeerAck { .. } | Input::PeerData { .. } => {
                stay(Output::Drop(Fault::Stray))
            }
        }
    }
}

/// The unit's SYN-ACK left; an answer to it shows that the initiator receives at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSynAck {
    isn: u32,
    /// The sequence numbers of the last two SYN-ACKs (SYN cookies change them).
    syn_acks: [u32; 2],
}

impl AddressSynAck {
    pub(super) fn handle(&self, input: Input<'_>) -> Step {
        match input {
            Input::PeerSyn(again) => stay(identity_first(again.is_some())),
            Input::SynAck { seq, .. } => {
                let [last, _] = self.syn_acks;
                let answered = Self { isn: self.isn, syn_acks: [seq, last] };
                (Some(Responder::AddressSynAck(answered)), Output::Pass)
            }
            Input::Proof { ack, .. } | Input::PeerAck { ack } | Input::PeerData { ack } => {
                if self.syn_acks.contains(&ack.wrapping_sub(1)) {
                    (
                        Some(Responder::AddressAdmitted(AddressAdmitted { answered: self.clone() })),
                        Output::AdmitAddress,
                    )
                } else {
                    stay(Output::Drop(Fault::Stray))
                }
            }
            Input::PeerReset { seq } => check_reset(self.isn, seq),
            Input::Reset | Input::Segment => stay(Output::Pass),
        }
    }
}

/// The initiator without identity answered at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressAdmitted {
    answered: AddressSynAck,
}

impl AddressAdmitted {
    pub(super) fn handle(&self, input: Input<'_>) -> Step {
        match input {
            Input::SynAck { seq, .. } if !self.answered.syn_acks.contains(&seq) => {
                let answered = AddressSynAck { isn: self.answered.isn, syn_acks: [seq; 2] };
                (Some(Responder::AddressSynAck(answered)), Output::PassAnew)
            }
            Input::PeerSyn(_)
            | Input::SynAck { .. }
            | Input::Reset
            | Input::Segment
            | Input::Proof { .. }
            | Input::PeerAck { .. }
            | Input::PeerData { .. }
            | Input::PeerReset { .. } => stay(Output::Pass),
        }
    }
}

/// A SYN without identity must not stand in the way of the same SYN with it.
const fn identity_first(has_identity: bool) -> Output {
    if has_identity { Output::Anew } else { Output::Pass }
}
