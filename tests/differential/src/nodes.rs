//! Engines: the one that is compared with the programs, and the one at the other end.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trireme_datapath::{
    Effect, Engine, EngineConfig, Hook, Lesson, Packet, PuSettings, PuSpec, Secrets, Toward, Verdict,
};
use trireme_flow::{BudgetConfig, ConnectionEntry, FlowKey, HalfOpenLimits, PuSlot, Reason};
use trireme_identity::TagSet;
use trireme_identity::time::{Instant, Now, WallTime};
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};
use trireme_token::Verifier;

/// An engine and its clock.
#[derive(Debug)]
pub struct Node {
    engine: Engine,
    verifier: Arc<Verifier>,
    now: Now,
    /// What it taught since somebody asked.
    pub(crate) lessons: Vec<Lesson>,
}

/// What an engine said about a packet.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// The bytes with which the packet goes on.
    pub(crate) passed: Option<Vec<u8>>,
    /// Why it does not.
    pub(crate) refused: Option<Reason>,
    /// What it wrote into the connection table, or removed from it.
    pub(crate) writes: Vec<(FlowKey, Option<ConnectionEntry>)>,
    /// How many segments it sent beside the packet.
    pub(crate) sent: usize,
}

/// How long the compared engine remembers handshakes: one packet is all that it judges on one state.
const MOMENT: Duration = Duration::from_millis(1);

const PLENTY: BudgetConfig = BudgetConfig { per_second: 1_000_000, burst: 1_000_000 };

fn generous() -> EngineConfig {
    let many = 1 << 20;
    let half_open =
        HalfOpenLimits { total: many, per_unit: many, per_source: many, completed_per_unit: many };
    EngineConfig { half_open, verify_source: PLENTY, verify_total: PLENTY, ..EngineConfig::default() }
}

impl Node {
    /// One that forgets handshakes at once: what a packet needs to know of them comes with it.
    pub(crate) fn judge(secrets: Secrets, seed: [u8; 32]) -> Self {
        let config = EngineConfig {
            initiator_timeout: MOMENT,
            responder_timeout: MOMENT,
            completed_timeout: MOMENT,
            hostile_timeout: MOMENT,
            ..generous()
        };
        Self::with(config, secrets, seed)
    }

    /// An ordinary one.
    pub(crate) fn peer(secrets: Secrets, seed: [u8; 32]) -> Self {
        Self::with(EngineConfig { token_lifetime_secs: 3600, ..generous() }, secrets, seed)
    }

    fn with(config: EngineConfig, secrets: Secrets, seed: [u8; 32]) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self {
            verifier: Arc::clone(&secrets.verifier),
            engine: Engine::new(config, secrets, seed).unwrap(),
            now: Now { monotonic: Instant(1_000_000_000), wall: WallTime(wall) },
            lessons: Vec::new(),
        }
    }

    pub(crate) fn upsert(&mut self, spec: PuSpec) {
        let mut effects = Vec::new();
        self.engine.upsert_pu(spec, self.now, &mut effects).unwrap();
        self.take(effects, None, &mut Reply::default());
    }

    /// Lets time pass, and what is due happen.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic + time;
        self.now.wall = self.now.wall.plus_secs(time.as_secs());
        let mut effects = Vec::new();
        self.engine.handle_timeout(self.now, &mut effects);
        self.take(effects, None, &mut Reply::default());
    }

    /// Forgets handshakes that it was told to forget.
    pub(crate) fn forget(&mut self) {
        self.wait(MOMENT * 2);
    }

    pub(crate) fn handle(&mut self, packet: Packet) -> Reply {
        let mut reply = Reply::default();
        let mut effects = Vec::new();
        let toward = Toward::from(packet.hook);
        match self.engine.handle_packet(packet, self.now, &mut effects) {
            Verdict::Pass(packet) => reply.passed = Some(packet.bytes),
            Verdict::Drop(reason) => reply.refused = Some(reason),
            Verdict::Held => {}
        }
        self.take(effects, Some(toward), &mut reply);
        reply
    }

    /// The same for a packet of which the back end knows nothing.
    pub(crate) fn handle_plain(&mut self, pu: PuSlot, hook: Hook, bytes: &[u8]) -> Reply {
        self.handle(Packet {
            pu,
            hook,
            bytes: bytes.to_vec(),
            gso_size: None,
            connection: None,
            half_open: None,
            renewal: false,
            token: 0,
        })
    }

    fn take(&mut self, effects: Vec<Effect>, toward: Option<Toward>, reply: &mut Reply) {
        for effect in effects {
            match effect {
                // What waited for a signature check goes on as a segment of its own.
                Effect::Transmit { toward: to, bytes, .. }
                    if Some(to) == toward && reply.passed.is_none() && reply.refused.is_none() =>
                {
                    reply.passed = Some(bytes);
                }
                Effect::Transmit { .. } => reply.sent += 1,
                Effect::Verify(job) => {
                    let done = job.run(&self.verifier);
                    let mut effects = Vec::new();
                    self.engine.handle_verified(done, self.now, &mut effects);
                    self.take(effects, toward, reply);
                }
                Effect::Install(key, entry) => reply.writes.push((key, Some(entry))),
                Effect::Remove(key) => reply.writes.push((key, None)),
                Effect::Teach(lesson) => self.lessons.push(lesson),
                Effect::Block(..) | Effect::Record(_) | Effect::ForgetConntrack(_) => {}
            }
        }
    }
}

/// Accepts peers of the role `friend` on these ports, both ways.
pub(crate) fn friends_only(ports: &[u16]) -> PuPolicy {
    let rules = || {
        let selector = Selector::new([Clause::equal("role", ["friend"])]);
        let services = Services::Only(ports.iter().map(|port| Service::tcp(*port)).collect());
        Ruleset::Rules(vec![Rule::new([selector], services, FlowPolicy::accept().named("web", "friends"))])
    };
    PuPolicy { ingress: rules(), egress: rules(), ..PuPolicy::unrestricted() }
}

pub(crate) fn spec(slot: PuSlot, role: &str, epoch: u32, policy: &PuPolicy) -> PuSpec {
    PuSpec {
        slot,
        id: format!("{role}-{}", slot.0).parse().unwrap(),
        tags: TagSet::parse([format!("role={role}").as_str(), "app=shop"]).unwrap(),
        policy: Arc::new(CompiledPolicy::compile(policy).unwrap()),
        epoch,
        settings: PuSettings::default(),
    }
}
