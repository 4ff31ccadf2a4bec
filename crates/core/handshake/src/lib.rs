//! The TAP handshake over TCP: what an initiator's and a responder's enforcer do with each segment.
//!
//! Start with [`initiator::Initiator`] and [`responder::Responder`]: state machines that take classified segments
//! (`handle`) and return what is to be done as values. [`message`] makes and checks the messages themselves.
//! This crate authenticates and stops there: it asks to be told whether the peer is authorized and knows no policy.
//! It keeps no table, reads no clock, draws no randomness and touches no packet.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod initiator;
pub mod message;
pub mod responder;

/// Why a segment does not fit the handshake; the segment is dropped and the state stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Fault {
    /// The segment has no place in this state.
    #[error("segment has no place in the handshake")]
    Stray,
    /// The acknowledgement covers more than the SYN: somebody took the TAP payload for data.
    #[error("acknowledgement covers the payload of the SYN")]
    BeyondSyn,
    /// The message is of a kind that does not belong on the segment.
    #[error("message is of an unexpected kind")]
    Unexpected,
    /// The message lacks the MAC its kind needs.
    #[error("message has no MAC")]
    MacMissing,
    /// The MAC does not verify.
    #[error("MAC does not verify")]
    MacInvalid,
    /// The message belongs to another nonce than the handshake's.
    #[error("message belongs to another nonce")]
    NonceMismatch,
    /// An authenticated handshake went on without its message.
    #[error("message is missing from an authenticated handshake")]
    IdentityStripped,
    /// Both ends sent a SYN for the same connection.
    #[error("both ends opened the connection")]
    SimultaneousOpen,
    /// A reset does not fit the connection.
    #[error("reset does not fit the connection")]
    ResetUnproven,
    /// Data came before the proof.
    #[error("data came before the proof")]
    ProofMissing,
}
