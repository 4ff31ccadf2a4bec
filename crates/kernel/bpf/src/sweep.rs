//! Removing connections that ended or fell silent.

use std::time::Duration;

use crate::PlaneError;
use crate::maps::Maps;

/// When an entry is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SweepLimits {
    /// An established connection without a packet for this long; default 5 days.
    pub idle: Duration,
    /// A closing connection without a packet for this long; default 60 s.
    pub closing: Duration,
}

impl Default for SweepLimits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5 * 24 * 3600), closing: Duration::from_secs(60) }
    }
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Established connections that are left.
    pub established: usize,
    /// Closing connections that are left.
    pub closing: usize,
    /// Entries removed.
    pub removed: usize,
}

pub(crate) fn sweep(maps: &mut Maps, limits: &SweepLimits, now: u64) -> Result<SweepReport, PlaneError> {
    let mut report = SweepReport::default();
    let tables = [
        (&mut maps.connections, limits.idle, &mut report.established),
        (&mut maps.closing, limits.closing, &mut report.closing),
    ];
    for (table, limit, left) in tables {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let keys: Vec<_> = table.keys().collect::<Result<_, _>>()?;
        for key in keys {
            // Gone in the meantime is as good as removed.
            let Some(entry) = table.get(&key)? else { continue };
            if now.saturating_sub(entry.last_seen) > limit {
                report.removed += usize::from(table.remove(&key)?);
            } else {
                *left += 1;
            }
        }
    }
    Ok(report)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of the programs.
pub(crate) fn now_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
