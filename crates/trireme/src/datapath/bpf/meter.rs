//! What the worker counts beside engine and kernel.

use trireme_bpf::Reinjected;

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

impl Meter {
    pub(super) fn add(&mut self, report: &Reinjected) {
        let Reinjected { sent, unattached, unaddressed, refused } = *report;
        let lost = unattached.saturating_add(unaddressed).saturating_add(refused);
        self.sent = self.sent.saturating_add(wide(sent));
        self.lost = self.lost.saturating_add(wide(lost));
    }
}

/// A size as a counter.
pub(super) fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
