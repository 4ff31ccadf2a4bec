//! What the thread of an [enforcer](super::enforcer) needs from the kernel's half.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trireme_datapath::{BackendEvent, Engine, Lesson, Packet, PeerPlace, Toward};
use trireme_flow::{ConnectionEntry, FlowKey, NO_PEER_SLOT, PuSlot, Reason, Traffic};
use trireme_identity::Direction;
use trireme_identity::time::{Now, WallTime};
use trireme_token::Role;

use super::{DatapathError, EdgeState};
use crate::{Edge, Enforcement};

/// Why the kernel's half did not do something for one unit.
pub(super) type Refused = Box<dyn Error + Send + Sync>;

/// A way to catch packets, before it is opened: what is configured about it.
pub trait BackEnd: Clone + fmt::Debug + Send + Sync + 'static {
    /// What it is once it is open.
    type Supervisor: Supervisor;

    /// Its short name.
    const KIND: &'static str;

    /// What the enforcer has to know.
    fn setup(&self) -> EnforcerSetup;

    /// Checks that the process may do what is needed and that the machine has it; changes nothing.
    ///
    /// # Errors
    /// Naming what is missing.
    fn check(&self) -> Result<(), DatapathError>;

    /// Checks that a unit can be enforced as it is set up; changes nothing.
    ///
    /// # Errors
    /// Naming what does not fit.
    fn check_unit(&self, unit: &Enforcement) -> Result<(), Refused>;

    /// Opens it on the thread that will use it, adopting what an earlier process left in the kernel.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn open(self) -> Result<Self::Supervisor, DatapathError>;
}

/// What an enforcer is told besides secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcerSetup {
    /// Where token keys and epochs outlive a restart (0700).
    pub state_dir: PathBuf,
    /// Threads that check signatures.
    pub verify_threads: usize,
    /// The largest TAP payload that a token may fill.
    pub payload_limit: u16,
    /// Processing units.
    pub units: u32,
    /// Flows of protocols without connections.
    pub connections: u32,
    /// Peers, and tokens of them.
    pub peers: u32,
    /// Pair keys.
    pub pair_keys: u32,
    /// Destinations.
    pub destinations: u32,
}

/// The supervisor: programs the kernel to catch the packets of units, lets pass what the enforcer has admitted, and
/// puts packets on their way.
///
/// It lives on the enforcer's thread. Absence of an entry always means that the enforcer is asked.
pub trait Supervisor: Sized {
    /// Where a unit is caught.
    type Place: Clone + fmt::Debug + PartialEq;

    /// Whether what passes by itself never overtakes a packet that the enforcer has.
    const ONE_WAY: bool;

    /// Ends [`wait`](Self::wait) from another thread.
    fn waker(&self) -> Waker;

    /// Waits until a packet may be there, somebody wakes the thread, or the time is over.
    ///
    /// # Errors
    /// If waiting is not possible any more.
    fn wait(&mut self, time: Duration) -> Result<(), DatapathError>;

    /// Takes packets that wait, some at a time.
    fn take(&mut self, packets: &mut Vec<Packet>);

    /// Puts a taken packet back where it was taken, with the bytes it has now.
    fn pass(&mut self, packet: Packet);

    /// A taken packet, by its [`token`](Packet::token), does not go back.
    fn consume(&mut self, token: u64);

    /// Puts a packet that was never taken, or is consumed by now, on its way.
    fn emit(&mut self, pu: PuSlot, toward: Toward, bytes: Vec<u8>, gso_size: Option<u16>);

    /// Carries out what the three calls above were told, in order.
    fn put_back(&mut self) -> PutBack;

    /// What the table of connections holds.
    fn connection(&self, key: &FlowKey) -> Option<ConnectionEntry>;

    /// Lets a connection's segments pass, over whatever the table holds for it.
    ///
    /// # Errors
    /// [`NotInstalled`]; the enforcer goes on being asked then.
    fn install(&mut self, key: &FlowKey, entry: &ConnectionEntry) -> Result<(), NotInstalled>;

    /// Forgets a connection.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn remove(&mut self, key: &FlowKey) -> Result<(), Refused>;

    /// Takes a fact that helps to judge without the enforcer.
    ///
    /// # Errors
    /// If there is no room for it: the enforcer goes on being asked.
    fn teach(&mut self, lesson: &Lesson) -> Result<Taught, Refused>;

    /// Finds where a unit would be caught.
    ///
    /// # Errors
    /// If there is no such place.
    fn find(edge: &Edge) -> Result<Self::Place, Refused>;

    /// What the kernel holds from before, about all units and about this place.
    fn pinned(&self, place: &Self::Place) -> Pinned;

    /// Catches a unit's packets from here on; on an error a known one goes on as before.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn supervise(&mut self, unit: &Enforcement, at: &Line<'_, Self::Place>) -> Result<(), Refused>;

    /// A unit under a new epoch, everything else as it is.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    fn renew(&mut self, unit: &Enforcement, slot: PuSlot, epoch: u32) -> Result<(), Refused>;

    /// Stops catching a unit's packets and forgets everything about it.
    ///
    /// # Errors
    /// Naming what stays.
    fn release(&mut self, slot: PuSlot) -> Result<(), Refused>;

    /// Releases whatever belongs to none of these units.
    ///
    /// # Errors
    /// Naming what stays.
    fn release_strangers(&mut self, own: &[PuSlot]) -> Result<(), DatapathError>;

    /// Connections that a unit has open, as local and remote end.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn existing(&self, slot: PuSlot) -> Result<Vec<(SocketAddr, SocketAddr)>, Refused>;

    /// Lets a connection go on that was never judged.
    ///
    /// # Errors
    /// [`NotInstalled`].
    fn adopt(&mut self, key: &FlowKey) -> Result<(), NotInstalled>;

    /// Brings kernel and engine together, once after the start.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    fn settle(&mut self, engine: &mut Engine) -> Result<(), DatapathError>;

    /// Due every second: says that the agent lives.
    ///
    /// # Errors
    /// If the kernel cannot be told.
    fn beat(&mut self) -> Result<(), Refused>;

    /// Due every second: looks after what catches the packets and undoes others' changes to it.
    fn patrol(&mut self) -> Patrolled;

    /// Takes what was decided without the enforcer since the last call.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    fn take_events(&mut self, events: &mut Vec<BackendEvent>) -> Result<More, Refused>;

    /// Removes some dead connections; tells about those whose end nobody has told.
    ///
    /// # Errors
    /// If the kernel cannot be read.
    fn sweep(&mut self, time: Now, events: &mut Vec<BackendEvent>) -> Result<More, Refused>;

    /// The engine's counters as they were kept last.
    ///
    /// # Errors
    /// If they cannot be read.
    fn kept_counters(&self) -> Result<BTreeMap<(PuSlot, Reason), u64>, DatapathError>;

    /// Keeps counters of the engine's where they outlive this process.
    ///
    /// # Errors
    /// If that fails.
    fn keep_counters(&mut self, changed: &[(PuSlot, Reason, u64)]) -> Result<(), Refused>;

    /// What the kernel counted, by unit and name, never going back.
    ///
    /// # Errors
    /// If it cannot be read.
    fn counters(&self) -> Result<Vec<(Option<PuSlot>, String, u64)>, DatapathError>;

    /// Sizes and counts of its own, by name.
    fn gauges(&self) -> Vec<(&'static str, u64)>;

    /// What it is, in some words.
    fn detail(&self) -> String;

    /// Whether handshakes of known identities of this unit stay in the kernel.
    fn is_fast(&self, slot: PuSlot) -> bool;

    /// How safely a unit is caught at a place, and what is wrong with that; while it is there and undamaged.
    fn state_of(&self, place: &Self::Place) -> (EdgeState, Option<String>);

    /// What it means that a place is gone.
    fn gone(place: &Self::Place) -> String;
}

/// Wakes the enforcer's thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// Wakes by calling this.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// Where and under which numbers a unit is enforced.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a, P> {
    /// The number under which its packets are reported.
    pub slot: PuSlot,
    /// The version of policy and identity.
    pub epoch: u32,
    /// Where it is caught.
    pub place: &'a P,
    /// Whether this process enforces it already,
    pub known: bool,
    /// and at this very place, which is there.
    pub in_place: bool,
}

/// What the kernel holds from before.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// Epochs by slot.
    pub epochs: BTreeMap<u32, u32>,
    /// The slot of the place where a unit is to be caught: after a crash before the ledger was saved it is the only
    /// one to know.
    pub here: Option<u32>,
}

/// Why a connection is not in the table.
#[derive(Debug)]
pub enum NotInstalled {
    /// There is no room.
    Full,
    /// The kernel refused.
    Failed(Refused),
}

/// What a lesson changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taught {
    /// What is known about peers, which is worth keeping on the disk.
    Peers,
    /// Something else, or nothing.
    Other,
}

/// What became of packets that were put on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutBack {
    /// They are on it.
    pub sent: u64,
    /// They are lost.
    pub lost: u64,
}

/// Whether to call again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Something is left.
    Yes,
    /// Nothing is.
    No,
}

/// What a look after the units' edges found.
#[derive(Clone, Debug, Default)]
pub struct Patrolled {
    /// Units whose place is gone.
    pub vanished: Vec<PuSlot>,
    /// Others' changes.
    pub repairs: Vec<Repaired>,
}

/// A change by others to what catches a unit's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The unit.
    pub slot: PuSlot,
    /// What was found, as the beginning of a sentence.
    pub found: String,
    /// Why it cannot be undone.
    pub problem: Option<String>,
}

/// The end of a connection that nobody told: it fell silent, or its socket has gone.
pub(super) fn ended(key: &FlowKey, entry: &ConnectionEntry, traffic: Traffic, now: WallTime) -> BackendEvent {
    let (direction, port) = match entry.role {
        Role::Initiator => (Direction::Egress, entry.attested.map_or(key.remote.1, |(_, port)| port)),
        Role::Responder => (Direction::Ingress, key.local.1),
    };
    let known = entry.peer_slot != NO_PEER_SLOT;
    let peer = if known { PeerPlace::Known(entry.peer_slot, entry.peer_generation) } else { PeerPlace::None };
    BackendEvent {
        pu: key.pu,
        direction,
        peer,
        protocol: key.protocol,
        port,
        reason: Reason::Accepted,
        rule: None,
        local: key.local.0,
        remote: key.remote.0,
        starts: 0,
        refused: 0,
        ends: 1,
        traffic,
        first: now,
        last: now,
    }
}
