//! Looks after rules and queues on a thread of its own: listing rules takes milliseconds, and no packet waits for it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::debug;
use trireme_flow::PuSlot;
use trireme_netfilter::{BackEnd, Denied, InForce, Look};
use trireme_netns::{Namespace, NamespaceError};
use trireme_nfqueue::{QueueStatistics, statistics};

/// The pause between two looks at everything.
const PAUSE: Duration = Duration::from_secs(1);

/// A unit's rules.
pub(super) struct Watched {
    namespace: Namespace,
    back_end: BackEnd,
    rules: InForce,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) slot: PuSlot,
    /// The rules that were expected; what was seen of others is out of date.
    pub(super) expected: InForce,
    pub(super) damage: Option<String>,
    pub(super) queue: Option<QueueStatistics>,
    pub(super) denied: Denied,
}

/// The thread as the supervisor sees it.
pub(super) struct Watch {
    shared: Arc<Shared>,
    sightings: Receiver<Sighting>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    units: BTreeMap<PuSlot, Arc<Watched>>,
    over: bool,
}

impl Watched {
    pub(super) fn new(
        namespace: &Namespace,
        back_end: BackEnd,
        rules: InForce,
    ) -> Result<Self, NamespaceError> {
        Ok(Self { namespace: namespace.duplicate()?, back_end, rules })
    }

    fn look(&self, slot: PuSlot) -> Option<Sighting> {
        let Self { back_end, rules, .. } = self;
        let seen = self
            .namespace
            .run(|| (trireme_netfilter::look(*back_end, rules), statistics().unwrap_or_default()));
        let (found, queues) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                debug!(unit = slot.0, %error, "not looked at");
                return None;
            }
        };
        let (damage, denied) = match found {
            Ok(Look { damage, denied }) => (damage.map(|damage| damage.to_string()), denied),
            Err(error) => (Some(error.to_string()), Denied::default()),
        };
        let queue = queues.into_iter().find(|queue| queue.queue == rules.rule_set.queue);
        Some(Sighting { slot, expected: *rules, damage, queue, denied })
    }
}

impl Watch {
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (seen, sightings) = channel();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("rules".to_owned()).spawn(move || theirs.run(&seen))?;
        Ok(Self { shared, sightings })
    }

    /// From here on these rules are looked after, or none.
    pub(super) fn set(&self, slot: PuSlot, watched: Option<Watched>) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match watched {
            Some(watched) => drop(state.units.insert(slot, Arc::new(watched))),
            None => drop(state.units.remove(&slot)),
        }
    }

    pub(super) fn take(&self) -> Vec<Sighting> {
        self.sightings.try_iter().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.shared.ended.notify_all();
    }
}

impl Shared {
    fn run(&self, seen: &Sender<Sighting>) {
        while !self.is_over(PAUSE) {
            let units: Vec<PuSlot> = self.lock().units.keys().copied().collect();
            for slot in units {
                let watched = self.lock().units.get(&slot).cloned();
                let sighting = watched.and_then(|watched| watched.look(slot));
                if sighting.is_some_and(|sighting| seen.send(sighting).is_err()) {
                    return;
                }
            }
        }
    }

    fn is_over(&self, after: Duration) -> bool {
        let waited = self.ended.wait_timeout_while(self.lock(), after, |state| !state.over);
        waited.unwrap_or_else(PoisonError::into_inner).0.over
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
