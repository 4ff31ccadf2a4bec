//! The clocks that the programs know.

#![expect(unsafe_code, reason = "adjtimex has no safe form")]

use std::io;
use std::time::Duration;

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

/// How well the wall clock is kept, by which tokens expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// True if somebody told the kernel the time lately.
    pub synchronized: bool,
    /// How far off it may be by then; 16 seconds stand for "nobody knows".
    pub max_error: Duration,
}

/// Asks the kernel how well the wall clock is kept; changes nothing.
///
/// # Errors
/// What the kernel says: sandboxes forbid the question.
pub fn wall_clock() -> io::Result<WallClock> {
    // SAFETY: the structure is plain numbers, for which zero bytes are a value; `modes` is zero, which only reads.
    let mut answer: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: adjtimex writes to the one structure, which is writable and outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut answer) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let max_error = Duration::from_micros(u64::try_from(answer.maxerror).unwrap_or(0));
    Ok(WallClock { synchronized: answer.status & libc::STA_UNSYNC == 0, max_error })
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn a_clock_that_is_kept_is_at_most_sixteen_seconds_off() {
        let clock = wall_clock().unwrap();

        assert!(!clock.synchronized || clock.max_error <= Duration::from_secs(16), "{clock:?}");
    }
}
