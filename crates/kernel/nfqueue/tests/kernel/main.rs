//! Against the running kernel; every test makes its own namespaces, and needs root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod lab;
mod lifetime;
mod load;
mod packets;
mod queue;
mod raw;
mod raw_refusals;
