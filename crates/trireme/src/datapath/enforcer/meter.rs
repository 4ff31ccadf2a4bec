//! What the worker counts beside engine and kernel.

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meter {
    /// Packets that the kernel handed over.
    pub(super) punted: u64,
    /// Packets put back.
    pub(super) sent: u64,
    /// Packets that could not be put back, for whatever reason.
    pub(super) lost: u64,
    /// Connections that found the kernel's table full; their packets go on through the engine.
    pub(super) table_full: u64,
    /// Stale conntrack entries deleted for connections whose proof stayed unconfirmed.
    pub(super) stale_conntrack: u64,
    /// Lessons that the kernel's tables had no room for; the engine goes on judging what they were about.
    pub(super) untaught: u64,
    /// How often the wall clock was set.
    pub(super) clock_steps: u64,
}

/// A size as a counter.
pub(super) fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
