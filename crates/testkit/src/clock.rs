//! A clock that moves only when told to.

use std::time::Duration;

use trireme_identity::time::{Instant, Now, WallTime};

/// Wall-clock second at which every virtual clock starts.
pub const EPOCH: WallTime = WallTime(1_800_000_000);

/// Both clocks of a simulation, driven by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualClock {
    nanos: u64,
}

impl VirtualClock {
    /// A clock at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { nanos: 0 }
    }

    /// Nanoseconds since the clock was made.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.nanos
    }

    /// Moves forward to `nanos`; a time in the past leaves the clock where it is.
    pub fn advance_to(&mut self, nanos: u64) {
        self.nanos = self.nanos.max(nanos);
    }

    /// Moves forward by `by`.
    pub fn advance(&mut self, by: Duration) {
        self.nanos = self.nanos.saturating_add(nanos_of(by));
    }

    /// Both clocks as the pure crates take them.
    #[must_use]
    pub const fn now(self) -> Now {
        Now { monotonic: Instant(self.nanos), wall: EPOCH.plus_secs(self.nanos / 1_000_000_000) }
    }
}

/// Whole nanoseconds of `duration`, saturating.
#[must_use]
pub fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_both_faces_move_together() {
        let mut clock = VirtualClock::new();
        clock.advance(Duration::from_millis(2500));
        clock.advance_to(1);
        assert_eq!(clock.now(), Now { monotonic: Instant(2_500_000_000), wall: EPOCH.plus_secs(2) });
    }
}
