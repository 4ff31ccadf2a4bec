//! A node: the kernel's table of flows, and an engine behind it.

use std::collections::BTreeMap;

use trireme_datapath::{
    Block, Effect, Engine, EngineConfig, Hook, Packet, Secrets, Toward, Verdict, VerifyDone,
};
use trireme_flow::{ConnectionClass, ConnectionEntry, FlowEvent, FlowKey, Heard, PuSlot, Reason, idle_time};
use trireme_identity::time::{Instant, Now};
use trireme_token::{Encoding, Role};
use trireme_wire::datagram::Datagram;
use trireme_wire::tap;

use super::super::secrets::secrets;
use super::plan::Plan;
use crate::clock::VirtualClock;

const UNIT: PuSlot = PuSlot(1);

/// One end's node; without an enforcer everything passes.
pub(super) struct Node {
    engine: Option<Engine>,
    secrets: Secrets,
    table: BTreeMap<FlowKey, Held>,
    blocks: BTreeMap<FlowKey, (Block, Instant)>,
    identities: u64,
}

struct Held {
    entry: ConnectionEntry,
    last: Instant,
    heard: Heard,
}

/// What a node asks of the world.
pub(super) enum Outcome {
    /// Carry a packet on from this side of the edge.
    Put(Hook, Vec<u8>),
    /// Give the result back later.
    Verified(Box<VerifyDone>),
}

impl Node {
    pub(super) fn new(plan: &Plan, side: usize) -> Self {
        let secrets = secrets(plan.trust, side, Encoding::Cwt);
        let mut seed = [u8::try_from(side).unwrap_or(0); 32];
        seed[1..9].copy_from_slice(&plan.seed.to_be_bytes());
        let engine = plan.has_enforcer(side).then(|| {
            let mut engine = Engine::new(EngineConfig::default(), secrets.clone(), seed)
                .expect("default limits are valid");
            let now = VirtualClock::new().now();
            engine.upsert_pu(plan.unit(side), now, &mut Vec::new()).expect("one short tag fits a token");
            engine
        });
        Self { engine, secrets, table: BTreeMap::new(), blocks: BTreeMap::new(), identities: 0 }
    }

    /// Flows that were admitted by identity.
    pub(super) const fn identities(&self) -> u64 {
        self.identities
    }

    pub(super) fn at_edge(&mut self, hook: Hook, bytes: Vec<u8>, now: Now) -> Vec<Outcome> {
        // Timers that nothing else waits for are run when something happens.
        let mut outcomes = self.tick(now);
        let Some(engine) = &mut self.engine else { return vec![Outcome::Put(hook, bytes)] };
        let found = Datagram::parse(&bytes).ok().map(|datagram| {
            let tuple = datagram.tuple();
            let (local, remote) = match hook {
                Hook::FromPu => (tuple.src, tuple.dst),
                Hook::ToPu => (tuple.dst, tuple.src),
            };
            let key = FlowKey::new(UNIT, datagram.ip.protocol, local.into(), remote.into());
            (key, tap::is_tap(datagram.udp_data(&bytes)))
        });
        let mut connection = None;
        if let Some((key, is_tap)) = found {
            let idle = |held: &Held| now.monotonic.since(held.last) > idle_time(key.protocol, held.heard);
            if self.table.get(&key).is_some_and(idle) {
                self.table.remove(&key);
            }
            if let Some(held) = self.table.get_mut(&key) {
                connection = Some(held.entry);
                let answers = (held.entry.role == Role::Initiator) == (hook == Hook::ToPu);
                held.last = now.monotonic;
                if answers && !is_tap {
                    held.heard = Heard::Both;
                }
                if !is_tap {
                    outcomes.push(Outcome::Put(hook, bytes));
                    return outcomes;
                }
            } else if !is_tap && is_blocked(&self.blocks, &key, hook, now) {
                return outcomes;
            }
        }
        let packet = Packet {
            pu: UNIT,
            hook,
            bytes,
            gso_size: None,
            connection,
            half_open: None,
            renewal: false,
            token: 0,
        };
        let mut effects = Vec::new();
        let verdict = engine.handle_packet(packet, now, &mut effects);
        outcomes.extend(self.carry_out(effects, now));
        if let Verdict::Pass(packet) = verdict {
            outcomes.push(Outcome::Put(packet.hook, packet.bytes));
        }
        outcomes
    }

    pub(super) fn verified(&mut self, done: VerifyDone, now: Now) -> Vec<Outcome> {
        let mut effects = Vec::new();
        if let Some(engine) = &mut self.engine {
            engine.handle_verified(done, now, &mut effects);
        }
        self.carry_out(effects, now)
    }

    pub(super) fn tick(&mut self, now: Now) -> Vec<Outcome> {
        let mut effects = Vec::new();
        if let Some(engine) = &mut self.engine {
            engine.handle_timeout(now, &mut effects);
        }
        self.carry_out(effects, now)
    }

    pub(super) fn next_tick(&self) -> Option<u64> {
        // Rotation of tokens goes on for ever; a run does not.
        let stats = self.engine.as_ref()?.stats();
        let busy =
            stats.half_open + stats.waiting + stats.parked_packets + stats.verifications + stats.records;
        self.engine.as_ref()?.poll_timeout().map(|at| at.as_nanos()).filter(|_| busy > 0)
    }

    /// What an engine still keeps that time should have taken.
    pub(super) fn left_over(&self) -> String {
        let Some(engine) = &self.engine else { return String::new() };
        let stats = engine.stats();
        let left = [
            ("handshakes", stats.half_open),
            ("waiting datagrams", stats.waiting),
            ("parked packets", stats.parked_packets),
            ("verifications", stats.verifications),
        ];
        let left: Vec<_> =
            left.iter().filter(|(_, count)| *count > 0).map(|left| format!("{left:?}")).collect();
        left.join(", ")
    }

    fn carry_out(&mut self, effects: Vec<Effect>, now: Now) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for effect in effects {
            match effect {
                Effect::Transmit { toward: Toward::Network, bytes, .. } => {
                    outcomes.push(Outcome::Put(Hook::FromPu, bytes));
                }
                Effect::Transmit { toward: Toward::Pu, bytes, .. } => {
                    outcomes.push(Outcome::Put(Hook::ToPu, bytes));
                }
                Effect::Verify(job) => {
                    outcomes.push(Outcome::Verified(Box::new(job.run(&self.secrets.verifier))));
                }
                Effect::Install(key, entry) => {
                    self.blocks.remove(&key);
                    let heard = self.table.get(&key).map_or(Heard::Initiator, |held| held.heard);
                    self.table.insert(key, Held { entry, last: now.monotonic, heard });
                }
                Effect::Remove(key) => drop(self.table.remove(&key)),
                Effect::Block(key, block) => {
                    self.blocks.insert(key, (block, now.monotonic + block.lasts));
                }
                Effect::Record(record) => {
                    let admitted = record.event == FlowEvent::Decision && record.reason == Reason::Accepted;
                    let peer =
                        [&record.source, &record.destination].into_iter().any(|end| end.token.is_some());
                    self.identities += u64::from(admitted && peer) * record.count;
                }
                Effect::Teach(_) | Effect::ForgetConntrack(_) => {}
            }
        }
        debug_assert!(self.table.values().all(|held| held.entry.class != ConnectionClass::Adopted));
        outcomes
    }
}

fn is_blocked(blocks: &BTreeMap<FlowKey, (Block, Instant)>, key: &FlowKey, hook: Hook, now: Now) -> bool {
    let concerned = |block: &Block| (block.role == Role::Initiator) == (hook == Hook::FromPu);
    blocks.get(key).is_some_and(|(block, until)| concerned(block) && *until > now.monotonic)
}
