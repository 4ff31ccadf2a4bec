//! The clocks that the programs know.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of connections and punts.
pub(crate) fn monotonic_nanos() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds of `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
pub(crate) fn boot_nanos() -> u64 {
    nanos(ClockId::Boottime)
}

/// Wall clock less boot clock in nanoseconds, wrapping.
pub(crate) fn wall_offset() -> u64 {
    nanos(ClockId::Realtime).wrapping_sub(boot_nanos())
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
