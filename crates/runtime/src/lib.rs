//! What every Trireme program needs around its work: logs, signals, supervised tasks, systemd.
//!
//! Start with [`Tasks`] (the set of tasks a program owns and awaits) and [`Signals`] (what the operator
//! asks of a running program). This crate holds no product logic and knows no other crate of the workspace;
//! it is the only place that may call `tokio::spawn`.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail by panicking"))]

pub mod logging;
pub mod notify;
mod signals;
mod tasks;

pub use logging::{LogConfig, LogFormat, LogLevel, LoggingError};
pub use signals::{Signal, Signals};
pub use tasks::{TaskError, Tasks};
pub use tokio_util::sync::CancellationToken;
