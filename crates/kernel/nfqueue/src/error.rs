//! Why a queue does not work.

use std::io;

/// Why a queue does not work.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another program is bound to it.
    #[error("queue {0} is held by another program: stop it, or use another number")]
    Taken(u16),
    /// The kernel refused a step of binding.
    #[error("cannot open queue {queue}: the kernel refused to {step}")]
    Open {
        /// Its number.
        queue: u16,
        /// What was refused.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("cannot read from queue {queue}")]
    Receive {
        /// Its number.
        queue: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take verdicts.
    #[error("cannot send verdicts to queue {queue}")]
    Send {
        /// Its number.
        queue: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
