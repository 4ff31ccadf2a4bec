//! Against the tables of the running kernel; needs root.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

mod agent;
mod changes;
mod choice;
mod damage;
mod failures;
mod host;
mod lab;
mod packets;
mod round_trip;
mod strangers;
mod table;
mod traffic;
