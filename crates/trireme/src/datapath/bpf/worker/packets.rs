//! The packet's way through the thread: ring, engine, effects, back to the edge.

use std::net::SocketAddr;

use tracing::{debug, trace, warn};
use trireme_bpf::PlaneError;
use trireme_conntrack::{Conntrack, Forgotten};
use trireme_datapath::{Effect, Hook, Packet, Verdict};
use trireme_flow::{ConnectionEntry, FlowKey};
use trireme_token::Role;
use trireme_wire::icmp;
use trireme_wire::tuple::{Endpoint, Tuple};

use super::super::{convert, meter};
use super::{BATCH, Loop, now};
use crate::controller;

impl Loop {
    /// Judges what waits in the rings, some packets of each at a time so that timers and requests get their turn.
    pub(super) fn take_packets(&mut self) {
        let mut packets = std::mem::take(&mut self.packets);
        let taken = self.plane.drain(BATCH, |punt| packets.push(convert::packet(&punt)));
        self.meter.punted = self.meter.punted.saturating_add(meter::wide(taken));
        for packet in packets.drain(..) {
            let hook = packet.hook;
            let connection = packet.connection.or_else(|| self.quoted_connection(&packet));
            let packet = Packet { connection, ..packet };
            let verdict = self.engine.handle_packet(packet, now(), &mut self.effects);
            let opened = self.carry_out_but_openings(hook);
            match verdict {
                Verdict::Pass(packet) => self.injections.push(convert::passed(packet)),
                Verdict::Drop(reason) => trace!(%reason, "packet dropped"),
                Verdict::Held => {}
            }
            self.open(opened);
        }
        self.packets = packets;
    }

    /// The connection that an ICMP error quotes: the engine remembers only handshakes that it judged itself, lately.
    fn quoted_connection(&self, packet: &Packet) -> Option<ConnectionEntry> {
        let error = icmp::embedded(&packet.bytes)?;
        let (local, remote) = match packet.hook {
            Hook::ToPu => (error.tuple.src, error.tuple.dst),
            Hook::FromPu => (error.tuple.dst, error.tuple.src),
        };
        let key = FlowKey { pu: packet.pu, local: local.into(), remote: remote.into() };
        let (connection, _) = self.plane.connection(&convert::key(&key)).ok()??;
        Some(convert::entry(&connection))
    }

    /// Carries effects out, but returns the entries that let segments of the connection pass by themselves: before
    /// they do, the packet that opens it must be on its way, or data overtakes its proof.
    ///
    /// The entry of an initiator whose SYN-ACK arrives is written at once: nothing passes by itself before the proof.
    fn carry_out_but_openings(&mut self, hook: Hook) -> Vec<(FlowKey, ConnectionEntry)> {
        let mut opened = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Install(key, entry) if entry.role == Role::Responder || hook == Hook::FromPu => {
                opened.push((*key, *entry));
                false
            }
            Effect::Remove(key) => {
                opened.retain(|(other, _)| other != key);
                true
            }
            Effect::Install(..)
            | Effect::Transmit { .. }
            | Effect::Verify(_)
            | Effect::Record(_)
            | Effect::Teach(_)
            | Effect::ForgetConntrack(_) => true,
        });
        self.carry_out();
        opened
    }

    fn open(&mut self, opened: Vec<(FlowKey, ConnectionEntry)>) {
        if opened.is_empty() {
            return;
        }
        self.put_back();
        for (key, entry) in opened {
            // The answer may have come while the proof was being sent.
            if entry.confirmed || !self.is_confirmed(&key) {
                self.install(&key, &entry);
            }
        }
    }

    fn is_confirmed(&self, key: &FlowKey) -> bool {
        matches!(self.plane.connection(&convert::key(key)), Ok(Some((held, _))) if held.confirmed)
    }

    /// Gives finished signature checks back to the engine.
    pub(super) fn take_results(&mut self) {
        while let Some(done) = self.pool.finished() {
            self.engine.handle_verified(done, now(), &mut self.effects);
            self.carry_out();
        }
    }

    pub(super) fn run_timers(&mut self) {
        let now = now();
        if self.engine.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.engine.handle_timeout(now, &mut self.effects);
            self.carry_out();
        }
    }

    /// Puts everything back that was decided in this round, in one batch.
    pub(super) fn put_back(&mut self) {
        if !self.injections.is_empty() {
            let report = self.plane.reinject(&mut self.injections);
            self.meter.add(&report);
        }
    }

    /// Carries effects out in order. A table that cannot be written leaves the connection to the engine: closed
    /// rather than open.
    pub(super) fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Transmit { pu, toward, bytes, gso_size } => {
                    self.injections.push(convert::emitted(pu, toward, bytes, gso_size));
                }
                Effect::Verify(job) => self.pool.submit(job, &self.secrets.verifier),
                Effect::Install(key, entry) => self.install(&key, &entry),
                Effect::Remove(key) => self.remove(&key),
                Effect::Record(record) => self.collector.flow(&record),
                // Before the packet that taught it is put back: the answer to it may need it.
                Effect::Teach(lesson) => self.teach(lesson),
                Effect::ForgetConntrack(tuple) => self.forget(&tuple),
            }
        }
        self.effects = effects;
    }

    fn install(&mut self, key: &FlowKey, entry: &ConnectionEntry) {
        let written = self.plane.connection_insert(&convert::key(key), &convert::connection(entry));
        match written {
            Ok(()) => {}
            Err(PlaneError::Full { .. }) => self.meter.table_full = self.meter.table_full.saturating_add(1),
            Err(error) => warn!(error = controller::chain(&error), "connection not written"),
        }
    }

    /// Deletes this node's stale conntrack entry of a connection whose proof stays unconfirmed.
    fn forget(&mut self, tuple: &Tuple) {
        let end = |end: &Endpoint| SocketAddr::new(end.addr, end.port);
        let tuple = trireme_conntrack::Tuple { source: end(&tuple.src), destination: end(&tuple.dst) };
        let forgotten = Conntrack::connect().and_then(|mut conntrack| conntrack.forget(&tuple));
        match forgotten {
            Ok(Forgotten::Removed) => {
                self.meter.stale_conntrack = self.meter.stale_conntrack.saturating_add(1);
            }
            Ok(Forgotten::Absent) => {}
            Err(error) => debug!(error = controller::chain(&error), "conntrack entry not deleted"),
        }
    }

    fn remove(&mut self, key: &FlowKey) {
        if let Err(error) = self.plane.connection_remove(&convert::key(key)) {
            warn!(%error, "connection not removed");
        }
    }
}
