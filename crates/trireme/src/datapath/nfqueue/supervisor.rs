//! Rules and queues of many namespaces, in the enforcer's words.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, info, warn};
use trireme_datapath::{BackendEvent, Engine, Hook, Lesson, Packet, Toward};
use trireme_flow::{ConnectionClass, ConnectionEntry, FlowKey, NO_PEER_SLOT, PuSlot, Reason, Traffic};
use trireme_identity::Protocol;
use trireme_identity::time::Now;
use trireme_netfilter::Capabilities;
use trireme_nfqueue::Buffers;
use trireme_sock_diag::tcp_connections;
use trireme_token::{Role, TokenId};
use trireme_wire::tcp::{Flags, Segment};

use super::NfqueueConfig;
use super::caught::{Caught, Put, Release, Taken};
use super::counted::Counted;
use super::host::Host;
use super::kept::Kept;
use super::place::Place;
use super::ready::Ready;
use super::table::{Judged, Table};
use super::watch::{Rules, Sighting, Watch};
use crate::datapath::enforcer::now;
use crate::datapath::supervisor::{
    Line, More, NotInstalled, Patrolled, Pinned, PutBack, Refused, Repaired, Supervisor, Taught, Waker, ended,
};
use crate::datapath::{DatapathError, EdgeState};
use crate::{Edge, Enforcement, controller};

/// A connection may take so long from its entry to a socket that has finished its handshake.
const YOUNG: Duration = Duration::from_secs(60);

/// Units' namespaces, and what is known about connections in them.
pub struct NfqueueSupervisor {
    pub(super) config: NfqueueConfig,
    pub(super) capabilities: Capabilities,
    pub(super) units: BTreeMap<PuSlot, Caught>,
    pub(super) ready: Ready,
    pub(super) buffers: Buffers,
    pub(super) kept: Kept,
    pub(super) watch: Watch,
    pub(super) host: Host,
    pub(super) table: Table,
    /// Taken while something else was waited for.
    backlog: Vec<(PuSlot, Taken)>,
    /// Units to which verdicts are to be told.
    told: HashSet<PuSlot>,
    emitted: HashSet<PuSlot>,
    put: PutBack,
    meter: Meter,
    /// What rules and queues counted, by unit.
    counted: BTreeMap<PuSlot, Counted>,
    /// Units whose namespace is gone.
    missing: BTreeSet<PuSlot>,
}

/// What the queues said.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    overruns: u64,
    unreadable: u64,
    refused: u64,
}

impl NfqueueSupervisor {
    pub(super) fn new(config: NfqueueConfig) -> Result<Self, DatapathError> {
        let kept = Kept::open(&config.state_dir)
            .map_err(|error| DatapathError::kernel("read what an earlier run kept", error))?;
        let ready = Ready::new().map_err(|error| DatapathError::kernel("wait for packets", error))?;
        let watch = Watch::start().map_err(|error| DatapathError::kernel("start a thread", error))?;
        let connections = usize::try_from(config.connections).unwrap_or(usize::MAX);
        let table = Table::open(&config.state_dir, connections)
            .map_err(|error| DatapathError::kernel("read the connections of an earlier run", error))?;
        let mut supervisor = Self {
            capabilities: Capabilities::default(),
            units: BTreeMap::new(),
            ready,
            buffers: Buffers::new(),
            kept,
            watch,
            host: Host::default(),
            counted: BTreeMap::new(),
            missing: BTreeSet::new(),
            table,
            backlog: Vec::new(),
            told: HashSet::new(),
            emitted: HashSet::new(),
            put: PutBack::default(),
            meter: Meter::default(),
            config,
        };
        supervisor
            .settle_host()
            .map_err(|error| DatapathError::kernel("go on with the rules of the host", error))?;
        Ok(supervisor)
    }

    /// Reads a unit's queue once; false when it is empty.
    fn read(&mut self, slot: PuSlot, taken: &mut Vec<Taken>) -> bool {
        let Some(caught) = self.units.get_mut(&slot) else { return false };
        self.told.insert(slot);
        match caught.take(&mut self.buffers, taken) {
            Ok(received) => {
                let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                self.meter.unreadable = self.meter.unreadable.saturating_add(wide(received.unknown));
                self.meter.refused = self.meter.refused.saturating_add(wide(received.refused));
                self.meter.overruns = self.meter.overruns.saturating_add(u64::from(received.overrun));
                received.more
            }
            Err(error) => {
                warn!(unit = slot.0, error = controller::chain(&error), "its queue cannot be read");
                false
            }
        }
    }

    /// Lets pass what the table knows; the rest is for the engine.
    fn judge(&mut self, slot: PuSlot, taken: Taken, packets: &mut Vec<Packet>) {
        let Taken { id, hook, bytes, large } = taken;
        let Some(caught) = self.units.get_mut(&slot) else { return };
        let mut connection = None;
        if let Ok(segment) = Segment::parse(&bytes) {
            let key = flow_key(slot, hook, &segment);
            let release = match self.table.judge(caught.epoch, hook, &key, &segment, &bytes) {
                Judged::Released => caught.released.map(Release::Give),
                Judged::Pass => Some(Release::Keep),
                Judged::Ask(entry) => {
                    connection = entry;
                    None
                }
            };
            if let Some(release) = release {
                let put = caught.pass(id, bytes, release);
                return self.count(put);
            }
        }
        let gso_size = large.then_some(0);
        let token = token(slot, id);
        packets.push(Packet {
            pu: slot,
            hook,
            bytes,
            gso_size,
            connection,
            half_open: None,
            renewal: false,
            token,
        });
    }

    fn count(&mut self, put: Put) {
        match put {
            Put::Sent => self.put.sent = self.put.sent.saturating_add(1),
            Put::Lost => self.put.lost = self.put.lost.saturating_add(1),
        }
    }

    /// What a verdict on this packet does to the release of its connection.
    fn release_of(&self, slot: PuSlot, hook: Hook, bytes: &[u8]) -> Release {
        let (Some(caught), Ok(segment)) = (self.units.get(&slot), Segment::parse(bytes)) else {
            return Release::Keep;
        };
        if segment.flags.contains(Flags::SYN) {
            return Release::TakeBack;
        }
        let released = self.table.is_released(caught.epoch, hook, &flow_key(slot, hook, &segment), &segment);
        caught.released.filter(|_| released).map_or(Release::Keep, Release::Give)
    }

    /// What this process has sent itself is in the queue by now.
    fn let_emitted_go(&mut self) {
        let mut taken = Vec::new();
        for slot in std::mem::take(&mut self.emitted) {
            while self.read(slot, &mut taken) && self.units.get(&slot).is_some_and(Caught::expects) {}
            if let Some(caught) = self.units.get_mut(&slot) {
                caught.expect_nothing();
            }
            self.backlog.extend(taken.drain(..).map(|taken| (slot, taken)));
        }
    }

    /// Undoes what others did to rules; tells what it was.
    fn seen(&mut self, sighting: &Sighting) -> Vec<Repaired> {
        for seen in &sighting.units {
            self.counted.entry(seen.slot).or_default().add(seen);
        }
        let Some(damage) = sighting.damage.as_deref() else { return Vec::new() };
        let slot = sighting.slot;
        match &sighting.expected {
            Rules::Unit(_, rules)
                if self.units.get(&slot).and_then(|caught| caught.rules) == Some(*rules) =>
            {
                let repaired = self.repair(slot, damage);
                repaired.into_iter().map(|(found, problem)| Repaired { slot, found, problem }).collect()
            }
            Rules::Host(rules, _) if self.is_host_in_force(rules) => self.repair_host(damage),
            Rules::Unit(..) | Rules::Host(..) => Vec::new(),
        }
    }

    fn flush(&mut self) {
        for slot in std::mem::take(&mut self.told) {
            let Some(caught) = self.units.get_mut(&slot) else { continue };
            if let Err(error) = caught.flush() {
                warn!(unit = slot.0, error = controller::chain(&error), "verdicts not told");
            }
        }
    }
}

impl Supervisor for NfqueueSupervisor {
    type Place = Place;

    /// Everything of a connection that is not released yet comes by this thread.
    const ONE_WAY: bool = true;

    fn waker(&self) -> Waker {
        self.ready.waker()
    }

    fn wait(&mut self, time: Duration) -> Result<(), DatapathError> {
        let time = if self.backlog.is_empty() { time } else { Duration::ZERO };
        self.ready.wait(time).map_err(|error| DatapathError::kernel("wait for packets", error))
    }

    fn take(&mut self, packets: &mut Vec<Packet>) {
        for (slot, taken) in std::mem::take(&mut self.backlog) {
            self.judge(slot, taken, packets);
        }
        let mut taken = Vec::new();
        for slot in self.ready.take() {
            if self.read(slot, &mut taken) {
                self.ready.again(slot);
            }
            for taken in taken.drain(..) {
                self.judge(slot, taken, packets);
            }
        }
    }

    fn pass(&mut self, packet: Packet) {
        // What was emitted before it goes on before it.
        self.let_emitted_go();
        let (slot, id) = untoken(packet.token);
        let release = self.release_of(slot, packet.hook, &packet.bytes);
        let put = match self.units.get_mut(&slot) {
            Some(caught) => caught.pass(id, packet.bytes, release),
            None => Put::Lost,
        };
        self.told.insert(slot);
        self.count(put);
    }

    fn consume(&mut self, token: u64) {
        let (slot, id) = untoken(token);
        if let Some(caught) = self.units.get_mut(&slot) {
            caught.refuse(id);
            self.told.insert(slot);
        }
    }

    fn emit(&mut self, pu: PuSlot, toward: Toward, bytes: Vec<u8>, _gso_size: Option<u16>) {
        let Some(caught) = self.units.get_mut(&pu) else { return self.count(Put::Lost) };
        let sent = caught.emit(toward, bytes);
        if toward == Toward::Network {
            self.emitted.insert(pu);
        }
        match sent {
            Ok(()) => self.count(Put::Sent),
            Err(error) => {
                debug!(unit = pu.0, error = controller::chain(&error), "packet not sent");
                self.count(Put::Lost);
            }
        }
    }

    fn put_back(&mut self) -> PutBack {
        self.let_emitted_go();
        self.flush();
        std::mem::take(&mut self.put)
    }

    fn connection(&self, key: &FlowKey) -> Option<ConnectionEntry> {
        self.table.get(key)
    }

    fn install(&mut self, key: &FlowKey, entry: &ConnectionEntry) -> Result<(), NotInstalled> {
        let room = self.table.insert(*key, *entry, now().monotonic);
        if room { Ok(()) } else { Err(NotInstalled::Full) }
    }

    fn remove(&mut self, key: &FlowKey) -> Result<(), Refused> {
        self.table.remove(key);
        Ok(())
    }

    /// Nothing is judged without the engine.
    fn teach(&mut self, lesson: &Lesson) -> Result<Taught, Refused> {
        let about_peers = matches!(lesson, Lesson::Peer { .. } | Lesson::ForgetPeer(_));
        Ok(if about_peers { Taught::Peers } else { Taught::Other })
    }

    fn find(edge: &Edge) -> Result<Place, Refused> {
        Ok(Place::find(edge)?)
    }

    fn pinned(&self, place: &Place) -> Pinned {
        let units = self.kept.units();
        let hosts = &self.kept.host().units;
        let here = match place.cgroup() {
            Some(cgroup) => hosts.iter().find(|(_, unit)| unit.id == cgroup.id).map(|(slot, _)| *slot),
            None => units.iter().find(|(_, unit)| unit.namespace == place.inode()).map(|(slot, _)| *slot),
        };
        // What is known of units whose rules have gone does not count.
        let intact = here.filter(|_| self.has_rules(place));
        let epochs = units.iter().map(|(slot, unit)| (*slot, unit.epoch));
        let epochs = epochs.chain(hosts.iter().map(|(slot, unit)| (*slot, unit.epoch)));
        let epochs = epochs.filter(|(slot, _)| here != Some(*slot) || intact.is_some());
        Pinned { epochs: epochs.collect(), here: intact }
    }

    fn supervise(&mut self, unit: &Enforcement, at: &Line<'_, Place>) -> Result<(), Refused> {
        self.catch(unit, at)?;
        self.missing.remove(&at.slot);
        Ok(())
    }

    fn renew(&mut self, unit: &Enforcement, slot: PuSlot, epoch: u32) -> Result<(), Refused> {
        self.write(unit, slot, epoch)
    }

    fn release(&mut self, slot: PuSlot) -> Result<(), Refused> {
        self.table.forget(slot);
        self.missing.remove(&slot);
        self.counted.remove(&slot);
        self.let_go(slot)
    }

    fn release_strangers(&mut self, own: &[PuSlot]) -> Result<(), DatapathError> {
        let kept: Vec<u32> = self.kept.units().keys().chain(self.kept.host().units.keys()).copied().collect();
        for slot in kept.into_iter().map(PuSlot).filter(|slot| !own.contains(slot)) {
            info!(unit = slot.0, "released a place that belongs to no unit");
            self.let_go(slot)
                .map_err(|error| DatapathError::kernel("release a place that belongs to no unit", error))?;
        }
        Ok(())
    }

    fn existing(&self, slot: PuSlot) -> Result<Vec<(SocketAddr, SocketAddr)>, Refused> {
        let caught = self.units.get(&slot).ok_or("the unit is not enforced")?;
        let connections = match caught.place.cgroup() {
            Some(cgroup) => self.host_connections(slot, cgroup)?,
            None => caught.namespace.run(tcp_connections)??,
        };
        Ok(connections.iter().map(|connection| (connection.local, connection.remote)).collect())
    }

    fn adopt(&mut self, key: &FlowKey) -> Result<(), NotInstalled> {
        if self.table.get(key).is_some() {
            return Ok(());
        }
        let epoch = self.units.get(&key.pu).map_or(0, |caught| caught.epoch);
        self.install(key, &adopted(epoch))
    }

    fn settle(&mut self, engine: &mut Engine) -> Result<(), DatapathError> {
        engine.reserve_peers(self.table.places());
        info!(connections = self.table.len(), "connections of an earlier run");
        Ok(())
    }

    fn beat(&mut self) -> Result<(), Refused> {
        Ok(())
    }

    fn patrol(&mut self) -> Patrolled {
        let mut found = Patrolled::default();
        for slot in self.units.keys().copied().collect::<Vec<_>>() {
            if self.units.get(&slot).is_some_and(|caught| caught.place.open().is_err()) {
                // Nothing of ours keeps a namespace alive that nobody else has. Of a cgroup the rules stay, and drop.
                self.forget(slot);
                self.missing.insert(slot);
            }
        }
        found.vanished.extend(self.missing.iter().copied());
        for sighting in self.watch.take() {
            found.repairs.extend(self.seen(&sighting));
        }
        found
    }

    /// The engine sees every beginning; ends are told by [`sweep`](Self::sweep).
    fn take_events(&mut self, _events: &mut Vec<BackendEvent>) -> Result<More, Refused> {
        Ok(More::No)
    }

    /// A connection is dead when its unit has no socket of it any more.
    fn sweep(&mut self, time: Now, events: &mut Vec<BackendEvent>) -> Result<More, Refused> {
        let young = time.monotonic - YOUNG;
        // Units of the host are in one namespace.
        let mut namespaces: BTreeMap<u64, HashSet<_>> = BTreeMap::new();
        for (slot, caught) in &self.units {
            let live = match namespaces.entry(caught.place.inode()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(caught.namespace.run(tcp_connections)??.iter().map(ends).collect())
                }
            };
            let gone =
                self.table.collect(young, |key| key.pu == *slot && !live.contains(&(key.local, key.remote)));
            // What they carried is not known here.
            let ends = gone.iter().map(|(key, entry)| ended(key, entry, Traffic::default(), time.wall));
            events.extend(ends);
        }
        Ok(More::No)
    }

    fn kept_counters(&self) -> Result<BTreeMap<(PuSlot, Reason), u64>, DatapathError> {
        Ok(self.kept.counters())
    }

    fn keep_counters(&mut self, changed: &[(PuSlot, Reason, u64)]) -> Result<(), Refused> {
        Ok(self.kept.put_counters(changed)?)
    }

    fn counters(&self) -> Result<Vec<(Option<PuSlot>, String, u64)>, DatapathError> {
        let all = self.counted.iter().flat_map(|(slot, counted)| {
            counted.named().map(|(name, count)| (Some(*slot), format!("kernel/{name}"), count))
        });
        Ok(all.collect())
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("connections", u64::try_from(self.table.len()).unwrap_or(u64::MAX)),
            ("connections that are not in the file", self.table.unwritten()),
            ("overruns of a queue's socket", self.meter.overruns),
            ("messages of the kernel not understood", self.meter.unreadable),
            ("verdicts on packets that were gone", self.meter.refused),
        ]
    }

    fn detail(&self) -> String {
        let back_ends: HashSet<String> =
            self.units.values().map(|caught| caught.back_end.to_string()).collect();
        let mut back_ends: Vec<String> = back_ends.into_iter().collect();
        back_ends.sort();
        let hosts = self.kept.host().units.len();
        let hosts = if hosts == 0 { String::new() } else { format!(", {hosts} units on the host") };
        let back_ends = back_ends.join(", ");
        format!("queue {}, mark {}, rules by {back_ends}{hosts}", self.config.queue, self.config.mark)
    }

    fn is_fast(&self, _slot: PuSlot) -> bool {
        false
    }

    fn state_of(&self, place: &Place) -> (EdgeState, Option<String>) {
        let inside = "egress: advisory (whoever has CAP_NET_ADMIN or CAP_NET_RAW inside gets past the rules)";
        let host = "egress: advisory (whoever has CAP_NET_ADMIN or CAP_NET_RAW on the host, or leaves the cgroup, gets \
                    past the rules)";
        (EdgeState::Advisory, Some(if place.cgroup().is_some() { host } else { inside }.to_owned()))
    }

    fn gone(place: &Place) -> String {
        format!("its {} is gone: nothing of it is enforced until it is back", place.describe())
    }
}

fn ends(connection: &trireme_sock_diag::TcpConnection) -> ((std::net::IpAddr, u16), (std::net::IpAddr, u16)) {
    let end = |at: SocketAddr| (at.ip().to_canonical(), at.port());
    (end(connection.local), end(connection.remote))
}

/// An entry for a connection that nobody judged.
fn adopted(epoch: u32) -> ConnectionEntry {
    ConnectionEntry {
        role: Role::Responder,
        epoch,
        peer_token: TokenId::ZERO,
        peer_slot: NO_PEER_SLOT,
        peer_generation: 0,
        attested: None,
        proof_seq: 0,
        proof_mac: [0; 16],
        confirmed: true,
        data_seen: true,
        class: ConnectionClass::Adopted,
        syn_ack: 0,
    }
}

fn flow_key(pu: PuSlot, hook: Hook, segment: &Segment) -> FlowKey {
    hook.flow(pu, Protocol::TCP, segment.tuple())
}

fn token(slot: PuSlot, id: u32) -> u64 {
    u64::from(slot.0) << 32 | u64::from(id)
}

fn untoken(token: u64) -> (PuSlot, u32) {
    let low = u32::try_from(token & u64::from(u32::MAX)).unwrap_or(0);
    (PuSlot(u32::try_from(token >> 32).unwrap_or(0)), low)
}
