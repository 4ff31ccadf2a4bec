//! Packets from the kernel's netfilter queues, and verdicts on them (nfnetlink_queue).
//!
//! Start from [`Queue`] (a socket bound to one queue of the calling thread's network namespace): [`Queue::receive`]
//! hands out [`Packet`]s, [`Verdicts`] gathers what becomes of them, [`Queue::send`] tells the kernel in one call.
//! [`statistics()`] reads what the kernel counted about its queues.
//!
//! The queue never fails open: what is not answered stays in the kernel, and what does not fit is dropped and counted.
//!
//! This crate must not decide anything about a packet, and must not write rules.

mod codec;
mod packet;
mod queue;
mod socket;
mod statistics;
mod verdict;

pub use packet::{Checksum, Hook, Packet};
pub use queue::{Queue, QueueConfig, QueueError, Received};
pub use statistics::{QueueStatistics, parse_statistics, statistics};
pub use verdict::{Action, Verdicts};
