//! Rules and queue of one unit: written, changed, looked after, removed.

use std::time::Instant;

use tracing::{debug, info, warn};
use trireme_conntrack::Conntrack;
use trireme_flow::PuSlot;
use trireme_netfilter::{
    BackEnd, NetfilterError, OtherProtocols, Programs, RuleSet, Unanswered, apply, read, remove,
};
use trireme_netns::{Namespace, NamespaceError, reachable};
use trireme_nfqueue::{Queue, QueueConfig, RawSender};
use trireme_policy::Mode;
use trireme_wire::tap;

use super::caught::{Caught, Marks};
use super::host;
use super::kept::{Kept, Unit};
use super::place::Place;
use super::supervisor::NfqueueSupervisor;
use super::watch::{Rules, Watched};
use crate::datapath::supervisor::{Line, Refused};
use crate::{Edge, Enforcement, controller};

/// Packets that may wait for their verdict, in each unit's queue.
const QUEUE_LENGTH: u32 = 4096;

/// Bytes of a queue's socket; the kernel counts a packet with what it takes itself.
const RECEIVE_BUFFER: usize = 4 << 20;

impl NfqueueSupervisor {
    /// Queue first, rules second: from the moment packets are caught there is someone to judge them.
    pub(super) fn catch(&mut self, unit: &Enforcement, at: &Line<'_, Place>) -> Result<(), Refused> {
        if self.units.get(&at.slot).is_some_and(|caught| caught.place != *at.place) {
            self.let_go(at.slot)?;
        }
        let moved = match at.place.cgroup() {
            Some(_) => self.kept.units().contains_key(&at.slot.0),
            None => self.kept.host().units.contains_key(&at.slot.0),
        };
        if moved {
            // An earlier run had it in a place of another kind.
            self.let_go(at.slot)?;
        }
        self.check_neighbours(at)?;
        let began = !self.units.contains_key(&at.slot);
        if began {
            let caught = self.open_queue(at)?;
            self.ready.add(at.slot, &caught)?;
            self.units.insert(at.slot, caught);
        }
        let outcome = self.write(unit, at.slot, at.epoch);
        if outcome.is_err() && began {
            self.forget(at.slot);
        }
        outcome
    }

    /// A namespace is one unit's as a whole, or its cgroups are units.
    fn check_neighbours(&self, at: &Line<'_, Place>) -> Result<(), Refused> {
        let others = self.units.iter().filter(|(slot, _)| **slot != at.slot);
        let is_shared = |other: &Place| {
            other.inode() == at.place.inode() && other.cgroup().is_some() != at.place.cgroup().is_some()
        };
        match others.into_iter().find(|(_, caught)| is_shared(&caught.place)) {
            None => Ok(()),
            Some((_, other)) => Err(format!(
                "{} and {} are in one network namespace: units are the whole of it, or cgroups of it",
                at.place.describe(),
                other.place.describe()
            )
            .into()),
        }
    }

    fn open_queue(&mut self, at: &Line<'_, Place>) -> Result<Caught, Refused> {
        let namespace = at.place.open()?;
        if at.place.cgroup().is_some() {
            return self.open_host_queue(at, namespace);
        }
        let Self { config, capabilities, buffers, .. } = self;
        let queue = queue_config(config.queue);
        let (back_end, queue, raw) = namespace.run(|| -> Result<_, Refused> {
            let back_end = match config.rules {
                Some(chosen) => capabilities.supports(chosen).map(|()| chosen)?,
                None => capabilities.choose()?,
            };
            Ok((back_end, Queue::open(queue, buffers)?, RawSender::open(0)?))
        })??;
        let marks = Marks::Namespace(config.mark);
        Ok(Caught::new(at.place.clone(), namespace, back_end, (queue, raw), marks))
    }

    fn open_host_queue(&mut self, at: &Line<'_, Place>, host: Namespace) -> Result<Caught, Refused> {
        let (number, queue) = self.host_number(at.slot)?;
        let back_end = self.host_back_end()?;
        let queue = Queue::open(queue_config(queue), &mut self.buffers)?;
        let marks = host::marks(&self.config, number);
        Ok(Caught::new(at.place.clone(), host, back_end, (queue, RawSender::open(0)?), marks))
    }

    /// Brings the rules of a unit to what it is now, under this epoch.
    pub(super) fn write(&mut self, unit: &Enforcement, slot: PuSlot, epoch: u32) -> Result<(), Refused> {
        if let Some(cgroup) = self.units.get(&slot).and_then(|caught| caught.place.cgroup()) {
            let cgroup = cgroup.clone();
            return self.write_host(unit, slot, epoch, &cgroup);
        }
        let kept = self.kept.units().get(&slot.0).copied();
        let Some(caught) = self.units.get_mut(&slot) else { return Err("the unit is not enforced".into()) };
        let namespace = caught.namespace.id().inode;
        let held = kept.filter(|kept| kept.namespace == namespace);
        if kept.is_some() && held.is_none() {
            // Another namespace by now; what was open in the old one has ended with it.
            self.table.forget(slot);
        }
        let before = caught.rules.map(|rules| rules.rule_set.released);
        let released = match (before, held) {
            (Some(released), _) if caught.epoch == epoch => released,
            (None, Some(kept)) if kept.epoch == epoch => kept.released,
            (Some(last), _) | (None, Some(Unit { released: last, .. })) => self.config.mark.next(last),
            (None, None) => 1,
        };
        let wanted = rule_set(unit, &self.config, released);
        let Caught { namespace: home, back_end, rules, .. } = caught;
        let back_end = *back_end;
        if rules.map(|rules| rules.rule_set) != wanted {
            let start = Instant::now();
            let first_again = before.is_some_and(|last| released < last);
            *rules = home.run(|| -> Result<_, Refused> {
                if first_again {
                    // Marks of long ago would say the same as those of today.
                    Conntrack::connect()?.forget_all()?;
                }
                match wanted {
                    Some(wanted) => Ok(Some(apply(back_end, &wanted)?)),
                    None => remove(back_end).map(|_| None).map_err(Refused::from),
                }
            })??;
            debug!(unit = slot.0, time = ?start.elapsed(), "rules written");
        }
        caught.epoch = epoch;
        caught.released = caught.rules.map(|rules| rules.rule_set.released);
        let watch = |rules| Watched::new(&caught.namespace, Rules::Unit(back_end, rules));
        let watched = caught.rules.map(watch).transpose()?;
        self.watch.set(slot, watched);
        self.kept.put_unit(slot, Unit { namespace, epoch, released })?;
        Ok(())
    }

    /// The unit's rules go first, so that nothing is queued for nobody.
    pub(super) fn let_go(&mut self, slot: PuSlot) -> Result<(), Refused> {
        if self.kept.host().units.contains_key(&slot.0) {
            return self.let_host_go(slot);
        }
        let removed = match self.units.get(&slot) {
            Some(caught) => take_off(&caught.namespace, &[caught.back_end]),
            None => match self.kept.units().get(&slot.0).and_then(|kept| find(kept.namespace)) {
                Some(namespace) => take_off(&namespace, &BackEnd::ALL),
                // The namespace has gone, and its rules with it.
                None => Ok(Ok(false)),
            },
        };
        self.forget(slot);
        self.kept.remove_unit(slot)?;
        removed??;
        Ok(())
    }

    /// Closes what is open; rules stay and queue for nobody.
    pub(super) fn forget(&mut self, slot: PuSlot) {
        self.watch.set(slot, None);
        self.units.remove(&slot);
    }

    /// Writes rules again that somebody else changed; tells what was found, and why it could not be undone.
    pub(super) fn repair(&mut self, slot: PuSlot, found: &str) -> Option<(String, Option<String>)> {
        let caught = self.units.get_mut(&slot)?;
        let rule_set = caught.rules?.rule_set;
        let back_end = caught.back_end;
        let written = caught.namespace.run(|| apply(back_end, &rule_set)).map_err(Refused::from);
        let problem = match written.and_then(|written| written.map_err(Refused::from)) {
            Ok(in_force) => {
                caught.rules = Some(in_force);
                None
            }
            Err(error) => Some(controller::chain(&*error)),
        };
        Some((format!("of its rules, {found}"), problem))
    }

    /// Whether the rules of an earlier run are in a namespace.
    pub(super) fn has_rules(&self, place: &Place) -> bool {
        if place.cgroup().is_some() {
            return Programs::default().has_host().unwrap_or(false);
        }
        let back_ends = self.config.rules.map_or_else(|| BackEnd::ALL.to_vec(), |chosen| vec![chosen]);
        place.open().is_ok_and(|namespace| has_any(&namespace, &back_ends))
    }
}

fn queue_config(number: u16) -> QueueConfig {
    QueueConfig { number, length: QUEUE_LENGTH, receive_buffer: RECEIVE_BUFFER }
}

/// None for a unit that is not judged at all.
fn rule_set(unit: &Enforcement, config: &super::NfqueueConfig, released: u32) -> Option<RuleSet> {
    (unit.policy.mode() != Mode::Off).then_some(RuleSet {
        queue: config.queue,
        field: config.mark,
        released,
        unanswered: if unit.fails_open() { Unanswered::Accept } else { Unanswered::Drop },
        other_protocols: if unit.judges_other_protocols() {
            OtherProtocols::Judge
        } else {
            OtherProtocols::Allow
        },
        tap_magic: tap::MAGIC,
    })
}

/// True if there were any.
fn take_off(
    namespace: &Namespace,
    back_ends: &[BackEnd],
) -> Result<Result<bool, NetfilterError>, NamespaceError> {
    namespace.run(|| {
        back_ends.iter().try_fold(false, |any, back_end| match remove(*back_end) {
            Ok(found) => Ok(any || found),
            // What is not installed has written nothing.
            Err(NetfilterError::Missing { .. }) => Ok(any),
            Err(error) => Err(error),
        })
    })
}

fn find(inode: u64) -> Option<Namespace> {
    reachable().into_iter().find(|namespace| namespace.id().inode == inode)
}

/// Units of an earlier run whose rules are still there.
pub(super) fn held(kept: &Kept) -> usize {
    let on_the_host = host::held(kept.host());
    if kept.units().is_empty() {
        return on_the_host;
    }
    let inodes = inodes_of(kept);
    let theirs = reachable().into_iter().filter(|namespace| inodes.contains(&namespace.id().inode));
    theirs.filter(|namespace| has_any(namespace, &BackEnd::ALL)).count() + on_the_host
}

fn inodes_of(kept: &Kept) -> Vec<u64> {
    kept.units().values().map(|unit| unit.namespace).collect()
}

fn has_any(namespace: &Namespace, back_ends: &[BackEnd]) -> bool {
    let found = namespace.run(|| back_ends.iter().any(|back_end| matches!(read(*back_end), Ok(Some(_)))));
    found.unwrap_or(false)
}

/// Removes the rules of the units that are kept, and of those named besides; gives the number of namespaces. Other agents'
/// units keep theirs.
pub(super) fn clean_up(kept: &Kept, edges: &[Edge]) -> Result<usize, Refused> {
    let mut cleaned = 0;
    let mut outcome = Ok(());
    match clean_up_host(kept, edges) {
        Ok(any) => cleaned += usize::from(any),
        Err(error) => outcome = Err(error),
    }
    let mut inodes = inodes_of(kept);
    let alone = edges.iter().filter(|edge| !matches!(edge, Edge::Cgroup { .. }));
    inodes.extend(alone.filter_map(|edge| Place::find(edge).ok()).map(|place| place.inode()));
    for namespace in reachable().into_iter().filter(|found| inodes.contains(&found.id().inode)) {
        match take_off(&namespace, &BackEnd::ALL) {
            Ok(Ok(true)) => cleaned += 1,
            Ok(Ok(false)) => {}
            // One that cannot be cleaned does not keep the others from it.
            Ok(Err(error)) => outcome = Err(Refused::from(error)),
            // It has gone meanwhile.
            Err(error) => warn!(%error, "namespace not entered"),
        }
    }
    info!(namespaces = cleaned, "rules removed");
    outcome.map(|()| cleaned)
}

/// True if there were rules of the host.
fn clean_up_host(kept: &Kept, edges: &[Edge]) -> Result<bool, Refused> {
    let mut any = false;
    if !kept.host().units.is_empty() {
        any = host::clean_up(kept.host())?;
    }
    if edges.iter().any(|edge| matches!(edge, Edge::Cgroup { .. })) {
        any |= host::remove_rules()?;
    }
    Ok(any)
}
