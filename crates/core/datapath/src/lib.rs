//! The engine: one packet of a processing unit in, a verdict and effects out.
//!
//! Start with [`Engine`] (its `handle_packet` reads like the specification: owner, parse, flow, authenticate,
//! authorize, rewrite, record, verdict) and [`Packet`] (what a back end hands over and gets back).
//! Every back end calls the same engine. It opens no socket, reads no clock, starts no thread and draws no
//! randomness beyond the seed it was given; signature checks leave it as jobs and come back as results.
#![forbid(unsafe_code)]

mod config;
mod engine;
mod lesson;
mod packet;
mod stats;
mod unit;
mod verify;

pub use config::{EngineConfig, EngineError, KnownTokens, Secrets};
pub use engine::{Engine, PeersError};
pub use lesson::{BackendEvent, HalfOpenEntry, KeyName, Lesson, OwnAttachment, Party, PeerPlace, SynHeader};
pub use packet::{Block, Effect, Hook, Packet, Toward, Verdict};
pub use stats::EngineStats;
pub use unit::{
    Authorize, Essential, NotifyPeer, OnPolicyChange, OtherProtocols, PuError, PuSettings, PuSpec, Refusal,
    Strictness, TargetNetworks, judges_other_protocols,
};
pub use verify::{VerifyDone, VerifyJob};
