//! The kernel half of the BPF data path: loads the programs, puts them on the edges of PUs, hands punted packets
//! to user space and puts packets back exactly where they were taken.
//!
//! Start from [`Plane`] (everything pinned under one instance name, owned by one thread) and [`Punt`] (a packet
//! the maps could not decide). The programs are C, in `crates/kernel/bpf-prog`.
//!
//! This crate must not decide anything: it knows neither tokens nor policies, and no error in it may open a PU.

mod attach;
mod batch;
mod checksum;
mod cleanup;
mod config;
mod connection;
mod edge;
mod error;
mod events;
mod frame;
mod half_open;
mod identity;
mod inject;
mod maps;
mod memory;
mod migrate;
mod object;
mod on_hooks;
mod orders;
mod pins;
mod plane;
mod probe;
mod punt;
mod random;
mod reinject;
mod run;
mod segment;
mod shape;
mod socket;
mod sweep;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod types;
mod wake;

pub use cleanup::CleanupReport;
pub use config::{AttachMethod, Limits, PlaneConfig, Sizes};
pub use connection::{Activity, Class, Connection, FlowKey, Role};
pub use edge::{Edge, EdgeInfo};
pub use error::{
    AttachError, CleanupError, DetachError, ExistingError, InjectorError, OpenError, PlaneError,
};
pub use events::{EventPeer, EventReport};
pub use half_open::{AnsweringState, HalfOpen, OpeningState, PartyState};
pub use identity::{Direction, PairKeys, PeerState, RefusalState, VerdictState};
pub use on_hooks::{OnHook, programs_on};
pub use plane::{Damage, Plane, Repair};
pub use probe::has_tcx;
pub use punt::Punt;
pub use reinject::{Injection, Reinjected, Toward};
pub use sweep::{SweepLimits, SweepReport};
pub use time::{WallClock, wall_clock};
pub use trireme_bpf_abi::{Counter, PuntReason};
pub use types::{CounterSet, FailMode, Hook, Mode, OtherProtocols, OwnTokenState, PuState, Slot};
pub use wake::Waker;
