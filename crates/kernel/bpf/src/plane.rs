//! The plane: one instance's programs, maps and edges, owned by one thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use rustix::event::{PollFd, PollFlags, Timespec};
use trireme_bpf_abi::{self as abi, SLOT_NONE};
use trireme_netns::{Namespace, NamespaceId};
use zerocopy::transmute;

use crate::attach::{HOOKS, On};
use crate::edge::edge_key;
use crate::frame::{Neighbours, Pairs, addresses, pair_of};
use crate::inject::{Injector, Marks};
use crate::maps::{Attention, Maps};
use crate::migrate::Predecessor;
use crate::object::{self, Constants};
use crate::orders::Orders;
use crate::pins::Pins;
use crate::reinject::{self, Batch, Packet, Port};
use crate::shape::{self, SHAPES};
use crate::socket::PacketSocket;
use crate::sweep::Sweeper;
use crate::time::monotonic_nanos;
use crate::{
    Activity, CleanupError, CleanupReport, Connection, CounterSet, Edge, EdgeInfo, FlowKey, Hook, Injection,
    OpenError, PlaneConfig, PlaneError, PuState, Punt, Reinjected, Slot, SweepLimits, SweepReport, Toward,
    Waker, cleanup, memory, probe, punt,
};

mod check;
mod edges;
mod existing;
mod pulse;
mod teach;

pub use check::{Damage, Repair};

/// What is read from the ring of unknown senders, as a share of what is read from each other ring.
const UNKNOWN_SHARE: usize = 4;

/// How long a packet may wait in a ring: a second, when its sender repeats it.
const STALE_NANOS: u64 = 1_000_000_000;

/// Everything of one instance in the kernel.
///
/// Programs, maps and links are pinned: when this is dropped, or the process dies, the PUs stay closed for new
/// connections while established ones go on. Only [`detach`](Self::detach) and [`cleanup`](Self::cleanup) open
/// an edge again. Made for one thread; [`waker`](Self::waker) reaches it from others.
pub struct Plane {
    config: PlaneConfig,
    home: Namespace,
    pins: Pins,
    maps: Maps,
    orders: Orders,
    /// Programs for interfaces of the home namespace.
    programs: Ebpf,
    sockets: HashMap<NamespaceId, Arc<PacketSocket>>,
    injectors: HashMap<NamespaceId, Arc<Injector>>,
    edges: BTreeMap<Slot, Attached>,
    pairs: Pairs,
    marks: Marks,
    waker: Waker,
    sweeper: Sweeper,
    /// Packets dropped because they had waited too long.
    stale: u64,
}

/// An attached PU.
struct Attached {
    edge: Edge,
    ifindex: u32,
    flags: u32,
    namespace: NamespaceId,
    mtu: u32,
    state: PuState,
    /// What is on the hooks, in the order of [`HOOKS`].
    on: [Option<On>; 2],
    socket: Arc<PacketSocket>,
    to_pu: Port,
    to_network: Port,
    neighbours: Neighbours,
}

impl Plane {
    /// Checks what can be checked about process and kernel without changing anything.
    ///
    /// # Errors
    /// [`OpenError::Privilege`] and [`OpenError::Kernel`], naming what is missing.
    pub fn probe() -> Result<(), OpenError> {
        probe::check()?;
        probe::loads_a_program()
    }

    /// Opens the instance in the namespace of the calling thread, adopting what an earlier process left pinned.
    ///
    /// Adopted PUs are attached already, see [`edges`](Self::edges); packets that waited in the rings are dropped. The
    /// programs count on a [`beat`](Self::beat) every second from here on.
    ///
    /// Pins of an older version of the layouts are taken over without a moment in which a PU is open. Of an unknown
    /// version nothing can be read: its PUs are closed until they are attached.
    ///
    /// # Errors
    /// [`OpenError`], before anything is attached or detached.
    pub fn open(mut config: PlaneConfig) -> Result<Self, OpenError> {
        object::check_sizes(&config.sizes)?;
        probe::check()?;
        let home = Namespace::current()?;
        let pins = Pins::open(&config.bpffs, &config.instance)?;
        shape::check(pins.maps(), &SHAPES)?;
        let predecessors = Predecessor::find(&pins)?;
        let held = predecessors.iter().map(Predecessor::connections).max().unwrap_or(0);
        config.sizes.connections = config.sizes.connections.max(held);
        let load = |source| object::load_error("the programs or maps", &config.sizes, source);
        let mut programs = object::load(&pins, &config, Constants::default()).map_err(load)?;
        let maps = Maps::take(&mut programs).map_err(load)?;
        let orders = Orders::of(&mut programs).map_err(load)?;
        for name in ["from_pu", "to_pu"] {
            object::program(&mut programs, name)
                .map_err(|source| OpenError::Load { what: format!("program {name}"), source })?;
        }
        let injector = Injector::new(&home, &pins, &config)?;
        let waker = Waker::new().map_err(PlaneError::Poll)?;
        let mut plane = Self {
            injectors: HashMap::from([(home.id(), Arc::new(injector))]),
            config,
            home,
            pins,
            maps,
            orders,
            programs,
            sockets: HashMap::new(),
            edges: BTreeMap::new(),
            pairs: Pairs::default(),
            marks: Marks::new(),
            waker,
            sweeper: Sweeper::default(),
            stale: 0,
        };
        plane.take_office()?;
        plane.discard_waiting();
        if !predecessors.is_empty() {
            plane.orders.expect_settled()?;
        }
        for predecessor in &predecessors {
            predecessor.copy(&mut plane.maps, &plane.pins)?;
        }
        plane.adopt()?;
        for predecessor in predecessors {
            predecessor.finish(&mut plane.maps, &plane.pins, &plane.config)?;
        }
        plane.sweeper = Sweeper::new(plane.count_connections()?);
        Ok(plane)
    }

    /// Returns how many PUs an instance has attached, whether a process holds it or not.
    pub fn attached(bpffs: &std::path::Path, instance: &str) -> usize {
        crate::cleanup::attached(bpffs, instance)
    }

    /// Removes every pin, link, filter and interface of an instance; call it in the namespace the instance was
    /// opened in. PUs are open afterwards.
    ///
    /// # Errors
    /// [`CleanupError::InUse`] while a process holds the instance; [`CleanupError::Incomplete`] names what stayed.
    pub fn cleanup(bpffs: &std::path::Path, instance: &str) -> Result<CleanupReport, CleanupError> {
        cleanup::run(bpffs, instance)
    }

    /// Returns a handle that ends a wait in [`poll`](Self::poll) from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until packets are there, the waker is used, or the time is over; None waits without end.
    ///
    /// Looks for packets for [`PlaneConfig::spin`] before it sleeps, giving way to other threads in between: a
    /// packet that comes meanwhile, or while the caller works on others, costs no wake-up.
    ///
    /// # Errors
    /// [`PlaneError::Poll`] if the kernel refuses.
    pub fn poll(&mut self, timeout: Option<Duration>) -> Result<(), PlaneError> {
        let spin = timeout.map_or(self.config.spin, |time| time.min(self.config.spin));
        let start = Instant::now();
        loop {
            if self.wait(Some(Duration::ZERO))? {
                return Ok(());
            }
            if start.elapsed() >= spin {
                break;
            }
            rustix::thread::sched_yield();
        }
        if timeout.is_some_and(|time| time.is_zero()) {
            return Ok(());
        }
        self.maps.set_attention(Attention::Asleep)?;
        let waited = self.wait(timeout);
        self.maps.set_attention(Attention::Awake)?;
        waited.map(drop)
    }

    /// True if there is something to do.
    fn wait(&self, timeout: Option<Duration>) -> Result<bool, PlaneError> {
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = [
            PollFd::new(&self.maps.ring_from, PollFlags::IN),
            PollFd::new(&self.maps.ring_to, PollFlags::IN),
            PollFd::new(&self.maps.ring_unknown, PollFlags::IN),
            PollFd::new(self.waker.fd(), PollFlags::IN),
        ];
        let ready = match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(ready) => ready > 0,
            Err(rustix::io::Errno::INTR) => true,
            Err(error) => return Err(PlaneError::Poll(error.into())),
        };
        if fds.last().is_some_and(|fd| fd.revents().contains(PollFlags::IN)) {
            self.waker.reset();
        }
        Ok(ready)
    }

    /// Hands up to `max` packets of each ring to `handle`, and a quarter of that of unknown senders, those last; returns
    /// how many. Packets of PUs that are detached by now are dropped, and those that have waited for a second: their senders
    /// have repeated them, and behind the repetition they would begin what is over.
    pub fn drain(&mut self, max: usize, mut handle: impl FnMut(Punt<'_>)) -> usize {
        let Self { maps, edges, pairs, stale, .. } = self;
        let oldest = monotonic_nanos().saturating_sub(STALE_NANOS);
        let mut total = 0;
        let rings = [
            (&mut maps.ring_from, max),
            (&mut maps.ring_to, max),
            (&mut maps.ring_unknown, max.div_ceil(UNKNOWN_SHARE)),
        ];
        for (ring, max) in rings {
            for _ in 0..max {
                let Some(item) = ring.next() else { break };
                total += 1;
                let Some(punt::Record { mut punt, ethernet }) = punt::parse(&item) else { continue };
                if punt.time_nanos < oldest {
                    *stale = stale.saturating_add(1);
                    continue;
                }
                let Some(attached) = edges.get_mut(&punt.slot) else { continue };
                let pair = pair_of(&ethernet);
                match (punt.hook, addresses(punt.bytes)) {
                    (Hook::FromPu, Some((_, remote))) => attached.neighbours.learn_from_pu(pair, remote),
                    (Hook::ToPu, _) => attached.neighbours.learn_to_pu(pair),
                    (Hook::FromPu, None) => {}
                }
                punt.token = pairs.token(pair);
                handle(punt);
            }
        }
        total
    }

    /// Packets that [`drain`](Self::drain) dropped because they had waited too long.
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// Puts the packets on their edges, in order per PU and direction, and leaves `batch` empty.
    pub fn reinject(&mut self, batch: &mut Vec<Injection>) -> Reinjected {
        let mut report = Reinjected::default();
        let mut frames = Batch::default();
        for injection in batch.drain(..) {
            let Some(attached) = self.edges.get(&injection.slot) else {
                report.unattached += 1;
                continue;
            };
            let Some(pair) = reinject::pair_for(&injection, &self.pairs, &attached.neighbours) else {
                report.unaddressed += 1;
                continue;
            };
            let port = match injection.toward {
                Toward::Pu => &attached.to_pu,
                Toward::Network => &attached.to_network,
            };
            let Injection { bytes, gso_size, .. } = injection;
            let packet = Packet { bytes, gso_size, mtu: attached.mtu };
            if !frames.add(port, pair, packet, &mut self.marks) {
                report.refused += 1;
            }
        }
        let (sent, refused) = frames.send();
        report.sent += sent;
        report.refused += refused;
        report
    }

    /// Writes an entry of the connection table: packets of the connection pass from now on.
    ///
    /// # Errors
    /// [`PlaneError::Full`] if the table is full; the connection then goes on through user space.
    pub fn connection_insert(&mut self, key: &FlowKey, connection: &Connection) -> Result<(), PlaneError> {
        self.forget_held(key)?;
        let key = zerocopy::transmute!(key.to_abi());
        self.maps.connections.insert(&key, &connection.to_abi(monotonic_nanos()))?;
        Ok(())
    }

    /// Removes an established connection; true if there was one.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn connection_remove(&mut self, key: &FlowKey) -> Result<bool, PlaneError> {
        let held = self.forget_held(key)?;
        let key = zerocopy::transmute!(key.to_abi());
        Ok(self.maps.connections.remove(&key)? | held)
    }

    /// Has the programs forget what they hold of a connection: the map says what becomes of it.
    fn forget_held(&self, key: &FlowKey) -> Result<bool, PlaneError> {
        self.edges.get(&key.slot).map_or(Ok(false), |attached| {
            self.orders.forget(edge_key(attached.flags, key.slot, attached.ifindex), key.to_abi())
        })
    }

    /// Returns an established connection.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn connection(&self, key: &FlowKey) -> Result<Option<(Connection, Activity)>, PlaneError> {
        let mut entry = match self.edges.get(&key.slot) {
            Some(attached) => {
                let edge = edge_key(attached.flags, key.slot, attached.ifindex);
                self.orders.read(edge, key.to_abi())?
            }
            None => None,
        };
        if entry.is_none() {
            entry = self.maps.connections.get(&zerocopy::transmute!(key.to_abi()))?;
        }
        Ok(entry.map(|entry| (Connection::from_abi(&entry), Activity::from_abi(&entry))))
    }

    /// Returns all established connections; those that come and go meanwhile may be missing.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn connections(&self) -> Result<Vec<(FlowKey, Connection, Activity)>, PlaneError> {
        let split = |key: &abi::FlowKey, entry: &abi::Connection| {
            (FlowKey::from_abi(key), Connection::from_abi(entry), Activity::from_abi(entry))
        };
        let mut all = Vec::new();
        self.orders.each(|key, entry| all.push(split(key, entry)))?;
        self.maps.connections.each(|key, entry| {
            all.push(split(&transmute!(*key), entry));
            Ok(())
        })?;
        Ok(all)
    }

    /// Adopts a connection that is older than the PU's enforcement: its packets pass, whatever the epoch.
    ///
    /// # Errors
    /// [`PlaneError::NotAttached`] if the PU is not, [`PlaneError::Full`] if the table is full.
    pub fn connection_adopt(&mut self, key: &FlowKey) -> Result<(), PlaneError> {
        let attached = self.edges.get(&key.slot).ok_or(PlaneError::NotAttached(key.slot))?;
        let adopted = Connection::adopted(attached.state.epoch);
        self.connection_insert(key, &adopted)
    }

    /// Returns the number of established connections that the last complete round of [`sweep`](Self::sweep) left.
    pub fn connection_count(&self) -> usize {
        self.sweeper.last()
    }

    /// Counts established connections one by one.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn count_connections(&self) -> Result<usize, PlaneError> {
        let mut young = 0_usize;
        self.orders.each(|_, _| young += 1)?;
        Ok(young.saturating_add(self.maps.connections.count()?))
    }

    /// Removes connections that fell silent, in one slice of the table that takes a moment: go on with the
    /// next until [`SweepReport::round_complete`].
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn sweep(&mut self, limits: &SweepLimits) -> Result<SweepReport, PlaneError> {
        self.sweeper.step(&mut self.maps, &self.orders, limits, monotonic_nanos())
    }

    /// Returns the bytes that all maps take.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel does not say.
    pub fn memory(&self) -> Result<u64, PlaneError> {
        memory::of_pins(self.pins.maps())
    }

    /// Returns the counters of every PU, and under None those that belong to none.
    ///
    /// # Errors
    /// [`PlaneError::Map`] if the kernel refuses.
    pub fn counters(&self) -> Result<Vec<(Option<Slot>, CounterSet)>, PlaneError> {
        let slots = self.edges.keys().map(|slot| (Some(*slot), slot.0));
        slots
            .chain([(None, SLOT_NONE)])
            .map(|(slot, number)| Ok((slot, self.maps.counters.get(number)?)))
            .collect()
    }

    /// Returns all attached PUs.
    pub fn edges(&self) -> Vec<EdgeInfo> {
        self.edges
            .iter()
            .map(|(slot, attached)| EdgeInfo {
                slot: *slot,
                edge: attached.edge.clone(),
                ifindex: attached.ifindex,
                state: attached.state,
                vanished: attached.vanished(),
            })
            .collect()
    }

    /// Returns the PUs whose interface is gone or has moved to another namespace; detach them.
    pub fn vanished(&self) -> Vec<Slot> {
        let gone = self.edges.iter().filter(|(_, attached)| attached.vanished());
        gone.map(|(slot, _)| *slot).collect()
    }

    /// What a test runs, and where.
    #[cfg(feature = "testing")]
    pub(crate) fn programs(&mut self) -> (&mut Ebpf, &Namespace) {
        (&mut self.programs, &self.home)
    }

    /// Where a map is pinned.
    #[cfg(feature = "testing")]
    pub(crate) fn map_path(&self, map: &str) -> std::path::PathBuf {
        self.pins.maps().join(map)
    }

    fn discard_waiting(&mut self) {
        while self.maps.ring_from.next().is_some() {}
        while self.maps.ring_to.next().is_some() {}
        while self.maps.ring_unknown.next().is_some() {}
    }
}

impl Attached {
    fn on(&self, hook: Hook) -> Option<&On> {
        let place = HOOKS.iter().position(|other| *other == hook)?;
        self.on.get(place)?.as_ref()
    }

    fn vanished(&self) -> bool {
        !self.socket.has_interface(self.ifindex)
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("instance", &self.config.instance).finish_non_exhaustive()
    }
}
