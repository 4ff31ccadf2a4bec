//! Removing connections that fell silent, a slice at a time.

use std::time::{Duration, Instant};

use trireme_bpf_abi as abi;
use zerocopy::transmute;

use crate::batch::{Cursor, Reading};
use crate::maps::{Map, Maps};
use crate::orders::Orders;
use crate::{Activity, Connection, FlowKey, PlaneError};

/// Entries per call of the kernel.
const CHUNK: u32 = 512;

/// Connections without a packet for this long leave that table for the map: they are none of the many that are over
/// soon.
const SETTLED: Duration = Duration::from_secs(60);

/// No new chunk is begun behind this time.
const BUDGET: Duration = Duration::from_micros(500);

/// When an entry is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SweepLimits {
    /// An established connection without a packet for this long; default 5 days.
    pub idle: Duration,
}

impl Default for SweepLimits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5 * 24 * 3600) }
    }
}

/// What one slice of a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Established connections that the last complete round left.
    pub established: usize,
    /// Entries that this slice removed.
    pub removed: usize,
    /// These entries.
    pub ended: Vec<(FlowKey, Connection, Activity)>,
    /// True if this slice was the last of its round.
    pub round_complete: bool,
}

/// Where a sweep goes on.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    cursor: Cursor,
    /// True within a round: the programs' own table has been looked at.
    begun: bool,
    /// Left so far in this round.
    left: usize,
    last: usize,
}

impl Sweeper {
    /// A sweep whose last round left this number.
    pub(crate) fn new(established: usize) -> Self {
        Self { last: established, ..Self::default() }
    }

    /// How many connections the last complete round left.
    pub(crate) fn last(&self) -> usize {
        self.last
    }

    /// Goes on for a moment.
    pub(crate) fn step(
        &mut self,
        maps: &mut Maps,
        orders: &Orders,
        limits: &SweepLimits,
        now: u64,
    ) -> Result<SweepReport, PlaneError> {
        let mut report = SweepReport::default();
        if !self.begun {
            self.settle(orders, limits, now)?;
        }
        let start = Instant::now();
        while !report.round_complete && start.elapsed() < BUDGET {
            self.chunk(maps, limits, now, &mut report)?;
        }
        report.established = self.last;
        Ok(report)
    }

    fn settle(&mut self, orders: &Orders, limits: &SweepLimits, now: u64) -> Result<(), PlaneError> {
        let age = u64::try_from(limits.idle.min(SETTLED).as_nanos()).unwrap_or(u64::MAX);
        self.left = orders.settle(now.saturating_sub(age))?;
        self.begun = true;
        Ok(())
    }

    fn chunk(
        &mut self,
        maps: &mut Maps,
        limits: &SweepLimits,
        now: u64,
        report: &mut SweepReport,
    ) -> Result<(), PlaneError> {
        let table = &mut maps.connections;
        let limit = u64::try_from(limits.idle.as_nanos()).unwrap_or(u64::MAX);
        let slice = table.slice(Reading::Keep, self.cursor, CHUNK)?;
        for (key, seen) in &slice.entries {
            match dead(table, key, seen, limit, now)? {
                Some(entry) if table.remove(key)? => {
                    report.removed += 1;
                    let key = FlowKey::from_abi(&transmute!(*key));
                    report.ended.push((key, Connection::from_abi(&entry), Activity::from_abi(&entry)));
                }
                Some(_) | None => self.left += 1,
            }
        }
        self.cursor = slice.next.unwrap_or_default();
        report.round_complete = slice.next.is_none();
        if report.round_complete {
            self.last = std::mem::take(&mut self.left);
            self.begun = false;
        }
        Ok(())
    }
}

/// The entry if it is dead, as it is now: it may have come to life since it was read.
fn dead(
    table: &Map<abi::Connection, 40, 128>,
    key: &[u8; 40],
    seen: &abi::Connection,
    limit: u64,
    now: u64,
) -> Result<Option<abi::Connection>, PlaneError> {
    let silent = |entry: &abi::Connection| now.saturating_sub(entry.last_seen) > limit;
    if !silent(seen) {
        return Ok(None);
    }
    Ok(table.get(key)?.filter(silent))
}
