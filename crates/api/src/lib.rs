//! The agent's local API: JSON over HTTP/1.1 on a unix socket that only root and the agent's own user may use.
//!
//! Start with [`Server`] (the agent's end, answering through an [`Agent`]) and [`Client`] (the command line's
//! end). Paths carry a version (`/v1/...`); [`types`] holds every body. This crate transports questions and
//! answers: it must not decide, cache or read configuration.
#![forbid(unsafe_code)]

mod client;
mod server;
mod socket;
pub mod types;

pub use client::{Client, ClientError};
pub use server::{Agent, FlowStream, ServeError, Server};
pub use socket::{BindError, probe};

/// The version every path begins with.
pub const VERSION: &str = "v1";
