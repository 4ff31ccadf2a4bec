//! Writing, looking after and removing the rules of the host.

use std::net::SocketAddr;

use super::HostSet;
use super::queues::Queues;
use super::table::Table;
use crate::capabilities::has_legacy_tables;
use crate::parts::{Part, damage};
use crate::turn::Turn;
use crate::{BackEnd, Damage, Denied, NetfilterError, Programs};

/// How often a set is written anew when another program changes the same tables at the same time.
const ATTEMPTS: usize = 5;

/// The rules of the host as they stood when they had been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInForce {
    /// What they do.
    pub set: HostSet,
    back_end: BackEnd,
    table: Vec<Part>,
    queues: Vec<Part>,
}

impl HostInForce {
    fn parts(&self) -> Vec<Part> {
        [&self.table[..], &self.queues].concat()
    }
}

/// True for sets of which iptables writes the same.
fn same_queues(one: &HostSet, two: &HostSet) -> bool {
    let queues = |set: &HostSet| {
        let queues = set.judged().map(|(unit, judged)| (unit.number, judged.queue, judged.unanswered));
        queues.collect::<Vec<_>>()
    };
    one.field == two.field && queues(one) == queues(two)
}

/// What one look at the rules in force shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLook {
    /// How they differ from what was written.
    pub damage: Option<Damage>,
    /// What they dropped, by number of the unit.
    pub units: Vec<(u32, Denied, Unqueued)>,
}

/// Packets that came by without having been queued, and were dropped: somebody had removed the rules that queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unqueued(pub u64);

/// Everything of ours.
struct Found {
    table: Table,
    queues: Option<Queues>,
}

impl Found {
    fn list(programs: &Programs, back_end: BackEnd) -> Result<Self, NetfilterError> {
        Ok(Self { table: Table::list(programs)?, queues: Queues::list(programs, back_end)? })
    }

    fn stranger(&self) -> Option<String> {
        if !self.table.is_ours() {
            return Some("table inet trireme_host".to_owned());
        }
        self.queues.as_ref().and_then(Queues::stranger)
    }

    fn queues(&self) -> Vec<Part> {
        self.queues.as_ref().map(Queues::parts).unwrap_or_default()
    }

    fn parts(&self) -> Vec<Part> {
        [self.table.parts(), self.queues()].concat()
    }

    /// What queues, if it has to be written: it is not if it stands as an earlier set left it that queues the same.
    fn queues_to_write(&self, set: &HostSet, last: Option<&HostInForce>) -> Option<&Queues> {
        let queues = self.queues.as_ref()?;
        let same = |last: &HostInForce| last.queues == queues.parts() && same_queues(&last.set, set);
        (!last.is_some_and(same)).then_some(queues)
    }

    fn has_all(&self, set: &HostSet, back_end: BackEnd) -> bool {
        self.table.has_all(set, back_end) && self.queues.as_ref().is_none_or(|queues| queues.has_all(set))
    }

    /// What queues comes first: until the table says whose packets are, it meets none.
    fn write(
        &self,
        programs: &Programs,
        (set, back_end): (&HostSet, BackEnd),
        seen: &[(u32, SocketAddr)],
        queues: Option<&Queues>,
    ) -> Result<(), NetfilterError> {
        let script = self.table.script(set, back_end, seen);
        let Some(queues) = queues else {
            return programs.run("nft", &["-f", "-"], &script).map(drop).map_err(lacking);
        };
        // What the kernel lacks shows before anything is changed.
        programs.run("nft", &["-c", "-f", "-"], &script).map_err(lacking)?;
        queues.write(programs, set)?;
        let Err(cause) = programs.run("nft", &["-f", "-"], &script) else { return Ok(()) };
        match queues.undo(programs) {
            Ok(()) => Err(cause),
            Err(undo) => Err(NetfilterError::Undo { cause: Box::new(cause), undo: Box::new(undo) }),
        }
    }
}

impl Programs {
    /// Writes the rules of the host into the calling thread's namespace, in place of what an older call wrote; of the units
    /// that were there before, none is open for a moment. `seen` are addresses at which units listen, by number; `last` is what
    /// an earlier call gave, which saves work.
    ///
    /// Nothing is left of a set without units that are judged. What fails leaves everything as it was.
    ///
    /// # Errors
    /// [`NetfilterError::Number`], [`NetfilterError::Shared`], [`NetfilterError::Cgroup`] and
    /// [`NetfilterError::Released`] for a set that cannot be; [`NetfilterError::Missing`] without `nft`,
    /// [`NetfilterError::Lacking`] without `socket cgroupv2`, otherwise as [`apply`](crate::apply).
    pub fn apply_host(
        &self,
        back_end: BackEnd,
        set: &HostSet,
        seen: &[(u32, SocketAddr)],
        last: Option<&HostInForce>,
    ) -> Result<Option<HostInForce>, NetfilterError> {
        set.check()?;
        if set.judged().next().is_none() {
            return self.remove_host(back_end).map(|_| None);
        }
        let _turn = Turn::take()?;
        for _ in 0..ATTEMPTS {
            let found = Found::list(self, back_end)?;
            if let Some(place) = found.stranger() {
                return Err(NetfilterError::Taken { place });
            }
            let queues = found.queues_to_write(set, last);
            let written = found.write(self, (set, back_end), seen, queues);
            let now = Found::list(self, back_end)?;
            match written {
                Ok(()) if now.has_all(set, back_end) => {
                    let (table, queues) = (now.table.parts(), now.queues());
                    return Ok(Some(HostInForce { set: set.clone(), back_end, table, queues }));
                }
                // Someone else was faster, and what was to be replaced is not there any more.
                Ok(()) => {}
                Err(
                    NetfilterError::Failed { .. }
                    | NetfilterError::Lacking { .. }
                    | NetfilterError::Undo { .. },
                ) if now.parts() != found.parts() => {}
                Err(error) => return Err(error),
            }
        }
        Err(NetfilterError::Contended(Damage("those of the host are others than were written".to_owned())))
    }

    /// Tells whether the rules of the host are as they were written, and what they dropped; counters, what sets hold and
    /// rules of others do not count.
    ///
    /// # Errors
    /// As [`read`](crate::read).
    pub fn look_host(&self, in_force: &HostInForce) -> Result<HostLook, NetfilterError> {
        let found = Found::list(self, in_force.back_end)?;
        let units = in_force.set.judged().map(|(unit, _)| {
            let unqueued = Unqueued(found.table.dropped(&format!("unqueued_{}", unit.number)));
            (unit.number, found.table.denied(unit.number), unqueued)
        });
        let units = units.collect();
        Ok(HostLook { damage: damage(&found.parts(), &in_force.parts()), units })
    }

    /// Removes the rules of the host, and nothing else; true if there were any.
    ///
    /// # Errors
    /// As [`remove`](crate::remove).
    pub fn remove_host(&self, back_end: BackEnd) -> Result<bool, NetfilterError> {
        let _turn = Turn::take()?;
        let found = Found::list(self, back_end)?;
        if let Some(place) = found.stranger() {
            return Err(NetfilterError::Taken { place });
        }
        // What says whose packets are goes first: nothing is queued from there on.
        if !found.table.absent() {
            self.run("nft", &["delete", "table", "inet", "trireme_host"], "")?;
        }
        if let Some(queues) = &found.queues
            && !queues.absent()
        {
            queues.remove(self)?;
            return Ok(true);
        }
        Ok(!found.table.absent())
    }

    /// Removes what queues for units of the host by another back end than this one.
    ///
    /// # Errors
    /// As [`remove_host`](Self::remove_host).
    pub fn leave_host(&self, back_end: BackEnd) -> Result<(), NetfilterError> {
        let _turn = Turn::take()?;
        for other in BackEnd::ALL.into_iter().filter(|other| *other != back_end) {
            // Asking for legacy tables would make them.
            if other == BackEnd::IptablesLegacy && !has_legacy_tables() {
                continue;
            }
            match Queues::list(self, other) {
                Ok(Some(queues)) if !queues.absent() => queues.remove(self)?,
                Ok(_) | Err(NetfilterError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether rules of the host are in the calling thread's namespace, whatever they are; false without `nft`.
    ///
    /// # Errors
    /// As [`read`](crate::read).
    pub fn has_host(&self) -> Result<bool, NetfilterError> {
        match Table::list(self) {
            Ok(table) => Ok(!table.absent() && table.is_ours()),
            Err(NetfilterError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this back end queues for units of the host in the calling thread's namespace; false if it is not installed.
    ///
    /// # Errors
    /// As [`read`](crate::read).
    pub fn queues_host(&self, back_end: BackEnd) -> Result<bool, NetfilterError> {
        match Queues::list(self, back_end) {
            Ok(queues) => Ok(queues.is_some_and(|queues| !queues.absent())),
            Err(NetfilterError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What `nft` refuses about the rules of the host.
fn lacking(error: NetfilterError) -> NetfilterError {
    if let NetfilterError::Failed { program: _, said } = error {
        NetfilterError::Lacking { said }
    } else {
        error
    }
}
