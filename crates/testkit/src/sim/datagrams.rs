//! Flows over UDP between two units: engines on a bad network with a translator and an attacker, one seed per run.
//!
//! No stack is needed: a client asks until it is answered, a server answers, and nobody else remembers anything but kernels
//! and engines.

mod attacker;
mod node;
mod plan;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trireme_datapath::{Hook, VerifyDone};
use trireme_wire::build;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::Datagram;
use trireme_wire::tap;
use trireme_wire::tuple::Endpoint;

use super::network::Link;
use super::trace::Detail;
use crate::clock::{VirtualClock, nanos_of};
use attacker::Attacker;
use node::{Node, Outcome};
pub use plan::{Plan, Verdict};

/// Which end.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

/// What a run showed.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Broken promises; empty is good.
    pub violations: Vec<String>,
    /// Datagrams that the units sent.
    pub sent: u64,
    /// Questions that had to be asked again.
    pub repeated: u64,
    /// Datagrams that reached units.
    pub delivered: u64,
    /// Exchanges of identities that both ends completed.
    pub exchanges: u64,
    /// Messages that the attacker put on the wire.
    pub forged: u64,
    /// A hash over every delivery.
    pub trace: u64,
    /// What happened, if that was asked for.
    pub lines: Vec<String>,
}

/// Runs the plan of a seed from the first question to empty tables.
#[must_use]
pub fn run_datagrams(seed: u64, detail: Detail) -> Outcomes {
    Run::new(Plan::generate(seed), detail).finish()
}

enum Event {
    /// A client asks, for the first time or again.
    Ask(u16),
    /// A packet reaches the other end's edge.
    Arrive(usize, Vec<u8>),
    /// A node's timers are due.
    Tick(usize),
    /// A signature check is done.
    Verified(usize, Box<VerifyDone>),
    /// The translator forgets and chooses other ports.
    Rebind,
    /// The attacker does something.
    Attack,
}

struct Scheduled(u64, u64, Event);

struct Run {
    plan: Plan,
    clock: VirtualClock,
    queue: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    nodes: [Node; 2],
    ticks: [Option<u64>; 2],
    link: Link,
    rng: ChaCha8Rng,
    attacker: Attacker,
    /// By client port: the port on the far side of the translator, if there is one.
    translated: BTreeMap<u16, u16>,
    next_port: u16,
    talks: BTreeMap<u16, Talk>,
    /// How often each datagram reached a unit.
    arrived: BTreeMap<Vec<u8>, u32>,
    report: Outcomes,
    detail: Detail,
}

/// What a client has asked and heard.
#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    round: u16,
    tries: u16,
}

/// More tries than any bad luck costs a flow that is admitted.
const MOST_TRIES: u16 = 60;
const SECOND: u64 = 1_000_000_000;

impl Run {
    fn new(plan: Plan, detail: Detail) -> Self {
        let seeded = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
            rng.set_stream(stream);
            rng
        };
        let mut run = Self {
            clock: VirtualClock::new(),
            queue: BinaryHeap::new(),
            number: 0,
            nodes: [Node::new(&plan, CLIENT), Node::new(&plan, SERVER)],
            ticks: [None, None],
            link: Link::new(plan.link, seeded(2)),
            rng: seeded(1),
            attacker: Attacker::new(seeded(3)),
            translated: BTreeMap::new(),
            next_port: 20_000,
            talks: plan.ports().map(|port| (port, Talk::default())).collect(),
            arrived: BTreeMap::new(),
            report: Outcomes::default(),
            plan,
            detail,
        };
        for port in run.plan.ports() {
            run.schedule(u64::from(port) * 1000, Event::Ask(port));
        }
        for at in run.plan.rebinds.clone() {
            run.schedule(at * SECOND, Event::Rebind);
        }
        for at in run.plan.attacks.clone() {
            run.schedule(nanos_of(at), Event::Attack);
        }
        run
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Scheduled(self.clock.nanos() + after, self.number, event)));
    }

    fn finish(mut self) -> Outcomes {
        while let Some(Reverse(Scheduled(at, _, event))) = self.queue.pop() {
            self.clock.advance_to(at);
            self.handle(event);
        }
        self.clock.advance_to(self.clock.nanos() + 600 * SECOND);
        for side in [CLIENT, SERVER] {
            self.tick(side);
            self.queue.clear();
            let left = self.nodes[side].left_over();
            if !left.is_empty() {
                self.report.violations.push(format!("left over at {side}: {left}"));
            }
        }
        self.check();
        self.report.exchanges = self.nodes.iter().map(Node::identities).min().unwrap_or_default();
        self.report
    }

    /// What must hold at the end.
    fn check(&mut self) {
        let violations = &mut self.report.violations;
        let data = self.arrived.keys().filter(|data| is_spoken(data));
        match self.plan.verdict {
            Verdict::DeniedByServer | Verdict::DeniedByClient | Verdict::NobodyThere => {
                violations.extend(data.map(|data| format!("denied, but delivered: {data:?}")));
            }
            Verdict::ByIdentity | Verdict::ByAddress => {
                for (port, talk) in &self.talks {
                    if talk.round < self.plan.rounds {
                        violations.push(format!("port {port} got no answer in round {}", talk.round));
                    }
                }
                if self.plan.link.is_lossless() && self.plan.rebinds.is_empty() {
                    // Identities cost time, and no datagram: neither at first nor after a silence.
                    if self.report.repeated > 0 && self.plan.attacks.is_empty() {
                        violations.push(format!("{} questions were lost", self.report.repeated));
                    }
                    let twice = self.arrived.iter().filter(|(data, count)| **count != 1 && is_spoken(data));
                    violations.extend(twice.map(|(data, count)| format!("{data:?} came {count} times")));
                }
            }
        }
        let forged = self.arrived.keys().filter(|data| tap::Header::parse(data).is_ok());
        violations.extend(forged.map(|_| "a message of enforcers reached a unit".to_owned()));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ask(port) => self.ask(port),
            Event::Arrive(side, packet) => self.at_edge(side, Hook::ToPu, packet),
            Event::Tick(side) => {
                if self.ticks[side].is_some_and(|at| at <= self.clock.nanos()) {
                    self.ticks[side] = None;
                    self.tick(side);
                }
            }
            Event::Verified(side, done) => {
                let outcomes = self.nodes[side].verified(*done, self.clock.now());
                self.carry_out(side, outcomes);
            }
            Event::Rebind => self.translated.clear(),
            Event::Attack => {
                for (side, packet) in self.attacker.strike(&self.plan, &self.translated) {
                    self.report.forged += 1;
                    self.at_edge(side, Hook::ToPu, packet);
                }
            }
        }
    }

    fn tick(&mut self, side: usize) {
        let outcomes = self.nodes[side].tick(self.clock.now());
        self.carry_out(side, outcomes);
    }

    /// The client asks once; until it is answered it asks again, then it rests and goes on with the next round.
    fn ask(&mut self, port: u16) {
        let Some(talk) = self.talks.get_mut(&port) else { return };
        if talk.round >= self.plan.rounds || talk.tries >= MOST_TRIES {
            return;
        }
        talk.tries += 1;
        self.report.repeated += u64::from(talk.tries > 1);
        let data = format!("ask {port} {} {}", talk.round, talk.tries);
        let packet = packet(self.plan.client(port), self.plan.server(), data.as_bytes());
        self.report.sent += 1;
        self.at_edge(CLIENT, Hook::FromPu, packet);
        let patience = nanos_of(self.plan.patience) + self.rng.random_range(0..SECOND / 2);
        self.schedule(patience, Event::Ask(port));
    }

    fn tell(&mut self, side: usize, what: &str, bytes: &[u8]) {
        if self.detail != Detail::Lines {
            return;
        }
        let Ok(datagram) = Datagram::parse(bytes) else { return };
        let data = datagram.udp_data(bytes);
        let said = match tap::Header::parse(data) {
            Ok(header) => format!("{:?} of {:02x}{:02x}", header.kind(), header.nonce[0], header.nonce[1]),
            Err(_) => String::from_utf8_lossy(data).into_owned(),
        };
        let end = if side == CLIENT { "client" } else { "server" };
        let now = self.clock.nanos() as f64 / 1e9;
        self.report.lines.push(format!("{now:10.3} {end} {what}: {} {said}", datagram.tuple()));
    }

    fn at_edge(&mut self, side: usize, hook: Hook, packet: Vec<u8>) {
        self.tell(side, if hook == Hook::FromPu { "unit sends" } else { "edge gets" }, &packet);
        let outcomes = self.nodes[side].at_edge(hook, packet, self.clock.now());
        self.carry_out(side, outcomes);
    }

    fn carry_out(&mut self, side: usize, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Put(Hook::FromPu, packet) => self.leave(side, packet),
                Outcome::Put(Hook::ToPu, packet) => self.deliver(side, &packet),
                Outcome::Verified(done) => {
                    let after = self.rng.random_range(0..SECOND / 100);
                    self.schedule(after, Event::Verified(side, done));
                }
            }
        }
        let now = self.clock.nanos();
        let Some(at) = self.nodes[side].next_tick() else { return };
        let at = at.max(now + 1000);
        if self.ticks[side].is_none_or(|planned| at < planned || planned <= now) {
            self.ticks[side] = Some(at);
            self.schedule(at - now, Event::Tick(side));
        }
    }

    fn leave(&mut self, side: usize, packet: Vec<u8>) {
        self.tell(side, "leaves", &packet);
        self.attacker.overhear(&packet);
        let Some(packet) = self.translate(side, packet) else { return };
        for copy in self.link.send(packet) {
            if let Some(packet) = copy.packet {
                self.schedule(copy.after, Event::Arrive(1 - side, packet));
            }
        }
    }

    /// The translator in front of the client: another address, and ports of its own choice.
    fn translate(&mut self, side: usize, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Some(outside) = self.plan.translator else { return Some(packet) };
        let datagram = Datagram::parse(&packet).ok()?;
        let (tuple, data) = (datagram.tuple(), datagram.udp_data(&packet).to_vec());
        if side == CLIENT {
            let next = &mut self.next_port;
            let port = *self.translated.entry(tuple.src.port).or_insert_with(|| {
                *next += 1;
                *next
            });
            return Some(self::packet(Endpoint::new(outside, port), tuple.dst, &data));
        }
        let inside = self.translated.iter().find(|(_, port)| **port == tuple.dst.port)?;
        Some(self::packet(tuple.src, self.plan.client(*inside.0), &data))
    }

    /// A unit's stack takes what has a right checksum; a server answers at once.
    fn deliver(&mut self, side: usize, bytes: &[u8]) {
        let Ok(datagram) = Datagram::parse(bytes) else { return };
        if checksum::verify_udp(bytes, &datagram) == Checksum::Invalid {
            return;
        }
        let data = datagram.udp_data(bytes).to_vec();
        if tap::is_tap(&data) && !self.plan.has_enforcer(side) {
            // Nobody takes them off: such an application sees what it does not understand.
            return;
        }
        self.report.delivered += 1;
        for byte in &data {
            self.report.trace = (self.report.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        *self.arrived.entry(data.clone()).or_insert(0) += 1;
        if side == SERVER {
            if let Some(question) = data.strip_prefix(b"ask") {
                let answer = [&b"answer"[..], question].concat();
                let packet = packet(self.plan.server(), datagram.tuple().src, &answer);
                self.report.sent += 1;
                self.at_edge(SERVER, Hook::FromPu, packet);
            }
            return;
        }
        self.heard(&data);
    }

    /// Any answer to the round's questions ends the round.
    fn heard(&mut self, data: &[u8]) {
        let text = String::from_utf8_lossy(data).into_owned();
        let mut words = text.split(' ');
        let (Some("answer"), Some(Ok(port)), Some(Ok(round))) =
            (words.next(), words.next().map(str::parse::<u16>), words.next().map(str::parse::<u16>))
        else {
            return;
        };
        let Some(talk) = self.talks.get_mut(&port).filter(|talk| talk.round == round) else { return };
        (talk.round, talk.tries) = (round + 1, 0);
        // The question that is planned already comes after the pause as well, or before it: as a client does.
        let pause = self.plan.pauses[usize::from(round) % self.plan.pauses.len()];
        self.queue.retain(|Reverse(next)| !matches!(next.2, Event::Ask(other) if other == port));
        self.schedule(nanos_of(pause), Event::Ask(port));
    }
}

/// Whether an application said it: the attacker's data is no promise of anybody's.
fn is_spoken(data: &[u8]) -> bool {
    data.starts_with(b"ask") || data.starts_with(b"answer")
}

/// A datagram as a stack sends it.
fn packet(from: Endpoint, to: Endpoint, data: &[u8]) -> Vec<u8> {
    build::udp(from, to, build::DEFAULT_HOP_LIMIT, data).expect("short datagrams can be built")
}

/// The same ends as tuples.
fn end(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(addr.parse::<IpAddr>().expect("a valid address"), port)
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}
