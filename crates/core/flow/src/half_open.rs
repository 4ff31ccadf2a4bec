//! Handshakes in progress, bounded per unit and per source, and handshakes just completed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use trireme_identity::Protocol;
use trireme_identity::time::Instant;
use trireme_token::Role;

use crate::bucket::source_of;
use crate::{Deadlines, FlowKey, PuSlot, Reason};

/// Names one handshake: another initial sequence number is another handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HalfOpenKey {
    /// The connection.
    pub flow: FlowKey,
    /// The unit's part in it.
    pub role: Role,
    /// The initiator's initial sequence number.
    pub isn: u32,
}

/// Bounds of a [`HalfOpenTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenLimits {
    /// Handshakes in progress in total; default 65,536.
    pub total: usize,
    /// Handshakes in progress per unit and role; default 16,384.
    pub per_unit: usize,
    /// Handshakes in progress per source and unit, for responders; default 4,096.
    pub per_source: usize,
    /// Completed handshakes remembered per unit and role; the oldest go first; default 16,384.
    pub completed_per_unit: usize,
}

impl Default for HalfOpenLimits {
    fn default() -> Self {
        Self { total: 65_536, per_unit: 16_384, per_source: 4096, completed_per_unit: 16_384 }
    }
}

/// Whether a new handshake may use the last quarter of each bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Nothing speaks for the sender.
    Ordinary,
    /// A MAC or a cookie shows that the sender receives at its address, or it is the unit itself.
    Proven,
}

impl Priority {
    const fn share(self, limit: usize) -> usize {
        match self {
            Self::Ordinary => limit - limit / 4,
            Self::Proven => limit,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Progress,
    Completed,
}

#[derive(Debug)]
struct Cell<T> {
    value: T,
    phase: Phase,
    deadline: Instant,
}

/// Handshakes by [`HalfOpenKey`].
///
/// A full table refuses a new handshake and takes nothing out: a flood can evict neither the handshakes of others nor,
/// since those live elsewhere, established connections. Completed handshakes are counted apart, per unit, and the
/// oldest one of a unit makes room for its next.
#[derive(Debug)]
pub struct HalfOpenTable<T> {
    limits: HalfOpenLimits,
    cells: BTreeMap<HalfOpenKey, Cell<T>>,
    deadlines: Deadlines<HalfOpenKey>,
    completed: BTreeSet<(PuSlot, Role, Instant, HalfOpenKey)>,
    completed_count: BTreeMap<(PuSlot, Role), usize>,
    unit_count: BTreeMap<(PuSlot, Role), usize>,
    source_count: BTreeMap<(PuSlot, IpAddr), usize>,
    progress: usize,
}

impl<T> HalfOpenTable<T> {
    /// An empty table.
    #[must_use]
    pub fn new(limits: HalfOpenLimits) -> Self {
        Self {
            limits,
            cells: BTreeMap::new(),
            deadlines: Deadlines::default(),
            completed: BTreeSet::new(),
            completed_count: BTreeMap::new(),
            unit_count: BTreeMap::new(),
            source_count: BTreeMap::new(),
            progress: 0,
        }
    }

    /// Whether a new handshake would be taken on.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn admit(&self, key: &HalfOpenKey, priority: Priority) -> Result<(), Reason> {
        let HalfOpenLimits { total, per_unit, per_source, completed_per_unit: _ } = self.limits;
        if self.progress >= priority.share(total) {
            return Err(Reason::HalfOpenTotal);
        }
        if count(&self.unit_count, &unit(key)) >= priority.share(per_unit) {
            return Err(Reason::HalfOpenUnit);
        }
        match key.role {
            Role::Responder if count(&self.source_count, &source(key)) >= priority.share(per_source) => {
                Err(Reason::HalfOpenSource)
            }
            Role::Responder | Role::Initiator => Ok(()),
        }
    }

    /// Takes a new handshake on; the same key's old one is replaced.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn insert(
        &mut self,
        key: HalfOpenKey,
        value: T,
        deadline: Instant,
        priority: Priority,
    ) -> Result<(), Reason> {
        self.remove(&key);
        self.admit(&key, priority)?;
        self.count_progress(&key);
        self.deadlines.add(deadline, key);
        self.cells.insert(key, Cell { value, phase: Phase::Progress, deadline });
        Ok(())
    }

    /// The handshake with this key.
    #[must_use]
    pub fn get(&self, key: &HalfOpenKey) -> Option<&T> {
        self.cells.get(key).map(|cell| &cell.value)
    }

    /// The handshake with this key.
    pub fn get_mut(&mut self, key: &HalfOpenKey) -> Option<&mut T> {
        self.cells.get_mut(key).map(|cell| &mut cell.value)
    }

    /// The handshakes of one connection and role, by sequence number.
    pub fn of_flow(&self, flow: FlowKey, role: Role) -> impl Iterator<Item = (&HalfOpenKey, &T)> {
        let at = move |isn| HalfOpenKey { flow, role, isn };
        self.cells.range(at(0)..=at(u32::MAX)).map(|(key, cell)| (key, &cell.value))
    }

    /// Moves a handshake's deadline.
    pub fn postpone(&mut self, key: &HalfOpenKey, deadline: Instant) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        let old = std::mem::replace(&mut cell.deadline, deadline);
        let phase = cell.phase;
        self.deadlines.cancel(old, *key);
        self.deadlines.add(deadline, *key);
        if phase == Phase::Completed {
            self.completed.remove(&(key.flow.pu, key.role, old, *key));
            self.completed.insert((key.flow.pu, key.role, deadline, *key));
        }
    }

    /// Counts a handshake as completed; returns a completed one of the same unit that had to make room for it.
    pub fn complete(&mut self, key: &HalfOpenKey, deadline: Instant) -> Option<(HalfOpenKey, T)> {
        let cell = self.cells.get_mut(key)?;
        if cell.phase == Phase::Completed {
            self.postpone(key, deadline);
            return None;
        }
        cell.phase = Phase::Completed;
        let old = std::mem::replace(&mut cell.deadline, deadline);
        self.deadlines.cancel(old, *key);
        self.deadlines.add(deadline, *key);
        self.uncount_progress(key);
        self.completed.insert((key.flow.pu, key.role, deadline, *key));
        let held = increment(&mut self.completed_count, unit(key));
        if held <= self.limits.completed_per_unit {
            return None;
        }
        let (pu, role) = unit(key);
        let start = (pu, role, Instant(0), HalfOpenKey { isn: 0, ..MIN_KEY });
        let oldest = self.completed.range(start..).next().map(|&(_, _, _, oldest)| oldest)?;
        self.remove(&oldest).map(|value| (oldest, value))
    }

    /// Counts a completed handshake as in progress again.
    pub fn reopen(&mut self, key: &HalfOpenKey, deadline: Instant) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        if cell.phase == Phase::Completed {
            cell.phase = Phase::Progress;
            let at = cell.deadline;
            self.completed.remove(&(key.flow.pu, key.role, at, *key));
            decrement(&mut self.completed_count, &unit(key));
            self.count_progress(key);
        }
        self.postpone(key, deadline);
    }

    /// Removes a handshake.
    pub fn remove(&mut self, key: &HalfOpenKey) -> Option<T> {
        let cell = self.cells.remove(key)?;
        self.deadlines.cancel(cell.deadline, *key);
        match cell.phase {
            Phase::Progress => self.uncount_progress(key),
            Phase::Completed => {
                self.completed.remove(&(key.flow.pu, key.role, cell.deadline, *key));
                decrement(&mut self.completed_count, &unit(key));
            }
        }
        Some(cell.value)
    }

    /// The keys of one unit's handshakes.
    #[must_use]
    pub fn of_unit(&self, pu: PuSlot) -> Vec<HalfOpenKey> {
        let start = HalfOpenKey { flow: FlowKey { pu, ..MIN_KEY.flow }, ..MIN_KEY };
        self.cells.range(start..).map(|(key, _)| *key).take_while(|key| key.flow.pu == pu).collect()
    }

    /// Removes one handshake whose deadline has passed.
    pub fn pop_due(&mut self, now: Instant) -> Option<(HalfOpenKey, T)> {
        if self.deadlines.next()? > now {
            return None;
        }
        let key = self.deadlines.pop_due(now)?;
        self.remove(&key).map(|value| (key, value))
    }

    /// The next deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many handshakes there are, completed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn count_progress(&mut self, key: &HalfOpenKey) {
        self.progress += 1;
        increment(&mut self.unit_count, unit(key));
        if key.role == Role::Responder {
            increment(&mut self.source_count, source(key));
        }
    }

    fn uncount_progress(&mut self, key: &HalfOpenKey) {
        self.progress = self.progress.saturating_sub(1);
        decrement(&mut self.unit_count, &unit(key));
        if key.role == Role::Responder {
            decrement(&mut self.source_count, &source(key));
        }
    }
}

const MIN_KEY: HalfOpenKey = {
    let nowhere = (IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
    HalfOpenKey {
        flow: FlowKey::new(PuSlot(0), Protocol(0), nowhere, nowhere),
        role: Role::Initiator,
        isn: 0,
    }
};

const fn unit(key: &HalfOpenKey) -> (PuSlot, Role) {
    (key.flow.pu, key.role)
}

fn source(key: &HalfOpenKey) -> (PuSlot, IpAddr) {
    (key.flow.pu, source_of(key.flow.remote.0))
}

fn count<K: Ord>(counts: &BTreeMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn increment<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) -> usize {
    let count = counts.entry(key).or_insert(0);
    *count += 1;
    *count
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
