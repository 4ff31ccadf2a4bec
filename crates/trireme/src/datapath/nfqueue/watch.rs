//! Looks after rules and queues on a thread of its own: listing rules takes milliseconds, and no packet waits for it.
//!
//! Where the kernel tells of a change the unit is looked at then; besides, one unit after the other has its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use trireme_flow::PuSlot;
use trireme_netfilter::{
    BackEnd, Changes, Denied, HostInForce, HostLook, InForce, Look, NetfilterError, Programs, Unqueued,
};
use trireme_netns::Namespace;
use trireme_nfqueue::{QueueStatistics, statistics};

use super::ready::Ready;
use crate::datapath::supervisor::{Refused, Waker};

/// How often a unit is looked at: each has its turn in this time if there are few, and a change that is told waits until
/// so long after the last look.
const PAUSE: Duration = Duration::from_secs(1);

/// With many units, how many times as long as a look takes is waited behind it.
const REST: u32 = 9;

/// The rules of the host are for all its units, and looked after under a slot that no unit has.
pub(super) const HOST: PuSlot = PuSlot(u32::MAX);

/// Rules of a namespace.
pub(super) struct Watched {
    namespace: Namespace,
    rules: Rules,
    changes: Changes,
}

/// Rules as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Of a unit, by a back end.
    Unit(BackEnd, InForce),
    /// Of the host, with the slot, number and queue of each unit.
    Host(HostInForce, Vec<(PuSlot, u32, u16)>),
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) slot: PuSlot,
    /// The rules that were expected; what was seen of others is out of date.
    pub(super) expected: Rules,
    pub(super) damage: Option<String>,
    pub(super) units: Vec<Seen>,
}

/// What rules and queue of a unit counted.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) slot: PuSlot,
    pub(super) queue: Option<QueueStatistics>,
    pub(super) denied: Denied,
    /// Packets that no rule had queued.
    pub(super) unqueued: u64,
}

/// The thread as the supervisor sees it.
pub(super) struct Watch {
    shared: Arc<Mutex<State>>,
    waker: Waker,
    sightings: Receiver<Sighting>,
}

#[derive(Default)]
struct State {
    units: BTreeMap<PuSlot, Arc<Watched>>,
    /// Units whose changes are not waited for yet.
    fresh: BTreeSet<PuSlot>,
    over: bool,
}

/// The thread itself.
struct Watcher {
    shared: Arc<Mutex<State>>,
    ready: Ready,
    seen: Sender<Sighting>,
    /// Units that changed, and when they may be looked at.
    changed: BTreeMap<PuSlot, Instant>,
    /// When each was looked at last.
    looked: BTreeMap<PuSlot, Instant>,
    /// Whose turn was last, and when the next one's is.
    last: Option<PuSlot>,
    due: Instant,
}

impl Watched {
    pub(super) fn new(namespace: &Namespace, rules: Rules) -> Result<Self, Refused> {
        let changes = namespace.run(Changes::open)??;
        Ok(Self { namespace: namespace.duplicate()?, rules, changes })
    }

    fn look(&self, slot: PuSlot) -> Option<Sighting> {
        let seen = self.namespace.run(|| (self.rules.look(slot), statistics().unwrap_or_default()));
        let (found, queues) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                debug!(unit = slot.0, %error, "not looked at");
                return None;
            }
        };
        let (damage, counted) = found.unwrap_or_else(|error| (Some(error.to_string()), Vec::new()));
        let units = self.rules.queues(slot).into_iter().map(|(slot, number)| {
            let known = counted.iter().find(|(counted, ..)| *counted == slot);
            let (denied, unqueued) =
                known.map_or_else(Default::default, |(_, denied, unqueued)| (*denied, *unqueued));
            let queue = queues.iter().find(|queue| queue.queue == number).copied();
            Seen { slot, queue, denied, unqueued }
        });
        Some(Sighting { slot, expected: self.rules.clone(), damage, units: units.collect() })
    }
}

/// Damage, and what was dropped for each unit.
type Looked = (Option<String>, Vec<(PuSlot, Denied, u64)>);

impl Rules {
    fn look(&self, slot: PuSlot) -> Result<Looked, NetfilterError> {
        match self {
            Self::Unit(back_end, rules) => {
                let Look { damage, denied } = trireme_netfilter::look(*back_end, rules)?;
                Ok((damage.map(|damage| damage.to_string()), vec![(slot, denied, 0)]))
            }
            Self::Host(rules, slots) => {
                let HostLook { damage, units } = Programs::default().look_host(rules)?;
                let units = units.into_iter().filter_map(|(number, denied, Unqueued(unqueued))| {
                    let (slot, ..) = slots.iter().find(|(_, known, _)| *known == number)?;
                    Some((*slot, denied, unqueued))
                });
                Ok((damage.map(|damage| damage.to_string()), units.collect()))
            }
        }
    }

    /// The queue of each unit.
    fn queues(&self, slot: PuSlot) -> Vec<(PuSlot, u16)> {
        match self {
            Self::Unit(_, rules) => vec![(slot, rules.rule_set.queue)],
            Self::Host(_, slots) => slots.iter().map(|(slot, _, queue)| (*slot, *queue)).collect(),
        }
    }
}

impl Watch {
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::<Mutex<State>>::default();
        let (seen, sightings) = channel();
        let ready = Ready::new()?;
        let waker = ready.waker();
        let mut watcher = Watcher {
            shared: Arc::clone(&shared),
            ready,
            seen,
            changed: BTreeMap::new(),
            looked: BTreeMap::new(),
            last: None,
            due: Instant::now() + PAUSE,
        };
        thread::Builder::new().name("rules".to_owned()).spawn(move || {
            if let Err(error) = watcher.run() {
                warn!(%error, "rules are not looked after any more");
            }
        })?;
        Ok(Self { shared, waker, sightings })
    }

    /// From here on these rules are looked after, or none.
    pub(super) fn set(&self, slot: PuSlot, watched: Option<Watched>) {
        let mut state = lock(&self.shared);
        match watched {
            Some(watched) => {
                state.units.insert(slot, Arc::new(watched));
                state.fresh.insert(slot);
            }
            None => drop(state.units.remove(&slot)),
        }
        drop(state);
        self.waker.wake();
    }

    pub(super) fn take(&self) -> Vec<Sighting> {
        self.sightings.try_iter().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
        self.waker.wake();
    }
}

impl Watcher {
    fn run(&mut self) -> io::Result<()> {
        while !lock(&self.shared).over {
            self.listen()?;
            self.note_changes();
            let now = Instant::now();
            let slot = match self.changed.iter().find(|(_, due)| **due <= now) {
                Some((slot, _)) => Some(*slot),
                None if self.due <= now => self.take_turn(now),
                None => None,
            };
            match slot {
                Some(slot) => self.look(slot, now),
                None => self.ready.wait(self.next(now))?,
            }
        }
        Ok(())
    }

    /// Waits for changes of units that are new.
    fn listen(&mut self) -> io::Result<()> {
        let mut state = lock(&self.shared);
        for slot in std::mem::take(&mut state.fresh) {
            if let Some(watched) = state.units.get(&slot) {
                self.ready.add(slot, &watched.changes)?;
            }
        }
        let State { units, .. } = &*state;
        self.changed.retain(|slot, _| units.contains_key(slot));
        self.looked.retain(|slot, _| units.contains_key(slot));
        Ok(())
    }

    fn note_changes(&mut self) {
        for slot in self.ready.take() {
            let watched = lock(&self.shared).units.get(&slot).cloned();
            if watched.is_some_and(|watched| watched.changes.forget()) {
                let due = self.looked.get(&slot).map_or_else(Instant::now, |looked| *looked + PAUSE);
                self.changed.entry(slot).or_insert(due);
            }
        }
    }

    /// The unit whose turn it is.
    fn take_turn(&mut self, now: Instant) -> Option<PuSlot> {
        let state = lock(&self.shared);
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = state.units.range((after, Bound::Unbounded)).next().or_else(|| state.units.iter().next());
        self.last = next.map(|(slot, _)| *slot);
        let units = u32::try_from(state.units.len()).unwrap_or(u32::MAX).max(1);
        self.due = now + PAUSE / units;
        self.last
    }

    fn look(&mut self, slot: PuSlot, start: Instant) {
        let watched = lock(&self.shared).units.get(&slot).cloned();
        if let Some(sighting) = watched.and_then(|watched| watched.look(slot)) {
            // Nobody listens any more when the thread is about to end.
            drop(self.seen.send(sighting));
        }
        let end = Instant::now();
        self.changed.remove(&slot);
        self.looked.insert(slot, end);
        self.due = self.due.max(end + end.duration_since(start) * REST);
    }

    /// How long there is nothing to do.
    fn next(&self, now: Instant) -> Duration {
        let due = self.changed.values().copied().min().map_or(self.due, |changed| changed.min(self.due));
        due.saturating_duration_since(now)
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
