//! Units of the host: cgroups in the agent's own network namespace, which share one set of rules.

use std::collections::HashSet;
use std::net::SocketAddr;

use tracing::{debug, info};
use trireme_conntrack::{Conntrack, Marks};
use trireme_flow::PuSlot;
use trireme_netfilter::{
    BackEnd, HostField, HostInForce, HostJudged, HostSet, HostUnit, NetfilterError, OtherProtocols, Programs,
    Unanswered,
};
use trireme_netns::Namespace;
use trireme_policy::Mode;
use trireme_sock_diag::{TcpConnection, tcp_connections_of, tcp_listeners_of, tcp_remains};
use trireme_wire::tap;

use super::NfqueueConfig;
use super::cgroup::{self, Cgroup};
use super::kept::{self, Judged};
use super::supervisor::NfqueueSupervisor;
use super::watch::{HOST, Rules, Watched};
use crate::datapath::supervisor::{Refused, Repaired};
use crate::{Enforcement, controller};

/// The rules of the host, if this process has written them.
#[derive(Default)]
pub(super) struct Host {
    in_force: Option<HostInForce>,
    back_end: Option<BackEnd>,
}

impl NfqueueSupervisor {
    fn halves(&self) -> HostField {
        HostField::new(self.config.mark)
    }

    /// The number of a unit, which is that of its queue as well: the one it has, or the first that is free.
    pub(super) fn host_number(&self, slot: PuSlot) -> Result<(u32, u16), Refused> {
        let (units, max) = (&self.kept.host().units, self.halves().max_unit());
        let free = |number: &u32| units.values().all(|unit| unit.number != *number);
        let number = match units.get(&slot.0) {
            Some(unit) => unit.number,
            None => (1..=max).find(free).ok_or_else(|| {
                format!(
                    "mark {} has room for {max} units of the host: widen it, or put cgroups together",
                    self.config.mark
                )
            })?,
        };
        let queue = u16::try_from(number).ok().and_then(|number| self.config.queue.checked_add(number));
        let queue = queue.ok_or_else(|| {
            format!(
                "there is no queue {} + {number}: units of the host have the numbers behind `queue`, choose a lower one",
                self.config.queue
            )
        })?;
        Ok((number, queue))
    }

    /// How rules are written on the host.
    pub(super) fn host_back_end(&mut self) -> Result<BackEnd, Refused> {
        if let Some(known) = self.host.back_end {
            return Ok(known);
        }
        let found = match self.config.rules {
            Some(chosen) => self.capabilities.supports(chosen).map(|()| chosen)?,
            None => self.capabilities.choose_host()?,
        };
        self.host.back_end = Some(found);
        Ok(found)
    }

    /// Brings the rules of the host to what a unit of it is now, under this epoch.
    pub(super) fn write_host(
        &mut self,
        unit: &Enforcement,
        slot: PuSlot,
        epoch: u32,
        cgroup: &Cgroup,
    ) -> Result<(), Refused> {
        let (number, queue) = self.host_number(slot)?;
        let mut host = self.kept.host().clone();
        let before = host.units.get(&slot.0);
        let known = before.filter(|before| before.id == cgroup.id);
        if before.is_some() && known.is_none() {
            // Another cgroup by now; what was open in the old one has ended with it.
            self.table.forget(slot);
        }
        let (last, arrives) = (host.released, known.is_none());
        if last == 0 || known.is_none_or(|known| known.epoch != epoch) {
            host.released = self.halves().next(last);
        }
        let wanted = kept::HostUnit {
            number,
            id: cgroup.id,
            cgroup: cgroup.name.clone(),
            level: cgroup.level,
            epoch,
            judged: judged(unit, queue),
        };
        host.namespace = Namespace::current()?.id().inode;
        host.field = self.config.mark.mask();
        host.units.insert(slot.0, wanted);
        let mut conntrack = Conntrack::connect()?;
        if host.released < last {
            // Marks of long ago would say the same as those of today.
            let any = Marks { mask: self.halves().release_mask(), value: None };
            conntrack.clear_marks(any, self.halves().release_mask())?;
        }
        if arrives {
            self.disown(&mut conntrack, number)?;
        }
        self.write_set(&host, Some(slot))?;
        if arrives {
            // What a cgroup around it had open in its processes is its own from here on.
            let around = host.units.values().filter(|other| is_around(&other.cgroup, &cgroup.name));
            for other in around {
                self.disown(&mut conntrack, other.number)?;
            }
        }
        if let Some(caught) = self.units.get_mut(&slot) {
            caught.epoch = epoch;
        }
        self.kept.put_host(&host)?;
        Ok(())
    }

    /// Forgets of all connections that they are this unit's.
    fn disown(&self, conntrack: &mut Conntrack, number: u32) -> Result<(), Refused> {
        let halves = self.halves();
        let its = Marks { mask: halves.unit_mask(), value: Some(halves.pending(number)) };
        conntrack.clear_marks(its, halves.whole().mask())?;
        Ok(())
    }

    /// Writes the rules for these units, if they are others than those in force, or if more is known of the one that is
    /// caught for the first time.
    fn write_set(&mut self, host: &kept::Host, caught: Option<PuSlot>) -> Result<(), Refused> {
        let back_end = self.host_back_end()?;
        let fresh = |slot: &PuSlot| self.units.get(slot).is_some_and(|caught| caught.released.is_none());
        let seen = self.seen_listening(caught.filter(fresh).into_iter())?;
        let wanted = self.host_set(host);
        let stands = self.host.in_force.as_ref().is_some_and(|in_force| in_force.set == wanted);
        if !stands || !seen.is_empty() {
            let first = self.host.in_force.is_none();
            self.host.in_force = self.apply_set(host, wanted, &seen, self.host.in_force.as_ref())?;
            if first {
                Programs::default().leave_host(back_end)?;
            }
            debug!(units = host.units.len(), released = host.released, "rules of the host written");
        }
        for (slot, unit) in &host.units {
            if let Some(caught) = self.units.get_mut(&PuSlot(*slot)) {
                caught.released = unit.judged.map(|_| host.released);
            }
        }
        self.watch_host(host)
    }

    /// A cgroup may go while its rules are written.
    fn apply_set(
        &self,
        host: &kept::Host,
        mut wanted: HostSet,
        seen: &[(u32, SocketAddr)],
        last: Option<&HostInForce>,
    ) -> Result<Option<HostInForce>, Refused> {
        let back_end = self.host.back_end.ok_or("no way to write rules of the host is chosen")?;
        loop {
            let written = Programs::default().apply_host(back_end, &wanted, seen, last);
            let now = self.host_set(host);
            match written {
                Err(NetfilterError::Lacking { .. }) if now.units.len() < wanted.units.len() => wanted = now,
                written => return Ok(written?),
            }
        }
    }

    fn watch_host(&self, host: &kept::Host) -> Result<(), Refused> {
        let watched = match &self.host.in_force {
            Some(in_force) => {
                let slots = host
                    .units
                    .iter()
                    .filter_map(|(slot, unit)| Some((PuSlot(*slot), unit.number, unit.judged?.queue)));
                let rules = Rules::Host(in_force.clone(), slots.collect());
                Some(Watched::new(&Namespace::current()?, rules)?)
            }
            None => None,
        };
        self.watch.set(HOST, watched);
        Ok(())
    }

    /// Units whose cgroup has gone are in no rule: `nft` would not know it.
    fn host_set(&self, host: &kept::Host) -> HostSet {
        let there = host.units.values().filter(|unit| cgroup::is_there(&unit.cgroup, unit.id));
        let units = there.map(|unit| HostUnit {
            number: unit.number,
            cgroup: unit.cgroup.clone(),
            level: unit.level,
            judged: unit.judged.map(|Judged { queue, open, others }| HostJudged {
                queue,
                unanswered: if open { Unanswered::Accept } else { Unanswered::Drop },
                other_protocols: if others { OtherProtocols::Judge } else { OtherProtocols::Allow },
            }),
        });
        HostSet {
            field: self.config.mark,
            released: host.released,
            tap_magic: tap::MAGIC,
            units: units.collect(),
        }
    }

    /// Where these units listen and connections wait whose sockets do not say whose they are: what was learned about it
    /// before there were rules.
    fn seen_listening(&self, slots: impl Iterator<Item = PuSlot>) -> Result<Vec<(u32, SocketAddr)>, Refused> {
        let remains = tcp_remains()?;
        let mut seen = Vec::new();
        for slot in slots {
            // Of others the cgroup is not known yet; they are caught in a moment.
            let Some(cgroup) = self.units.get(&slot).and_then(|caught| caught.place.cgroup()) else {
                continue;
            };
            let (number, _) = self.host_number(slot)?;
            let listeners = tcp_listeners_of(&cgroup.all(&self.other_cgroups(slot)))?;
            let at = |remains: &&SocketAddr| {
                listeners.iter().any(|listener| {
                    listener.port() == remains.port()
                        && (listener.ip().is_unspecified() || listener.ip() == remains.ip())
                })
            };
            seen.extend(remains.iter().filter(at).map(|remains| (number, *remains)));
        }
        Ok(seen)
    }

    /// Cgroups of other units, which a unit around them does not have.
    fn other_cgroups(&self, slot: PuSlot) -> HashSet<u64> {
        let units = self.kept.host().units.iter();
        units.filter(|(other, _)| **other != slot.0).map(|(_, unit)| unit.id).collect()
    }

    /// Connections of a unit's processes.
    pub(super) fn host_connections(
        &self,
        slot: PuSlot,
        cgroup: &Cgroup,
    ) -> Result<Vec<TcpConnection>, Refused> {
        Ok(tcp_connections_of(&cgroup.all(&self.other_cgroups(slot)))?)
    }

    /// Rules first, so that nothing is queued for nobody.
    pub(super) fn let_host_go(&mut self, slot: PuSlot) -> Result<(), Refused> {
        let mut host = self.kept.host().clone();
        let Some(gone) = host.units.remove(&slot.0) else { return Ok(()) };
        host.released = self.halves().next(host.released);
        let outcome = self.write_set(&host, None).and_then(|()| {
            let mut conntrack = Conntrack::connect()?;
            self.disown(&mut conntrack, gone.number)
        });
        self.forget(slot);
        self.kept.put_host(&host)?;
        outcome
    }

    /// Writes the rules again that somebody else changed; tells it of every unit.
    pub(super) fn repair_host(&mut self, found: &str) -> Vec<Repaired> {
        let host = self.kept.host().clone();
        let slots: Vec<PuSlot> = host.units.keys().map(|slot| PuSlot(*slot)).collect();
        let seen = self.seen_listening(slots.iter().copied());
        let written = seen.and_then(|seen| self.apply_set(&host, self.host_set(&host), &seen, None));
        let problem = match written.map(|in_force| self.host.in_force = in_force) {
            Ok(()) => self.watch_host(&host).err(),
            Err(error) => Some(error),
        };
        let problem = problem.map(|error| controller::chain(&*error));
        let repaired = |slot| Repaired {
            slot,
            found: format!("of the rules of the host, {found}"),
            problem: problem.clone(),
        };
        slots.into_iter().map(repaired).collect()
    }

    /// Whether these are the rules that were written last.
    pub(super) fn is_host_in_force(&self, rules: &HostInForce) -> bool {
        self.host.in_force.as_ref() == Some(rules)
    }

    /// What an earlier run left in another namespace, or under another field, is nothing to go on with.
    pub(super) fn settle_host(&mut self) -> Result<(), Refused> {
        let (kept, here) = (self.kept.host().clone(), Namespace::current()?.id().inode);
        if kept.units.is_empty() {
            return Ok(());
        }
        if kept.namespace != here {
            clean_up(&kept)?;
            return Ok(self.kept.put_host(&kept::Host::default())?);
        }
        if kept.field != self.config.mark.mask() {
            let theirs = Marks { mask: kept.field, value: None };
            Conntrack::connect()?.clear_marks(theirs, kept.field)?;
            let max = self.halves().max_unit();
            let mut host = kept;
            host.units.retain(|_, unit| unit.number <= max);
            host.released = 0;
            self.kept.put_host(&host)?;
        }
        Ok(())
    }
}

/// None for a unit that is not judged at all.
fn judged(unit: &Enforcement, queue: u16) -> Option<Judged> {
    (unit.policy.mode() != Mode::Off).then_some(Judged {
        queue,
        open: unit.fails_open(),
        others: unit.judges_other_protocols(),
    })
}

/// True if one cgroup contains the other.
fn is_around(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Removes what a run has left on its host, marks of connections included; true if there were rules.
pub(super) fn clean_up(kept: &kept::Host) -> Result<bool, Refused> {
    let remove = || -> Result<bool, Refused> {
        let any = remove_rules()?;
        if kept.field != 0 {
            let ours = Marks { mask: kept.field, value: None };
            let cleared = Conntrack::connect()?.clear_marks(ours, kept.field)?;
            debug!(connections = cleared, "marks cleared");
        }
        Ok(any)
    };
    let reachable = trireme_netns::reachable();
    let Some(home) = reachable.iter().find(|namespace| namespace.id().inode == kept.namespace) else {
        // The namespace has gone, and its rules with it.
        return Ok(false);
    };
    home.run(remove)?
}

/// Removes the rules of the host from the calling thread's namespace, however they were written.
pub(super) fn remove_rules() -> Result<bool, Refused> {
    let programs = Programs::default();
    let mut any = false;
    for back_end in BackEnd::ALL {
        match programs.remove_host(back_end) {
            Ok(found) => any |= found,
            // What is not installed has written nothing.
            Err(NetfilterError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if any {
        info!("rules of the host removed");
    }
    Ok(any)
}

/// How many units rules of an earlier run catch on the host of the calling thread.
pub(super) fn held(kept: &kept::Host) -> usize {
    let here = Namespace::current().is_ok_and(|namespace| namespace.id().inode == kept.namespace);
    let any = here && Programs::default().has_host().unwrap_or(false);
    if any { kept.units.len() } else { 0 }
}

/// How the mark is told of a unit of the host.
pub(super) fn marks(config: &NfqueueConfig, number: u32) -> super::caught::Marks {
    super::caught::Marks::Host(HostField::new(config.mark), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_around_those_below_it_only() {
        assert!(is_around("a", "a/b") && is_around("a/b", "a/b/c/d"));
        assert!(!is_around("a", "a") && !is_around("a", "ab/c") && !is_around("a/b", "a"));
    }
}
