//! The initiator's half of a handshake.

use trireme_token::{PairKeys, TokenId};
use trireme_wire::tap::{Attested, Header};

use crate::Fault;
use crate::message::Sender;

mod admitted;
mod proving;
mod sent;

pub use admitted::{AddressAdmitted, Before};
pub use proving::Proving;
pub use sent::{LastResort, PlainSent, SynSent};

/// A message of the responder and the keys shared with its node.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The message.
    pub header: &'a Header,
    /// The keys that belong to the token it names and to `own`.
    pub keys: &'a PairKeys,
    /// The token of ours that it answers: several may have left with one nonce.
    pub own: TokenId,
}

/// A segment of the handshake, as the initiator's enforcer sees it.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The unit sends its SYN again.
    Syn,
    /// The unit sends an empty ACK.
    Ack {
        /// Its sequence number.
        seq: u32,
    },
    /// The unit sends data or FIN.
    Data {
        /// Its sequence number.
        seq: u32,
    },
    /// The unit sends a reset.
    Reset,
    /// The responder sends a SYN-ACK.
    SynAck {
        /// What it acknowledges.
        ack: u32,
        /// Its kind-2 message; none from a peer without TAP.
        message: Option<Message<'a>>,
    },
    /// The responder answers with a reset.
    PeerReset {
        /// What it acknowledges; none without the ACK flag.
        ack: Option<u32>,
        /// Its kind-2 message; none from a peer without TAP.
        message: Option<Message<'a>>,
    },
    /// The responder sends an empty ACK.
    PeerAck {
        /// What it acknowledges.
        ack: u32,
    },
    /// The responder sends data or FIN.
    PeerData {
        /// What it acknowledges.
        ack: u32,
    },
    /// The peer sends a SYN.
    PeerSyn,
    /// The responder's enforcer confirms the proof, over UDP.
    Confirmation(Message<'a>),
    /// The peer's enforcer sends kind 4.
    Refusal {
        /// The message.
        header: &'a Header,
        /// The keys that belong to the token it names and to `own`, if that token is known.
        keys: Option<&'a PairKeys>,
        /// The token of ours that it answers.
        own: TokenId,
    },
    /// The peer's enforcer sends kind 5.
    TokenRequest {
        /// The message.
        header: &'a Header,
    },
}

/// How much of the token a SYN carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// All of it.
    Full,
    /// Its id is enough if the peer is known to hold it.
    IfUnknown,
}

/// The proof of one connection: a kind-3 message for one sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The sequence number it stands at: the SYN's plus one.
    pub seq: u32,
    /// The message.
    pub payload: Vec<u8>,
    /// The MAC in it.
    pub mac: [u8; 16],
}

/// A responder that proved who it is; whether it is authorized is for others to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Its token and nonce.
    pub peer: Sender,
    /// The token of ours that it answered.
    pub own: TokenId,
    /// Its own end, which translation may hide.
    pub endpoint: Attested,
    /// Our proof for it.
    pub proof: Proof,
}

/// What the peer's enforcer says about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRefusal {
    /// The token it names.
    pub peer: TokenId,
    /// The code of its reason; zero if it does not say.
    pub reason: u16,
    /// The number of its rule; zero if it does not say.
    pub rule: u16,
    /// Whether its MAC was checked.
    pub verified: Verified,
}

/// Whether a statement was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Its MAC verifies.
    Yes,
    /// There is no MAC, or no key to check it with; the nonce shows only that the sender saw the SYN.
    No,
}

/// What is to be done with a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Let it leave with kind 1.
    Identify(Attach),
    /// Let it pass as it is.
    Pass,
    /// Let it pass without its payload.
    PassBare,
    /// Let it leave without identity: the last resort against paths that lose payloads on SYNs.
    FallBack,
    /// Ask whether the responder is authorized; if so, `accept` and pass the SYN-ACK without its payload.
    Authorize(Authenticated),
    /// Ask whether the responder's address is allowed; if so, `accept_address` and pass.
    AuthorizeAddress,
    /// Ask whether the responder is authorized; if so, pass the reset without its payload.
    AuthorizeReset(Authenticated),
    /// Ask whether the responder's address is allowed; if so, pass the reset.
    AuthorizeAddressReset,
    /// Attach the proof to it.
    AttachProof(Proof),
    /// Send the proof in front of it, as a segment of its own, then pass it.
    ProofFirst(Proof),
    /// Answer it with the proof, as a segment of its own, and pass it without its payload.
    ProveAgain(Proof),
    /// The responder has the proof: pass the segment, stop repeating.
    Confirmed,
    /// Report the refusal once; the message ends here.
    Report(PeerRefusal),
    /// Send the SYN again with the whole token and the cookie, if there is one; the message ends here.
    Resend(Option<[u8; 16]>),
    /// The message ends here.
    Consume,
    /// Drop it.
    Drop(Fault),
}

/// The initiator's half of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// Its SYN left with identity.
    SynSent(SynSent),
    /// Its SYN left without identity.
    PlainSent(PlainSent),
    /// The responder is authenticated and accepted; the proof is repeated until it is confirmed.
    Proving(Proving),
    /// The responder has no identity and its address is accepted.
    AddressAdmitted(AddressAdmitted),
}

impl Initiator {
    /// Takes a segment and says what to do with it.
    pub fn handle(&mut self, input: Input<'_>) -> Output {
        match self {
            Self::SynSent(state) => state.handle(input),
            Self::PlainSent(state) => state.handle(input),
            Self::Proving(state) if matches!(input, Input::Syn) => {
                let mut sent = state.sent().clone();
                let output = sent.handle(Input::Syn);
                *self = Self::SynSent(sent);
                output
            }
            Self::AddressAdmitted(state) if matches!(input, Input::Syn) => {
                let mut before = state.before().clone().into_initiator();
                let output = before.handle(Input::Syn);
                *self = before;
                output
            }
            Self::Proving(state) => state.handle(input),
            Self::AddressAdmitted(state) => state.handle(input),
        }
    }

    /// Goes on with an authorized responder.
    pub fn accept(&mut self, authenticated: Authenticated) -> Accepted {
        let Self::SynSent(sent) = self else { return Accepted::No };
        let mut sent = sent.clone();
        sent.show(authenticated.own);
        *self = Self::Proving(Proving::new(sent, authenticated));
        Accepted::Yes
    }

    /// Goes on with a handshake that somebody else has led up to here.
    #[must_use]
    pub fn resume(sent: SynSent, authenticated: Option<Authenticated>) -> Self {
        match authenticated {
            Some(authenticated) => Self::Proving(Proving::new(sent, authenticated)),
            None => Self::SynSent(sent),
        }
    }

    /// Goes on with a responder without identity whose address is allowed.
    pub fn accept_address(&mut self) -> Accepted {
        let before = match self {
            Self::SynSent(sent) => Before::SynSent(sent.clone()),
            Self::PlainSent(sent) => Before::PlainSent(sent.clone()),
            Self::Proving(_) | Self::AddressAdmitted(_) => return Accepted::No,
        };
        *self = Self::AddressAdmitted(AddressAdmitted::new(before));
        Accepted::Yes
    }
}

/// Whether a handshake could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It went on.
    Yes,
    /// Its state has no place for that; it stays.
    No,
}

/// Compares an acknowledgement with the SYN's sequence number.
pub(crate) fn check_ack(isn: u32, ack: u32) -> Result<(), Fault> {
    if ack == isn.wrapping_add(1) { Ok(()) } else { Err(Fault::Stray) }
}

#[cfg(test)]
mod tests;
