//! What the thread does every second, unasked.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::{info, warn};
use trireme_flow::{PuSlot, Reason};
use trireme_identity::time::Instant;
use zeroize::Zeroizing;

use super::{Loop, STEP, SWEEP, TICK, commands, ledger, now};
use crate::DatapathError;
use crate::controller;
use crate::datapath::supervisor::{More, Supervisor, ended};

/// What decides without the engine writes to one of two tables of events.
const EVENT_MAPS: usize = 2;

/// Steps of reading one of them without a pause.
const SLICES_AT_ONCE: usize = 256;

impl<S: Supervisor> Loop<S> {
    pub(super) fn tick(&mut self) {
        if let Err(error) = self.supervisor.beat() {
            warn!(error = controller::chain(&*error), "the kernel does not hear that an agent is here");
        }
        self.check_clock();
        if let Err(error) = self.keep_counters() {
            warn!(error = controller::chain(&error), "counters not kept");
        }
        self.patrol();
    }

    /// Turns what was decided without the engine into records; gives the time until the next call.
    pub(super) fn take_events(&mut self) -> Duration {
        let mut events = Vec::new();
        let taken = self.supervisor.take_events(&mut events);
        for event in &events {
            self.engine.handle_event(event, now(), &mut self.effects);
        }
        self.carry_out();
        match taken {
            Ok(More::Yes) => STEP,
            Ok(More::No) => TICK,
            Err(error) => {
                warn!(error = controller::chain(&*error), "flow events not read");
                TICK
            }
        }
    }

    /// What was told up to now, in both maps: before a unit goes, whose events nobody could name afterwards.
    pub(super) fn take_all_events(&mut self) {
        for _ in 0..EVENT_MAPS {
            for _ in 0..SLICES_AT_ONCE {
                if self.take_events() != STEP {
                    break;
                }
            }
        }
    }

    /// Writes the engine's counters where they outlive this process: nothing is shown that could be lost.
    pub(super) fn keep_counters(&mut self) -> Result<(), DatapathError> {
        let all = self.engine.stats().reasons.into_iter();
        let changed: Vec<(PuSlot, Reason, u64)> = all
            .filter(|(name, count)| self.counted.get(name) != Some(count))
            .map(|((slot, reason), count)| (slot, reason, count))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.supervisor
            .keep_counters(&changed)
            .map_err(|error| DatapathError::kernel("keep the counters", error))?;
        self.counted.extend(changed.into_iter().map(|(slot, reason, count)| ((slot, reason), count)));
        Ok(())
    }

    /// Tokens carry wall-clock times: new ones are due after a step.
    fn check_clock(&mut self) {
        let Some(step) = self.clock.step() else { return };
        self.meter.clock_steps = self.meter.clock_steps.saturating_add(1);
        info!(seconds = step, "the wall clock was set");
        if step < 0 {
            // The tokens in use seem to come from the future now, and nobody accepts them.
            if let Err(error) = self.engine.set_secrets(self.secrets.for_engine(), now(), &mut self.effects) {
                warn!(error = controller::chain(&error), "no new tokens after the clock was set back");
            }
        }
        self.engine.handle_timeout(now(), &mut self.effects);
        self.carry_out();
    }

    /// Removes some dead connections; gives the time until the next call.
    pub(super) fn sweep(&mut self) -> Duration {
        let (time, mut events) = (now(), Vec::new());
        let swept = self.supervisor.sweep(time, &mut events);
        let over = self.flows.sweep(time.monotonic).into_iter();
        events.extend(over.map(|(key, entry, traffic)| ended(&key, &entry, traffic, time.wall)));
        for event in &events {
            self.engine.handle_event(event, time, &mut self.effects);
        }
        self.carry_out();
        match swept {
            Ok(More::Yes) => STEP,
            Ok(More::No) => SWEEP,
            Err(error) => {
                warn!(error = controller::chain(&*error), "dead connections not removed");
                SWEEP
            }
        }
    }

    /// Queues what has changed for the disk: at once, but no more often than it takes to write it.
    pub(super) fn save(&mut self, time: Instant) {
        if self.unsaved.units && time >= self.clock.units_due {
            self.clock.units_due = time + UNITS_PAUSE;
            self.save_units();
        }
        if self.unsaved.peers && time >= self.clock.peers_due {
            self.clock.peers_due = time + PEERS_PAUSE;
            self.save_peers();
        }
    }

    pub(super) fn save_units(&mut self) {
        let Some(saver) = &self.saver else { return };
        self.unsaved.units = false;
        saver.write(ledger::FILE, Zeroizing::new(self.ledger.to_bytes()));
        match self.engine.export_tokens() {
            Ok(keys) => saver.write(commands::KEYS_FILE, keys),
            Err(error) => warn!(error = controller::chain(&error), "token keys not saved"),
        }
    }

    pub(super) fn save_peers(&mut self) {
        let Some(saver) = &self.saver else { return };
        self.unsaved.peers = false;
        match self.engine.export_peers() {
            Ok(peers) => saver.write(commands::PEERS_FILE, Zeroizing::new(peers)),
            Err(error) => warn!(error = controller::chain(&error), "peers not saved"),
        }
    }
}

/// A thousand units that change at once are written a few times, not a thousand.
const UNITS_PAUSE: Duration = Duration::from_millis(100);

/// Writing thousands of peers takes milliseconds in which no packet is judged.
const PEERS_PAUSE: Duration = Duration::from_secs(10);

/// What the two clocks said when they were compared last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    offset_millis: i128,
    /// When slots, epochs and keys may be written again.
    pub(super) units_due: Instant,
    peers_due: Instant,
}

/// What is more than a clock that is being slewed.
const STEP_MILLIS: i128 = 2000;

impl Clock {
    pub(super) fn new() -> Self {
        let time = now().monotonic;
        Self { offset_millis: offset_millis(), units_due: time, peers_due: time }
    }

    /// By how many seconds the wall clock was set since the last call, if it was.
    fn step(&mut self) -> Option<i64> {
        let offset = offset_millis();
        let step = offset.saturating_sub(std::mem::replace(&mut self.offset_millis, offset));
        (step.abs() >= STEP_MILLIS).then(|| i64::try_from(step / 1000).unwrap_or(i64::MAX))
    }
}

/// How far the wall clock is ahead of the time since boot, in which the machine may have slept.
fn offset_millis() -> i128 {
    let millis = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1000 + i128::from(time.tv_nsec) / 1_000_000
    };
    millis(ClockId::Realtime) - millis(ClockId::Boottime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_once_and_slewing_is_none() {
        let mut clock = Clock::new();
        assert_eq!(clock.step(), None);
        clock.offset_millis -= 3_600_000;
        assert!(matches!(clock.step(), Some(3599..=3601)));
        assert_eq!(clock.step(), None);
        clock.offset_millis += 90_000;
        assert!(matches!(clock.step(), Some(-91..=-89)));
        clock.offset_millis += 500;
        assert_eq!(clock.step(), None);
    }
}
