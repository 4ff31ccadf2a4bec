//! The responder's half of a handshake.

use trireme_token::{Nonce, PairKeys, TokenId};
use trireme_wire::tap::Header;

use crate::Fault;
use crate::message::Sender;

mod address;
mod identity;

pub use address::{AddressAdmitted, AddressSyn, AddressSynAck};
pub use identity::{Proven, SynAckSent, SynReceived};

/// A segment of the handshake, as the responder's enforcer sees it.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The initiator's SYN comes again, with this token and nonce or without TAP.
    PeerSyn(Option<Sender>),
    /// The unit sends a SYN-ACK.
    SynAck {
        /// Its sequence number.
        seq: u32,
        /// A nonce never used before, should a new answer need one.
        fresh: Nonce,
    },
    /// The unit sends a reset.
    Reset,
    /// The unit sends anything else.
    Segment,
    /// The initiator sends a segment whose whole payload is a kind-3 message.
    Proof {
        /// Its sequence number.
        seq: u32,
        /// What it acknowledges.
        ack: u32,
        /// The message.
        header: &'a Header,
        /// The keys that belong to the token it names and to `own`; none if the initiator has no identity.
        keys: Option<&'a PairKeys>,
        /// The token of ours that it answers: several may have left with one nonce.
        own: TokenId,
    },
    /// The initiator sends an empty ACK.
    PeerAck {
        /// What it acknowledges.
        ack: u32,
    },
    /// The initiator sends data or FIN.
    PeerData {
        /// What it acknowledges.
        ack: u32,
    },
    /// The initiator sends a reset.
    PeerReset {
        /// Its sequence number.
        seq: u32,
    },
}

/// How much of the token a SYN-ACK carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// All of it: this is a retransmission.
    Full,
    /// Its id is enough if the initiator is known to hold it.
    IfUnknown,
}

/// What is to be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Pass it without any TAP payload.
    Pass,
    /// Forget this handshake and judge the SYN as a new one.
    Anew,
    /// The initiator shows another token with the same nonce: judge it; if it is accepted, `show_peer`.
    AnotherToken,
    /// Let it leave with kind 2.
    Answer(Attach),
    /// The same, and the tuple's established entry ends: the unit has begun a new connection.
    AnswerAnew,
    /// Let it leave without TAP, and the tuple's established entry ends.
    PassAnew,
    /// Let the reset leave with kind 2.
    Attest,
    /// The initiator is proven: admit the connection, strip the message, pass, release what was held.
    Admit,
    /// The initiator without identity answers at its address: admit the connection and pass.
    AdmitAddress,
    /// A late duplicate of the proof: strip the message and pass.
    Duplicate,
    /// Keep it until the proof arrives.
    Hold,
    /// Drop it.
    Drop(Fault),
}

/// The responder's half of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Responder {
    /// The initiator's SYN was authorized by its claims.
    SynReceived(SynReceived),
    /// The unit's SYN-ACK left with kind 2.
    SynAckSent(SynAckSent),
    /// The initiator proved itself.
    Proven(Proven),
    /// The initiator's SYN was accepted by its address.
    AddressSyn(AddressSyn),
    /// The unit's SYN-ACK left without TAP.
    AddressSynAck(AddressSynAck),
    /// The initiator without identity answered at its address.
    AddressAdmitted(AddressAdmitted),
}

impl Responder {
    /// Takes a segment and says what to do with it.
    pub fn handle(&mut self, input: Input<'_>) -> Output {
        let (next, output) = match self {
            Self::SynReceived(state) => state.handle(input),
            Self::SynAckSent(state) => state.handle(input),
            Self::Proven(state) => state.handle(input),
            Self::AddressSyn(state) => state.handle(input),
            Self::AddressSynAck(state) => state.handle(input),
            Self::AddressAdmitted(state) => state.handle(input),
        };
        if let Some(next) = next {
            *self = next;
        }
        output
    }

    /// Takes a proof for this token of the initiator's as well; the one before stays good.
    pub fn show_peer(&mut self, token: TokenId) {
        if let Some(syn) = self.syn_mut() {
            syn.show_peer(token);
        }
    }

    /// Shows another token of ours from the next SYN-ACK on, with the same nonce.
    pub fn show(&mut self, token: TokenId) {
        if let Some(syn) = self.syn_mut() {
            syn.show(token);
        }
    }

    const fn syn_mut(&mut self) -> Option<&mut SynReceived> {
        match self {
            Self::SynReceived(state) => Some(state),
            Self::SynAckSent(state) => Some(state.syn_mut()),
            Self::Proven(state) => Some(state.syn_mut()),
            Self::AddressSyn(_) | Self::AddressSynAck(_) | Self::AddressAdmitted(_) => None,
        }
    }

    /// What the initiator's SYN said; none for an initiator without identity.
    #[must_use]
    pub const fn syn(&self) -> Option<&SynReceived> {
        match self {
            Self::SynReceived(state) => Some(state),
            Self::SynAckSent(state) => Some(state.syn()),
            Self::Proven(state) => Some(state.syn()),
            Self::AddressSyn(_) | Self::AddressSynAck(_) | Self::AddressAdmitted(_) => None,
        }
    }
}

type Step = (Option<Responder>, Output);

const fn stay(output: Output) -> Step {
    (None, output)
}

/// A reset passes if it stands exactly where the initiator's next segment would (RFC 5961, section 3.2).
const fn check_reset(isn: u32, seq: u32) -> Step {
    if seq == isn.wrapping_add(1) { stay(Output::Pass) } else { stay(Output::Drop(Fault::ResetUnproven)) }
}

#[cfg(test)]
mod tests;
