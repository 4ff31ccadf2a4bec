//! Packets from the kernel's netfilter queues, and verdicts on them (nfnetlink_queue).
//!
//! Start from [`Queue`] (a socket bound to one queue of the calling thread's network namespace): [`Queue::receive`]
//! hands out [`Packet`]s, [`Queue::decide`] gathers what becomes of them, [`Queue::flush`] tells the kernel in one call.
//! A thread serves many queues, one in each of many namespaces, with one set of [`Buffers`]. [`RawSender`] puts packets
//! on their way that no queue holds. [`statistics()`] reads what the kernel counted about its queues.
//!
//! The queue never fails open: what is not answered stays in the kernel, and what does not fit is dropped and counted.
//!
//! This crate must not decide anything about a packet, and must not write rules.

mod buffers;
mod codec;
mod error;
mod open;
mod packet;
mod queue;
mod raw;
mod statistics;
mod verdict;

pub use buffers::Buffers;
pub use error::QueueError;
pub use packet::{Checksum, Hook, Incoming, Packet, parse_datagram};
pub use queue::{Queue, QueueConfig, Received};
pub use raw::{RawError, RawSender};
pub use statistics::{QueueStatistics, parse_statistics, statistics};
pub use verdict::{Action, Verdicts};
