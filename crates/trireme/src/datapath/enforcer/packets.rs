//! The packet's way through the thread: supervisor, engine, effects, back to the supervisor.

use std::net::SocketAddr;

use tracing::{debug, trace, warn};
use trireme_conntrack::{Conntrack, Forgotten};
use trireme_datapath::{Effect, Hook, Lesson, Packet, Verdict};
use trireme_flow::{ConnectionEntry, FlowKey};
use trireme_identity::time::Instant;
use trireme_token::Role;
use trireme_wire::icmp;
use trireme_wire::tuple::{Endpoint, Tuple};

use super::flows::Flows;
use super::{Loop, meter, now};
use crate::controller;
use crate::datapath::supervisor::{NotInstalled, Supervisor, Taught};

impl<S: Supervisor> Loop<S> {
    /// Judges what waits, some packets at a time so that timers and requests get their turn.
    pub(super) fn take_packets(&mut self) {
        let mut packets = std::mem::take(&mut self.packets);
        self.supervisor.take(&mut packets);
        self.meter.punted = self.meter.punted.saturating_add(meter::wide(packets.len()));
        for packet in packets.drain(..) {
            let (time, hook, token, bytes) = (now(), packet.hook, packet.token, packet.bytes.len());
            let flow = if packet.connection.is_none() { Flows::key(&packet) } else { None };
            let connection = packet
                .connection
                .or_else(|| self.flows.get(&flow?, time.monotonic))
                .or_else(|| self.quoted_connection(&packet, time.monotonic));
            let packet = Packet { connection, ..packet };
            let verdict = self.engine.handle_packet(packet, time, &mut self.effects);
            let opened = self.carry_out_but_openings(hook);
            match verdict {
                Verdict::Pass(packet) => {
                    if let Some(flow) = flow {
                        self.flows.pass(&flow, hook, bytes, time.monotonic);
                    }
                    self.supervisor.pass(packet);
                }
                Verdict::Drop(reason) => {
                    trace!(%reason, "packet dropped");
                    self.supervisor.consume(token);
                }
                Verdict::Held => self.supervisor.consume(token),
            }
            self.open(opened);
        }
        self.packets = packets;
    }

    /// The connection that an ICMP error quotes: the engine remembers only handshakes that it judged itself, lately.
    fn quoted_connection(&self, packet: &Packet, time: Instant) -> Option<ConnectionEntry> {
        let error = icmp::embedded(&packet.bytes)?;
        let key = packet.hook.quoted_flow(packet.pu, error.quoted_ip.protocol, error.tuple);
        if key.is_tcp() { self.supervisor.connection(&key) } else { self.flows.get(&key, time) }
    }

    /// Carries effects out, but returns the entries that let segments of the connection pass by themselves: before
    /// they do, the packet that opens it must be on its way, or data overtakes its proof.
    ///
    /// The entry of an initiator whose SYN-ACK arrives is written at once: nothing passes by itself before the proof.
    fn carry_out_but_openings(&mut self, hook: Hook) -> Vec<(FlowKey, ConnectionEntry)> {
        let mut opened = Vec::new();
        if S::ONE_WAY {
            self.carry_out();
            return opened;
        }
        self.effects.retain(|effect| match effect {
            Effect::Install(key, entry)
                if key.is_tcp() && (entry.role == Role::Responder || hook == Hook::FromPu) =>
            {
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
            | Effect::Block(..)
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
        self.supervisor.connection(key).is_some_and(|held| held.confirmed)
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
        let put = self.supervisor.put_back();
        self.meter.sent = self.meter.sent.saturating_add(put.sent);
        self.meter.lost = self.meter.lost.saturating_add(put.lost);
    }

    /// Carries effects out in order. A table that cannot be written leaves the connection to the engine: closed
    /// rather than open.
    pub(super) fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Transmit { pu, toward, bytes, gso_size } => {
                    self.supervisor.emit(pu, toward, bytes, gso_size);
                }
                Effect::Verify(job) => self.pool.submit(job, &self.secrets.verifier),
                Effect::Install(key, entry) => self.install(&key, &entry),
                Effect::Remove(key) => self.remove(&key),
                // No table holds them: the flow's next packets are asked about as well.
                Effect::Block(..) => {}
                Effect::Record(record) => self.collector.flow(&record),
                // Before the packet that taught it is put back: the answer to it may need it.
                Effect::Teach(lesson) => self.teach(&lesson),
                Effect::ForgetConntrack(tuple) => self.forget(&tuple),
            }
        }
        self.effects = effects;
    }

    /// What finds no room leaves the next handshake to the engine, as if nothing had been taught.
    fn teach(&mut self, lesson: &Lesson) {
        self.unsaved.units |= matches!(lesson, Lesson::OwnTokens { .. });
        match self.supervisor.teach(lesson) {
            Ok(Taught::Peers) => self.unsaved.peers = true,
            Ok(Taught::Other) => {}
            Err(error) => {
                self.meter.untaught = self.meter.untaught.saturating_add(1);
                debug!(error = controller::chain(&*error), "lesson not written");
            }
        }
    }

    /// Whether packets of a flow without connections pass, the engine is asked every time.
    fn install(&mut self, key: &FlowKey, entry: &ConnectionEntry) {
        let installed = if key.is_tcp() {
            self.supervisor.install(key, entry)
        } else if self.flows.install(*key, *entry, now().monotonic) {
            Ok(())
        } else {
            Err(NotInstalled::Full)
        };
        match installed {
            Ok(()) => {}
            Err(NotInstalled::Full) => self.meter.table_full = self.meter.table_full.saturating_add(1),
            Err(NotInstalled::Failed(error)) => {
                warn!(error = controller::chain(&*error), "connection not written");
            }
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
        if !key.is_tcp() {
            return self.flows.remove(key);
        }
        if let Err(error) = self.supervisor.remove(key) {
            warn!(error = controller::chain(&*error), "connection not removed");
        }
    }
}
