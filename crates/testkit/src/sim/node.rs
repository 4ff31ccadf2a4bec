//! A node: a kernel table and an engine in front of one or more hosts, with a queue between them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use trireme_datapath::{
    Effect, Engine, EngineConfig, EngineStats, Hook, Packet, PuSpec, Secrets, Toward, Verdict, VerifyDone,
};
use trireme_flow::PuSlot;
use trireme_identity::time::Now;

use super::fast_path::{Fast, FastPath};
use super::kernel_model::{KernelModel, KernelVerdict, flow_key};
use super::properties::Violation;
use super::scenario::{OUTSIDE, Scenario};
use super::secrets::secrets;
use super::units::{slot, unit};
use crate::clock::{VirtualClock, nanos_of};
use crate::packets::{self, Sum, TcpView};

/// A node of the simulation.
pub struct Node {
    engine: Engine,
    kernel: KernelModel,
    /// None: every handshake goes to the engine.
    fast: Option<FastPath>,
    secrets: Secrets,
    units: Vec<PuSpec>,
    queue: VecDeque<Packet>,
    ready_at: u64,
    punt_latency: u64,
    verify_latency: u64,
    hosts_offload: bool,
    verifications: u64,
}

/// What the kernel at a unit's edge does with a packet.
pub(super) enum Edge {
    /// It goes on.
    Passed(Vec<u8>),
    /// It ends here.
    Dropped(Vec<u8>),
    /// The engine will have it at this time.
    Asked(u64),
}

/// What a node asks of the world.
pub(super) enum Outcome {
    /// Carry a packet on from the host's edge.
    Put { host: usize, hook: Hook, packet: Vec<u8> },
    /// Give the result back later.
    Verified { after: u64, done: Box<VerifyDone> },
    /// Write down what happened.
    Note { host: usize, what: String, packet: Option<Vec<u8>> },
    /// A promise was broken.
    Violated(Violation),
}

impl Node {
    /// The nodes of a scenario with their units.
    pub(super) fn all(scenario: &Scenario) -> Vec<Self> {
        let count = scenario.nodes.iter().flatten().max().map_or(0, |last| last + 1);
        (0..count).map(|index| Self::new(scenario, index)).collect()
    }

    fn new(scenario: &Scenario, index: usize) -> Self {
        let secrets = secrets(scenario.trust, index, scenario.encodings[index]);
        let mut seed = scenario.engine_seed;
        seed[0] ^= u8::try_from(index).unwrap_or(0);
        let config = config(scenario);
        let now = VirtualClock::new().now();
        let mut engine = Engine::new(config, secrets.clone(), seed).expect("default limits are valid");
        let mut kernel = KernelModel::new(scenario.closing_capacity);
        let hosts = (0..OUTSIDE).filter(|host| scenario.nodes[*host] == Some(index));
        let units: Vec<PuSpec> = hosts.map(|host| unit(scenario, host)).collect();
        let mut effects = Vec::new();
        for spec in &units {
            engine.upsert_pu(spec.clone(), now, &mut effects).expect("three short tags fit a token");
            kernel.set_epoch(spec.slot, spec.epoch);
        }
        let fast = scenario.fast_path.then(|| FastPath::new(u8::try_from(index).unwrap_or(0)));
        let mut node = Self {
            engine,
            kernel,
            fast,
            secrets,
            units,
            queue: VecDeque::new(),
            ready_at: 0,
            punt_latency: nanos_of(scenario.punt_latency),
            verify_latency: nanos_of(scenario.verify_latency),
            hosts_offload: scenario.hosts.iter().any(|host| host.offload),
            verifications: 0,
        };
        node.carry_out(effects, &mut Vec::new());
        node
    }

    /// The kernel's decision: the packet, or when the engine will have it.
    pub(super) fn at_edge(
        &mut self,
        host: usize,
        hook: Hook,
        packet: Vec<u8>,
        now: Now,
        rng: &mut ChaCha8Rng,
    ) -> Edge {
        let pu = slot(host);
        let (connection, half_open, renewal) = match self.fast_path(pu, hook, &packet, now) {
            Fast::Pass(packet) => return Edge::Passed(packet),
            Fast::Drop => return Edge::Dropped(packet),
            Fast::Ask(half_open, renewal) => {
                let key = TcpView::parse(&packet).map(|view| flow_key(pu, hook, &view));
                (key.and_then(|key| self.kernel.get(&key)), half_open, renewal)
            }
            Fast::Table => match self.kernel.classify(pu, hook, &packet) {
                KernelVerdict::Pass => return Edge::Passed(packet),
                KernelVerdict::Punt(connection) => (connection, None, false),
            },
        };
        let (bytes, gso_size, token) = (packet, None, 0);
        self.queue.push_back(Packet { pu, hook, bytes, gso_size, connection, half_open, renewal, token });
        let arrival = now.monotonic.as_nanos() + rng.random_range(0..=self.punt_latency);
        // One ring, worked off in order.
        self.ready_at = self.ready_at.max(arrival) + 1;
        Edge::Asked(self.ready_at)
    }

    fn fast_path(&mut self, pu: PuSlot, hook: Hook, packet: &[u8], now: Now) -> Fast {
        match &mut self.fast {
            Some(fast) => fast.judge(&mut self.kernel, pu, hook, packet, now),
            None => Fast::Table,
        }
    }

    /// Connections that began without the engine: as initiator, as responder.
    pub(super) fn completed(&self) -> [u64; 2] {
        self.fast.as_ref().map_or([0; 2], |fast| fast.completed)
    }

    /// Lets the engine judge the packet that has waited longest.
    pub(super) fn take_next(&mut self, now: Now) -> Vec<Outcome> {
        let Some(packet) = self.queue.pop_front() else { return Vec::new() };
        let (host, hook) = (host_of(packet.pu), packet.hook);
        let arrived = packet.bytes.clone();
        let mut effects = Vec::new();
        let verdict = self.engine.handle_packet(packet, now, &mut effects);
        let what = match &verdict {
            Verdict::Pass(_) => format!("engine passes {}", way(hook)),
            Verdict::Drop(reason) => format!("engine drops {} {reason}", way(hook)),
            Verdict::Held => format!("engine holds {}", way(hook)),
        };
        let mut outcomes = vec![Outcome::Note { host, what, packet: Some(arrived.clone()) }];
        self.carry_out(effects, &mut outcomes);
        if let Verdict::Pass(packet) = verdict {
            if is_worse(&arrived, &packet.bytes) {
                let what = format!(
                    "{} became {}",
                    super::trace::describe(&arrived),
                    super::trace::describe(&packet.bytes)
                );
                outcomes.push(Outcome::Violated(Violation::BadChecksum(what)));
            }
            outcomes.push(Outcome::Put { host, hook, packet: packet.bytes });
        }
        outcomes
    }

    pub(super) fn tick(&mut self, now: Now) -> Vec<Outcome> {
        let mut effects = Vec::new();
        self.engine.handle_timeout(now, &mut effects);
        let mut outcomes = Vec::new();
        self.carry_out(effects, &mut outcomes);
        outcomes
    }

    pub(super) fn verified(&mut self, done: VerifyDone, now: Now) -> Vec<Outcome> {
        let mut effects = Vec::new();
        self.engine.handle_verified(done, now, &mut effects);
        let mut outcomes = Vec::new();
        self.carry_out(effects, &mut outcomes);
        outcomes
    }

    /// Gives every unit a new epoch with the policy it has.
    pub(super) fn reload(&mut self, now: Now) {
        for spec in &mut self.units {
            spec.epoch += 1;
        }
        self.upsert_all(now);
    }

    fn upsert_all(&mut self, now: Now) {
        let mut effects = Vec::new();
        for spec in &self.units {
            self.engine.upsert_pu(spec.clone(), now, &mut effects).expect("the unit was taken on before");
            self.kernel.set_epoch(spec.slot, spec.epoch);
        }
        self.carry_out(effects, &mut Vec::new());
    }

    /// Stops the engine and starts another with the same tokens and peers; the kernel's tables stay, what the old engine
    /// held or was checking is lost.
    pub(super) fn restart(&mut self, scenario: &Scenario, now: Now) {
        let tokens = self.engine.export_tokens().expect("own tokens can be written");
        let peers = self.engine.export_peers().expect("peers can be written");
        let mut seed = scenario.engine_seed;
        seed[1] ^= 0xff;
        self.engine =
            Engine::new(config(scenario), self.secrets.clone(), seed).expect("default limits are valid");
        self.engine.import_tokens(&tokens).expect("the tokens were just written");
        self.engine.import_peers(&peers, now).expect("the peers were just written");
        if let Some(fast) = &mut self.fast {
            self.engine.reserve_peers(fast.places());
            fast.keep_peers(|token, place, generation| self.engine.knows_peer(token, place, generation));
        }
        self.upsert_all(now);
    }

    /// Gives the unit on `host` the policy that follows from the scenario as it stands.
    pub(super) fn replace_policy(&mut self, scenario: &Scenario, host: usize, now: Now) {
        for spec in self.units.iter_mut().filter(|spec| spec.slot == slot(host)) {
            spec.policy = unit(scenario, host).policy;
            spec.epoch += 1;
        }
        self.upsert_all(now);
    }

    /// Forgets connections whose sockets are gone; tells how many.
    pub(super) fn collect(&mut self, is_gone: impl Fn(usize, (IpAddr, u16), (IpAddr, u16)) -> bool) -> usize {
        self.kernel.collect(|key| is_gone(host_of(key.pu), key.local, key.remote))
    }

    /// When the engine wants to be called.
    pub(super) fn next_tick(&self) -> Option<u64> {
        self.engine.poll_timeout().map(|at| at.as_nanos())
    }

    /// Every table that is not empty and every packet that is still kept.
    pub(super) fn left_over(&self) -> Vec<String> {
        let EngineStats {
            half_open,
            held_packets,
            held_bytes,
            parked_packets,
            verifications,
            records,
            fragmented,
            fragments_held,
            waiting,
            // Caches with a fixed capacity, filled on purpose.
            flows: _,
            peers: _,
            pair_keys: _,
            tokens: _,
            records_lost: _,
            reasons: _,
        } = self.engine.stats();
        [
            ("handshakes", half_open),
            ("held packets", held_packets),
            ("held bytes", held_bytes),
            ("parked packets", parked_packets),
            ("verifications", verifications),
            ("records", records),
            ("fragmented packets", fragmented),
            ("held fragments", fragments_held),
            ("waiting datagrams", waiting),
            ("connections", self.kernel.len()),
            ("queued packets", self.queue.len()),
        ]
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect()
    }

    fn carry_out(&mut self, effects: Vec<Effect>, outcomes: &mut Vec<Outcome>) {
        for effect in effects {
            match effect {
                Effect::Transmit { pu, toward, bytes, gso_size: _ } => {
                    self.transmit(pu, toward, bytes, outcomes)
                }
                Effect::Verify(job) => {
                    // Spread, but not by a draw: the order of packets must not depend on how often keys are new.
                    self.verifications += 1;
                    let after = self.verify_latency * (1 + self.verifications % 3) / 3;
                    let done = Box::new(job.run(&self.secrets.verifier));
                    outcomes.push(Outcome::Verified { after, done });
                }
                Effect::Install(key, entry) => {
                    let what = format!("installs {:?} -> {:?}, {:?}", key.local, key.remote, entry.role);
                    outcomes.push(Outcome::Note { host: host_of(key.pu), what, packet: None });
                    self.kernel.install(key, entry);
                }
                Effect::Remove(key) => {
                    let what = format!("removes {:?} -> {:?}", key.local, key.remote);
                    outcomes.push(Outcome::Note { host: host_of(key.pu), what, packet: None });
                    self.kernel.remove(&key);
                }
                Effect::Teach(lesson) => {
                    if let Some(fast) = &mut self.fast {
                        fast.learn(lesson);
                    }
                }
                Effect::Block(..) | Effect::Record(_) | Effect::ForgetConntrack(_) => {}
            }
        }
    }

    fn transmit(&self, pu: PuSlot, toward: Toward, packet: Vec<u8>, outcomes: &mut Vec<Outcome>) {
        let (host, hook) = match toward {
            Toward::Pu => (host_of(pu), Hook::ToPu),
            Toward::Network => (host_of(pu), Hook::FromPu),
        };
        let sum = packets::tcp_sum(&packet);
        let is_wrong = sum == Some(Sum::Invalid)
            || (sum == Some(Sum::Partial) && !self.hosts_offload)
            || !packets::ip_header_valid(&packet);
        if is_wrong {
            let what = format!("emitted {}", super::trace::describe(&packet));
            outcomes.push(Outcome::Violated(Violation::BadChecksum(what)));
        }
        let what = format!("engine emits {}", way(hook));
        outcomes.push(Outcome::Note { host, what, packet: Some(packet.clone()) });
        outcomes.push(Outcome::Put { host, hook, packet });
    }
}

/// The defaults, but handshakes are remembered over the pauses of the simulated stacks: smoltcp repeats a SYN-ACK
/// for ever and every 60 s, and some may be lost in a row; Linux stops after 31 s.
fn config(scenario: &Scenario) -> EngineConfig {
    let longest_pause = Duration::from_secs(300);
    EngineConfig {
        known_tokens: scenario.known_tokens,
        initiator_timeout: longest_pause,
        responder_timeout: longest_pause,
        completed_timeout: longest_pause,
        ..EngineConfig::default()
    }
}

/// Whether a packet left with a worse checksum than it came with, or was changed although it came damaged.
fn is_worse(arrived: &[u8], passed: &[u8]) -> bool {
    if !packets::ip_header_valid(arrived) || packets::tcp_sum(arrived) == Some(Sum::Invalid) {
        return arrived != passed;
    }
    match (packets::tcp_sum(arrived), packets::tcp_sum(passed)) {
        (_, Some(Sum::Invalid)) | (Some(Sum::Valid), Some(Sum::Partial)) => true,
        _ => !packets::ip_header_valid(passed),
    }
}

fn host_of(pu: PuSlot) -> usize {
    usize::try_from(pu.0).unwrap_or(usize::MAX).saturating_sub(1)
}

const fn way(hook: Hook) -> &'static str {
    match hook {
        Hook::FromPu => "out",
        Hook::ToPu => "in",
    }
}
