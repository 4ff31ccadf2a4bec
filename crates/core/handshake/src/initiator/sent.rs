//! Between SYN and SYN-ACK.

use trireme_identity::Protocol;
use trireme_token::{Role, TokenId};
use trireme_wire::tap::{Body, Header};

use super::{Attach, Authenticated, Input, Message, Output, PeerRefusal, Proof, Verified, check_ack};
use crate::Fault;
use crate::message::{self, Sender};

/// The first SYN that may leave without identity if the ones before found no answer: the third retransmission. Then
/// every second one does: SYNs with identity may have been lost by chance.
const LAST_RESORT_SYN: u8 = 4;

/// Whether a handshake may go on without identity when SYNs with identity find no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastResort {
    /// The third retransmission, and every second one behind it, leaves without identity.
    Plain,
    /// Every SYN carries it.
    Never,
}

/// The SYN left with identity; no SYN-ACK was accepted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynSent {
    protocol: Protocol,
    isn: u32,
    own: Sender,
    last_resort: LastResort,
    syns: u8,
    resent: bool,
    refusal_reported: bool,
    /// Lengths of the payloads that left: with the whole token and without.
    payloads: [u16; 2],
}

impl SynSent {
    /// Starts a handshake; the first SYN may leave the token out where `Attach::IfUnknown` allows it.
    #[must_use]
    pub const fn new(isn: u32, own: Sender, last_resort: LastResort) -> Self {
        Self {
            protocol: Protocol::TCP,
            isn,
            own,
            last_resort,
            syns: 1,
            resent: false,
            refusal_reported: false,
            payloads: [0; 2],
        }
    }

    /// The same over another protocol: the sequence number is a mere name then.
    #[must_use]
    pub const fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// The same for a handshake of which this many SYNs have left already.
    #[must_use]
    pub const fn after(self, syns: u8) -> Self {
        Self { syns, ..self }
    }

    /// Our token and nonce.
    #[must_use]
    pub const fn own(&self) -> Sender {
        self.own
    }

    /// Shows another token of ours from the next SYN on, with the same nonce.
    pub const fn show(&mut self, token: TokenId) {
        self.own.token = token;
    }

    /// The sequence number of the SYN.
    #[must_use]
    pub const fn isn(&self) -> u32 {
        self.isn
    }

    /// What the first SYN carries.
    #[must_use]
    pub const fn first(&self) -> Attach {
        Attach::IfUnknown
    }

    /// Takes note of the length of a payload that leaves on a SYN: an acknowledgement of it, and of nothing else, shows
    /// that somebody took it for data.
    pub fn note_payload(&mut self, len: usize) {
        let Ok(len) = u16::try_from(len) else { return };
        let [last, _] = self.payloads;
        if !self.payloads.contains(&len) {
            self.payloads = [len, last];
        }
    }

    pub(super) fn handle(&mut self, input: Input<'_>) -> Output {
        match input {
            Input::Syn => self.handle_syn(),
            Input::SynAck { ack, message } => match self.authenticate(ack, message) {
                Ok(Some(authenticated)) => Output::Authorize(authenticated),
                Ok(None) => Output::AuthorizeAddress,
                Err(fault) => Output::Drop(fault),
            },
            Input::PeerReset { ack: Some(ack), message } => match self.authenticate_reset(ack, message) {
                Ok(Some(authenticated)) => Output::AuthorizeReset(authenticated),
                Ok(None) => Output::AuthorizeAddressReset,
                Err(fault) => Output::Drop(fault),
            },
            Input::PeerReset { ack: None, .. } => Output::Drop(Fault::ResetUnproven),
            Input::Refusal { header, keys, own } => {
                let checked = keys.filter(|_| header.has_mac());
                if let Some(keys) = checked
                    && let Err(fault) = message::check_mac(
                        header,
                        keys.of(Role::Responder),
                        Sender { token: own, ..self.own },
                    )
                {
                    return Output::Drop(fault);
                }
                let verified = if checked.is_some() { Verified::Yes } else { Verified::No };
                self.handle_refusal(header, verified)
            }
            Input::TokenRequest { header } => self.handle_token_request(header),
            Input::PeerSyn => Output::Drop(Fault::SimultaneousOpen),
            Input::Confirmation(_) => Output::Drop(Fault::Unexpected),
            Input::Ack { .. }
            | Input::Data { .. }
            | Input::Reset
            | Input::PeerAck { .. }
            | Input::PeerData { .. } => challenge(self.isn, input),
        }
    }

    fn handle_syn(&mut self) -> Output {
        self.syns = self.syns.checked_add(1).unwrap_or(LAST_RESORT_SYN);
        match self.last_resort {
            LastResort::Plain if self.syns >= LAST_RESORT_SYN && self.syns.is_multiple_of(2) => {
                Output::FallBack
            }
            LastResort::Plain | LastResort::Never => Output::Identify(Attach::Full),
        }
    }

    /// Checks a SYN-ACK; `None` is a peer without TAP.
    pub(super) fn authenticate(
        &self,
        ack: u32,
        message: Option<Message<'_>>,
    ) -> Result<Option<Authenticated>, Fault> {
        self.check_ack(ack)?;
        message.map(|message| self.open(message)).transpose()
    }

    /// As for a SYN-ACK, but the reset of a closed port without TAP acknowledges the payload as well.
    fn authenticate_reset(
        &self,
        ack: u32,
        message: Option<Message<'_>>,
    ) -> Result<Option<Authenticated>, Fault> {
        match (self.check_ack(ack), message) {
            (Ok(()), message) => message.map(|message| self.open(message)).transpose(),
            (Err(Fault::BeyondSyn), None) => Ok(None),
            (Err(_), _) => Err(Fault::ResetUnproven),
        }
    }

    fn check_ack(&self, ack: u32) -> Result<(), Fault> {
        match (check_ack(self.isn, ack), ack.wrapping_sub(self.isn).checked_sub(1)) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(len)) if self.payloads.iter().any(|sent| *sent > 0 && u32::from(*sent) == len) => {
                Err(Fault::BeyondSyn)
            }
            (Err(fault), _) => Err(fault),
        }
    }

    fn open(&self, Message { header, keys, own }: Message<'_>) -> Result<Authenticated, Fault> {
        let Body::SynAck { endpoint, .. } = header.body else { return Err(Fault::Unexpected) };
        if endpoint.protocol != self.protocol {
            return Err(Fault::Unexpected);
        }
        let sender = Sender { token: own, ..self.own };
        message::check_mac(header, keys.of(Role::Responder), sender)?;
        let peer = message::sender(header);
        let payload = message::ack(self.protocol, sender, keys.of(Role::Initiator), peer)
            .map_err(|_| Fault::Unexpected)?;
        let mac = payload.get(40..56).and_then(|mac| mac.try_into().ok()).ok_or(Fault::Unexpected)?;
        let proof = Proof { seq: self.isn.wrapping_add(1), payload, mac };
        Ok(Authenticated { peer, own, endpoint, proof })
    }

    /// A refusal changes nothing but that it is reported once.
    fn handle_refusal(&mut self, header: &Header, verified: Verified) -> Output {
        let Body::Refusal { echo, protocol, reason, rule } = header.body else {
            return Output::Drop(Fault::Unexpected);
        };
        if protocol != self.protocol {
            return Output::Drop(Fault::Unexpected);
        }
        if echo != self.own.nonce.0 {
            return Output::Drop(Fault::NonceMismatch);
        }
        if std::mem::replace(&mut self.refusal_reported, true) {
            return Output::Consume;
        }
        Output::Report(PeerRefusal { peer: message::sender(header).token, reason, rule, verified })
    }

    fn handle_token_request(&mut self, header: &Header) -> Output {
        let Body::TokenRequest { echo, protocol } = header.body else {
            return Output::Drop(Fault::Unexpected);
        };
        if protocol != self.protocol {
            return Output::Drop(Fault::Unexpected);
        }
        if echo != self.own.nonce.0 {
            return Output::Drop(Fault::NonceMismatch);
        }
        if std::mem::replace(&mut self.resent, true) {
            return Output::Consume;
        }
        Output::Resend((!header.has_mac() && header.mac != [0; 16]).then_some(header.mac))
    }
}

/// The SYN left without identity; no SYN-ACK was accepted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainSent {
    isn: u32,
}

impl PlainSent {
    /// Starts a handshake without identity.
    #[must_use]
    pub const fn new(isn: u32) -> Self {
        Self { isn }
    }

    pub(super) fn handle(&self, input: Input<'_>) -> Output {
        match input {
            Input::Syn => Output::Pass,
            Input::SynAck { ack, message: None } => match check_ack(self.isn, ack) {
                Ok(()) => Output::AuthorizeAddress,
                Err(_) => Output::Drop(Fault::Stray),
            },
            Input::PeerReset { ack: Some(ack), message: None } => match check_ack(self.isn, ack) {
                Ok(()) => Output::AuthorizeAddressReset,
                Err(_) => Output::Drop(Fault::ResetUnproven),
            },
            Input::PeerReset { ack: None, message: None } => Output::Drop(Fault::ResetUnproven),
            Input::SynAck { message: Some(_), .. }
            | Input::PeerReset { message: Some(_), .. }
            | Input::Confirmation(_)
            | Input::Refusal { .. }
            | Input::TokenRequest { .. } => Output::Drop(Fault::Unexpected),
            Input::PeerSyn => Output::Drop(Fault::SimultaneousOpen),
            Input::Ack { .. }
            | Input::Data { .. }
            | Input::Reset
            | Input::PeerAck { .. }
            | Input::PeerData { .. } => challenge(self.isn, input),
        }
    }
}

/// A peer that still has an older connection on the tuple answers a SYN, or goes on, with a segment of that one, and our
/// stack answers with a reset that clears it (RFC 9293, section 3.10.7.3): both pass, but no data does. Everything else is
/// stray before the SYN-ACK.
fn challenge(isn: u32, input: Input<'_>) -> Output {
    match input {
        Input::PeerAck { ack } | Input::PeerData { ack } if check_ack(isn, ack).is_err() => Output::PassBare,
        Input::Reset => Output::Pass,
        Input::PeerAck { .. }
        | Input::PeerData { .. }
        | Input::Ack { .. }
        | Input::Data { .. }
        | Input::Syn
        | Input::SynAck { .. }
        | Input::PeerReset { .. }
        | Input::PeerSyn
        | Input::Confirmation(_)
        | Input::Refusal { .. }
        | Input::TokenRequest { .. } => Output::Drop(Fault::Stray),
    }
}
