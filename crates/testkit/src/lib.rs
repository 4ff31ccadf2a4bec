//! What the project's tests stand on: a virtual clock, packets, a deterministic simulator and a lab of namespaces.
//!
//! Start with [`sim::run`] (one seeded run of two engines on a bad network) and [`packets::TcpPacket`] (a segment
//! for a test); [`lab`] builds the same on a real kernel. No crate of the product may depend on this one, and it
//! judges the product by its own reading of the protocols, not by the product's.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

pub mod clock;
pub mod lab;
pub mod packets;
pub mod sim;
