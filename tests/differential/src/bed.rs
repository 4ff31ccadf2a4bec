//! A plane in a namespace of its own, whose programs run on frames that never see a network.

use std::time::{Duration, Instant};

use trireme::datapath::bpf::testing;
use trireme_bpf::{
    Connection, CounterSet, Edge, FlowKey, HalfOpen, Hook, Limits, Plane, PlaneConfig, PuState, PuntReason,
    Sizes, Slot,
};
use trireme_flow::ConnectionEntry;
use trireme_netns::{Links, Namespace};

/// The one unit of the bed.
pub(crate) const PU: Slot = Slot(5);

const PASS: i32 = -1;
const DROP: i32 = 2;
const CONSUMED: i32 = 7;

/// More than any run needs.
const PLENTY: u64 = 1 << 40;

/// A plane, its one unit, and the agent's signs of life.
#[derive(Debug)]
pub struct Bed {
    plane: Option<Plane>,
    instance: String,
    ifindex: u32,
    beaten: Instant,
}

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It goes on, with these bytes.
    Passed(Vec<u8>),
    /// It does not.
    Dropped,
    /// The engine is asked.
    Punted(Box<Punted>),
}

/// What a record of the ring says.
#[derive(Clone, Debug, PartialEq)]
pub struct Punted {
    /// Why.
    pub reason: PuntReason,
    /// The handshake handed over.
    pub half_open: Option<HalfOpen>,
    /// What the connection table held.
    pub connection: Option<ConnectionEntry>,
    /// The packet.
    pub bytes: Vec<u8>,
}

impl Bed {
    /// Runs `work` on a thread inside a new namespace, with a plane there.
    ///
    /// # Panics
    /// Without root, or if `work` does.
    pub fn run<T: Send>(work: impl FnOnce(&mut Self) -> T + Send) -> T {
        let namespace = Namespace::anonymous().expect("root is needed");
        namespace.run(|| work(&mut Self::open())).unwrap()
    }

    fn open() -> Self {
        let instance = format!("differential-{}", std::process::id());
        let links = Links::connect().unwrap();
        let (link, _) = links.create_veth("host0", "inside0").unwrap();
        let mut config = PlaneConfig::new(&instance);
        config.sizes = Sizes { pus: 16, handshakes: 1 << 17, ..Sizes::default() };
        config.limits = Limits {
            from_pu_per_sec: PLENTY,
            to_pu_per_sec: PLENTY,
            icmp_per_sec: PLENTY,
            unknown_per_sec: PLENTY,
            unknown_per_source_per_sec: PLENTY,
            half_open: PLENTY,
        };
        let plane = Plane::open(config).unwrap();
        Self { plane: Some(plane), instance, ifindex: link.index, beaten: Instant::now() }
    }

    pub(crate) fn plane(&mut self) -> &mut Plane {
        self.plane.as_mut().expect("it is open until the end")
    }

    /// Attaches the unit anew: of what its programs remembered, nothing is found again.
    pub(crate) fn attach_anew(&mut self, state: PuState) {
        if !self.plane().edges().is_empty() {
            self.plane().detach(PU).unwrap();
        }
        for (token, _) in self.plane().peers().unwrap() {
            self.plane().peer_remove(&token).unwrap();
        }
        self.plane().attach(&Edge::Interface("host0".to_owned()), PU, state).unwrap();
    }

    /// Runs the program of a hook on an IP packet.
    ///
    /// # Panics
    /// If the kernel refuses, or a verdict and the ring do not fit each other.
    pub fn send(&mut self, hook: Hook, gso_size: u16, packet: &[u8]) -> Outcome {
        self.keep_alive();
        let name = match hook {
            Hook::FromPu => "from_pu",
            Hook::ToPu => "to_pu",
        };
        let (verdict, frame) = self.run_program(name, gso_size, &frame(packet));
        if verdict == CONSUMED
            && let Some(punted) = self.punted()
        {
            return Outcome::Punted(Box::new(punted));
        }
        match verdict {
            PASS => Outcome::Passed(frame[14..].to_vec()),
            DROP | CONSUMED => Outcome::Dropped,
            other => panic!("verdict {other} of {name}"),
        }
    }

    /// Runs any program on a frame.
    ///
    /// # Panics
    /// If there is none or the kernel refuses.
    pub fn run_program(&mut self, name: &'static str, gso_size: u16, frame: &[u8]) -> (i32, Vec<u8>) {
        let ifindex = self.ifindex;
        self.plane().test_run_program(name, ifindex, gso_size, frame).unwrap()
    }

    /// The programs' own counters of the unit, since it was attached.
    pub(crate) fn counters(&mut self) -> CounterSet {
        let counters = self.plane().counters().unwrap();
        counters.into_iter().find(|(slot, _)| *slot == Some(PU)).unwrap().1
    }

    fn punted(&mut self) -> Option<Punted> {
        let mut punted = None;
        let count = self.plane().drain(16, |punt| {
            punted = Some(Punted {
                reason: punt.reason,
                half_open: punt.half_open,
                connection: punt.connection.map(|(connection, _)| testing::entry(&connection)),
                bytes: punt.bytes.to_vec(),
            });
        });
        assert!(count <= 1, "one packet, {count} records");
        punted
    }

    /// Due every second: from three seconds of silence on the programs do without the agent.
    fn keep_alive(&mut self) {
        if self.beaten.elapsed() > Duration::from_millis(500) {
            self.beaten = Instant::now();
            self.plane().beat().unwrap();
            while self.plane().take_events(|_| {}).unwrap() {}
        }
    }

    pub(crate) fn connection(&mut self, key: &FlowKey) -> Option<ConnectionEntry> {
        let found: Option<(Connection, _)> = self.plane().connection(key).unwrap();
        found.map(|(connection, _)| testing::entry(&connection))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.plane.take());
        let left = Plane::cleanup("/sys/fs/bpf".as_ref(), &self.instance);
        if !std::thread::panicking() {
            left.unwrap();
        }
    }
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind, packet].concat()
}
