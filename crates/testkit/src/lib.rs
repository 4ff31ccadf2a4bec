//! What the project's tests stand on: a virtual clock, packets, a deterministic simulator and a lab of namespaces.
//!
//! Start with [`sim::run`] (one seeded run of two engines on a bad network) and [`packets::TcpPacket`] (a segment
//! for a test); [`lab`] builds the same on a real kernel. Of the product only the program's demonstration may use it, and
//! only the lab: the simulator is the feature `sim`, on by default and off there. It judges the product by its own
//! reading of the protocols, not by the product's.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

#[cfg(feature = "sim")]
pub mod clock;
pub mod lab;
#[cfg(feature = "sim")]
pub mod packets;
#[cfg(feature = "sim")]
pub mod sim;
