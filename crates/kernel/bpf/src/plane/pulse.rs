//! What is due every second: the sign of life, and reading flow events.

use std::time::{Duration, Instant};

use trireme_bpf_abi::Clock;
use zerocopy::transmute;

use super::Plane;
use crate::batch::{Cursor, Reading};
use crate::time::{boot_nanos, wall_offset};
use crate::{EventReport, PlaneError};

/// Events per call of the kernel.
const CHUNK: u32 = 256;

/// No new chunk is begun behind this time.
const BUDGET: Duration = Duration::from_micros(500);

impl Plane {
    /// Tells the programs that the agent is there and what time it is. Due every second: from three seconds of silence
    /// on they do without the agent.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn beat(&mut self) -> Result<(), PlaneError> {
        let clock = self.maps.clock()?;
        self.maps.set_clock(Clock { alive_at: boot_nanos(), wall_offset: wall_offset(), ..clock })
    }

    /// Tells the programs that another agent reads the rings: handshakes that they handed to an earlier one go on
    /// without it.
    pub(super) fn take_office(&mut self) -> Result<(), PlaneError> {
        let clock = self.maps.clock()?;
        self.maps.set_clock(Clock { agent: clock.agent.wrapping_add(1), ..clock })?;
        self.beat()
    }

    /// Hands over the flow events of the last second but one and forgets them. Due every second.
    ///
    /// The programs write to one of two maps. The other one is read, and they are sent there once it is empty: so what
    /// is read has been left alone for as long as the caller has waited.
    ///
    /// Stops early where there is much to read; true if something is left: call again soon.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn take_events(&mut self, mut report: impl FnMut(EventReport)) -> Result<bool, PlaneError> {
        let clock = self.maps.clock()?;
        let [zero, one] = &self.maps.events;
        let (unused, next) = if clock.events == 0 { (one, 1) } else { (zero, 0) };
        let start = Instant::now();
        loop {
            let slice = unused.slice(Reading::Take, Cursor::default(), CHUNK)?;
            for (key, event) in &slice.entries {
                report(EventReport::from_abi(&transmute!(*key), event, clock.wall_offset));
            }
            if slice.next.is_none() {
                break;
            }
            if start.elapsed() > BUDGET {
                return Ok(true);
            }
        }
        self.maps.set_clock(Clock { events: next, ..clock })?;
        Ok(false)
    }
}
