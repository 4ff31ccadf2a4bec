//! The connections of all units: what of them passes without the engine.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use tracing::debug;
use trireme_datapath::Hook;
use trireme_flow::{ConnectionEntry, FlowKey, NO_PEER_SLOT, PuSlot};
use trireme_identity::time::Instant;
use trireme_token::Role;
use trireme_wire::tap;
use trireme_wire::tcp::{Flags, Segment};

use super::journal::{Journal, Number};

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It goes on, and the next segments do so without being queued.
    Released,
    /// It goes on.
    Pass,
    /// The engine decides; the entry is what the table holds.
    Ask(Option<ConnectionEntry>),
}

/// A bounded table, kept in a file; entries leave it when their sockets have gone.
#[derive(Debug)]
pub(super) struct Table {
    connections: HashMap<FlowKey, Tracked>,
    capacity: usize,
    journal: Journal,
    /// What could not be written to the file.
    unwritten: u64,
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    entry: ConnectionEntry,
    since: Instant,
    number: Option<Number>,
}

impl Table {
    /// Goes on with the connections of an earlier run.
    pub(super) fn open(state_dir: &Path, capacity: usize) -> io::Result<Self> {
        let (mut journal, held) = Journal::open(state_dir)?;
        let mut connections = HashMap::new();
        for (number, key, entry) in held {
            let tracked = Tracked { entry, since: Instant(0), number: Some(number) };
            if let Some(Tracked { number: Some(older), .. }) = connections.insert(key, tracked) {
                journal.remove(older)?;
            }
        }
        Ok(Self { connections, capacity, journal, unwritten: 0 })
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<ConnectionEntry> {
        self.connections.get(key).map(|tracked| tracked.entry)
    }

    /// False if there is no room.
    pub(super) fn insert(&mut self, key: FlowKey, entry: ConnectionEntry, since: Instant) -> bool {
        let before = self.connections.get(&key).map(|tracked| tracked.number);
        if before.is_none() && self.connections.len() >= self.capacity {
            return false;
        }
        let written = match before.flatten() {
            Some(number) => self.journal.replace(number, &key, &entry).map(|()| number),
            None => self.journal.put(&key, &entry),
        };
        let number = self.note(written);
        self.connections.insert(key, Tracked { entry, since, number });
        true
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        if let Some(tracked) = self.connections.remove(key) {
            self.erase(tracked);
        }
    }

    /// Forgets a unit's.
    pub(super) fn forget(&mut self, slot: PuSlot) {
        self.take(|key, _| key.pu == slot);
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) const fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Places of the engine's peer table that are named.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let entries = self.connections.values().map(|tracked| tracked.entry);
        entries
            .filter(|entry| entry.peer_slot != NO_PEER_SLOT)
            .map(|entry| (entry.peer_slot, entry.peer_generation))
    }

    /// Removes those that were inserted before `before` and are gone, and returns them.
    pub(super) fn collect(
        &mut self,
        before: Instant,
        is_gone: impl Fn(&FlowKey) -> bool,
    ) -> Vec<(FlowKey, ConnectionEntry)> {
        self.take(|key, tracked| tracked.since < before && is_gone(key))
    }

    fn take(&mut self, wanted: impl Fn(&FlowKey, &Tracked) -> bool) -> Vec<(FlowKey, ConnectionEntry)> {
        let taken: Vec<(FlowKey, Tracked)> =
            self.connections.extract_if(|key, tracked| wanted(key, tracked)).collect();
        taken
            .into_iter()
            .map(|(key, tracked)| {
                self.erase(tracked);
                (key, tracked.entry)
            })
            .collect()
    }

    fn erase(&mut self, tracked: Tracked) {
        if let Some(number) = tracked.number {
            let erased = self.journal.remove(number);
            self.note(erased);
        }
    }

    fn note<T>(&mut self, written: io::Result<T>) -> Option<T> {
        if let Err(error) = &written {
            debug!(%error, "connection not kept in the file");
            self.unwritten = self.unwritten.saturating_add(1);
        }
        written.ok()
    }

    /// A segment under the unit's present epoch.
    pub(super) fn judge(
        &mut self,
        epoch: u32,
        hook: Hook,
        key: &FlowKey,
        segment: &Segment,
        bytes: &[u8],
    ) -> Judged {
        let Some(Tracked { entry, .. }) = self.connections.get_mut(key) else { return Judged::Ask(None) };
        let flags = segment.flags;
        let odd = !flags.contains(Flags::ACK) && !flags.contains(Flags::RST);
        if flags.contains(Flags::SYN) || odd || entry.epoch != epoch {
            return Judged::Ask(Some(*entry));
        }
        match hook {
            // A late duplicate of the proof.
            Hook::ToPu if segment.seq == entry.proof_seq && tap::is_tap(segment.payload(bytes)) => {
                return Judged::Ask(Some(*entry));
            }
            Hook::ToPu => {
                entry.confirmed = true;
                if may_make_socket(entry, hook, segment) {
                    return Judged::Pass;
                }
            }
            Hook::FromPu if entry.role == Role::Initiator && !entry.confirmed => {
                return unconfirmed(entry, segment);
            }
            Hook::FromPu => {}
        }
        Judged::Released
    }

    /// Whether a connection's segments behind this one pass without the engine.
    pub(super) fn is_released(&self, epoch: u32, hook: Hook, key: &FlowKey, segment: &Segment) -> bool {
        let held = self.connections.get(key);
        held.is_some_and(|Tracked { entry, .. }| {
            let shown = entry.role == Role::Responder || entry.confirmed;
            entry.epoch == epoch && shown && !may_make_socket(entry, hook, segment)
        })
    }
}

/// The last acknowledgement of a handshake makes the responder's socket. Segments that are released by it may come on
/// another processor at the same time, and in the middle of it Linux finds no socket for them: it answers with a reset.
fn may_make_socket(entry: &ConnectionEntry, hook: Hook, segment: &Segment) -> bool {
    entry.role == Role::Responder && hook == Hook::ToPu && segment.payload_len() == 0
}

/// What a unit sends before the responder is known to have the proof: it is shown with every acknowledgement, and in
/// front of data that is repeated.
fn unconfirmed(entry: &mut ConnectionEntry, segment: &Segment) -> Judged {
    let occupies = segment.sequence_len() > 0;
    if segment.flags.contains(Flags::RST) {
        return Judged::Pass;
    }
    let repeated = entry.data_seen && segment.seq == entry.proof_seq;
    if !occupies || repeated {
        return Judged::Ask(Some(*entry));
    }
    entry.data_seen |= segment.seq == entry.proof_seq;
    Judged::Pass
}

#[cfg(test)]
mod tests;
