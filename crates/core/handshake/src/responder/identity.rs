//! An initiator with identity.

use trireme_identity::Protocol;
use trireme_token::{Nonce, PairKeys, Role, TokenId};
use trireme_wire::tap::{Body, Header};

use super::{Attach, Input, Output, Responder, Step, check_reset, stay};
use crate::Fault;
use crate::message::{self, Sender};

/// The initiator's SYN was authorized; the unit has not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynReceived {
    protocol: Protocol,
    isn: u32,
    peer: Sender,
    /// The token that the initiator showed before with the same nonce.
    before: Option<TokenId>,
    own: Sender,
}

impl SynReceived {
    /// Starts a handshake with an authorized initiator; `own` holds the nonce that all SYN-ACKs for this SYN share.
    #[must_use]
    pub const fn new(isn: u32, peer: Sender, own: Sender) -> Self {
        Self { protocol: Protocol::TCP, isn, peer, before: None, own }
    }

    /// The same over another protocol: the sequence number is a mere name then.
    #[must_use]
    pub const fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The initiator's token and nonce.
    #[must_use]
    pub const fn peer(&self) -> Sender {
        self.peer
    }

    /// Our token and nonce.
    #[must_use]
    pub const fn own(&self) -> Sender {
        self.own
    }

    pub(super) fn show_peer(&mut self, token: TokenId) {
        if token != self.peer.token {
            self.before = Some(self.peer.token);
            self.peer.token = token;
        }
    }

    pub(super) const fn show(&mut self, token: TokenId) {
        self.own.token = token;
    }

    pub(super) fn handle(&self, input: Input<'_>) -> Step {
        match input {
            Input::PeerSyn(again) => stay(self.handle_syn(again)),
            Input::SynAck { seq, .. } => {
                let sent = SynAckSent { syn: self.clone(), syn_ack: seq };
                (Some(Responder::SynAckSent(sent)), Output::Answer(Attach::IfUnknown))
            }
            Input::Reset => stay(Output::Attest),
            Input::PeerReset { seq } => check_reset(self.isn, seq),
            Input::Segment | Input::Proof { .. } | Input::PeerAck { .. } | Input::PeerData { .. } => {
                stay(Output::Drop(Fault::Stray))
            }
        }
    }

    /// The same nonce, or a SYN that left without identity as a last resort, is a retransmission.
    fn handle_syn(&self, again: Option<Sender>) -> Output {
        match again {
            Some(again) if again.nonce != self.peer.nonce => Output::Drop(Fault::NonceMismatch),
            Some(again) if again.token != self.peer.token => Output::AnotherToken,
            Some(_) | None => Output::Pass,
        }
    }

    fn check_proof(&self, seq: u32, proof: (&Header, Option<&PairKeys>, TokenId)) -> Result<(), Fault> {
        let (header, keys, own) = proof;
        let Body::Ack { echo, protocol } = header.body else { return Err(Fault::Unexpected) };
        if protocol != self.protocol {
            return Err(Fault::Unexpected);
        }
        if seq != self.isn.wrapping_add(1) {
            return Err(Fault::Stray);
        }
        let peer = message::sender(header);
        let shown = peer.token == self.peer.token || Some(peer.token) == self.before;
        if echo != self.own.nonce.0 || peer.nonce != self.peer.nonce || !shown {
            return Err(Fault::NonceMismatch);
        }
        let keys = keys.ok_or(Fault::MacMissing)?;
        message::check_mac(header, keys.of(Role::Initiator), Sender { token: own, ..self.own })
    }
}

/// The unit's SYN-ACK left with kind 2; the proof is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynAckSent {
    syn: SynReceived,
    syn_ack: u32,
}

impl SynAckSent {
    /// The same for a unit that has answered with this sequence number.
    #[must_use]
    pub const fn new(syn: SynReceived, syn_ack: u32) -> Self {
        Self { syn, syn_ack }
    }

    /// What the SYN said.
    #[must_use]
    pub const fn syn(&self) -> &SynReceived {
        &self.syn
    }

    pub(super) const fn syn_mut(&mut self) -> &mut SynReceived {
        &mut self.syn
    }

    pub(super) fn handle(&self, input: Input<'_>) -> Step {
        match input {
            Input::PeerSyn(again) => stay(self.syn.handle_syn(again)),
            // SYN cookies answer one SYN with several sequence numbers: the nonce belongs to the SYN.
            Input::SynAck { seq, .. } => {
                let sent = Self { syn: self.syn.clone(), syn_ack: seq };
                (Some(Responder::SynAckSent(sent)), Output::Answer(Attach::Full))
            }
            Input::Proof { seq, header, keys, own, .. } => {
                match self.syn.check_proof(seq, (header, keys, own)) {
                    Ok(()) => {
                        let proven = Proven { sent: self.clone(), proof_mac: header.mac };
                        (Some(Responder::Proven(proven)), Output::Admit)
                    }
                    Err(fault) => stay(Output::Drop(fault)),
                }
            }
            Input::PeerData { .. } => stay(Output::Hold),
            Input::PeerAck { .. } => stay(Output::Drop(Fault::ProofMissing)),
            Input::PeerReset { seq } => check_reset(self.syn.isn, seq),
            Input::Reset => stay(Output::Pass),
            // Anything but a reset would tell the initiator's enforcer that the proof has arrived.
            Input::Segment => stay(Output::Drop(Fault::Stray)),
        }
    }
}

/// The initiator proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    sent: SynAckSent,
    proof_mac: [u8; 16],
}

impl Proven {
    /// What the SYN said.
    #[must_use]
    pub const fn syn(&self) -> &SynReceived {
        &self.sent.syn
    }

    pub(super) const fn syn_mut(&mut self) -> &mut SynReceived {
        &mut self.sent.syn
    }

    /// The MAC of the proof.
    #[must_use]
    pub const fn proof_mac(&self) -> [u8; 16] {
        self.proof_mac
    }

    pub(super) fn handle(&self, input: Input<'_>) -> Step {
        match input {
            // Which of two tokens was proven no longer matters.
            Input::PeerSyn(again) => {
                let syn = &self.sent.syn;
                let replayed = again.is_some_and(|again| again.nonce != syn.peer.nonce);
                stay(if replayed { Output::Drop(Fault::NonceMismatch) } else { Output::Pass })
            }
            Input::SynAck { seq, .. } if seq == self.sent.syn_ack => stay(Output::Answer(Attach::Full)),
            Input::SynAck { seq, fresh } => self.begin_anew(seq, fresh),
            Input::Proof { seq, header, .. }
                if seq == self.sent.syn.isn.wrapping_add(1) && header.mac == self.proof_mac =>
            {
                stay(Output::Duplicate)
            }
            Input::Proof { .. }
            | Input::Reset
            | Input::Segment
            | Input::PeerAck { .. }
            | Input::PeerData { .. }
            | Input::PeerReset { .. } => stay(Output::Pass),
        }
    }

    /// A SYN-ACK with another sequence number is a new connection for the unit: a replayed SYN must not find the nonce
    /// that a recorded proof answers.
    fn begin_anew(&self, seq: u32, fresh: Nonce) -> Step {
        let syn = SynReceived { own: Sender { nonce: fresh, ..self.sent.syn.own }, ..self.sent.syn.clone() };
        (Some(Responder::SynAckSent(SynAckSent { syn, syn_ack: seq })), Output::AnswerAnew)
    }
}
