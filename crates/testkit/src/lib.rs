//! trireme-testkit.

pub mod lab;
