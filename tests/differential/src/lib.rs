//! Differential tests: the programs of the kernel against the engine, packet by packet.
//!
//! Start with [`Campaign`] (handshake after handshake, valid and damaged) and [`Season::compare`](Season) (one packet
//! through both). [`Bed`] is a plane whose programs run without a network, [`Node`] an engine, [`Mirror`] what the
//! programs know about a flow as their packets tell it. This crate must not decide anything: the engine does.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod bed;
mod book;
mod campaign;
mod compare;
mod expired;
mod frames;
mod headers;
mod initiator;
mod lessons;
mod live;
mod mirror;
mod mutate;
mod nodes;
mod passed;
mod responder;
mod season;
mod secrets;
mod steps;
mod sums;
mod tally;
mod targets;

pub use bed::{Bed, Outcome, Punted};
pub use campaign::Campaign;
pub use mirror::Mirror;
pub use nodes::Node;
pub use season::Season;
pub use tally::Tally;
