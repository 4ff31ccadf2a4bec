//! The data path on the running kernel: every test builds its own namespaces and instance, and needs root.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod attach;
mod crash;
mod events;
mod existing;
mod flow;
mod inside;
mod lab;
mod limits;
mod memory;
mod migrate;
mod open;
mod orphan;
mod pins;
mod protocols;
mod rate;
mod run;
mod sweep;
mod tamper;
mod teach;
mod transfer;
mod wire;
