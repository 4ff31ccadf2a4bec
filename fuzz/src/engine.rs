//! Fuzz body for the engine: a sequence of packets at the edges of two units of one node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trireme_datapath::{
    Effect, Engine, EngineConfig, Hook, Packet, PuSettings, PuSpec, Secrets, Toward, Verdict,
};
use trireme_flow::{ConnectionEntry, FlowKey, PuSlot};
use trireme_identity::time::{Instant, Now, WallTime};
use trireme_identity::{Protocol, TagSet};
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};
use trireme_token::{Encoding, Psk, Signer, Verifier};
use trireme_wire::datagram::Datagram;
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::{ip, tap};

/// The unit that connects.
pub const CLIENT: PuSlot = PuSlot(1);
/// The unit that admits `role=frontend` on port 80.
pub const SERVER: PuSlot = PuSlot(2);

/// A node with an engine, a connection table and two units.
pub struct Node {
    engine: Engine,
    verifier: Arc<Verifier>,
    table: BTreeMap<FlowKey, ConnectionEntry>,
    now: Now,
}

/// Whatever arrives, a dropped packet is counted, what goes on is a packet, and no TAP reaches a unit's stack
/// in a SYN or SYN-ACK.
///
/// Input layout, repeated: edge 1 B (bit 0 unit, bit 1 hook, bits 2 to 7 pause in steps of 20 ms) | packet
/// length 2 B | packet.
pub fn engine(data: &[u8]) {
    let mut node = Node::new();
    let mut rest = data;
    while let [edge, high, low, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (bytes, behind) = more.split_at(len);
        rest = behind;
        node.wait(Duration::from_millis(20 * u64::from(edge >> 2)));
        let slot = if edge & 1 == 0 { CLIENT } else { SERVER };
        let hook = if edge & 2 == 0 { Hook::FromPu } else { Hook::ToPu };
        node.handle(slot, hook, bytes);
    }
}

impl Node {
    /// Builds the node; every run begins with the same keys and nonces.
    #[must_use]
    pub fn new() -> Self {
        let psk = || Psk::new(b"Wq7xKp2Lr9Tz4VbN8mHc").expect("a long key");
        let signer = Signer::psk("node-a".parse().expect("a node id"), psk());
        let verifier = Arc::new(Verifier::psk(psk()));
        let secrets =
            Secrets { signer: Arc::new(signer), verifier: Arc::clone(&verifier), encoding: Encoding::Cwt };
        let now = Now { monotonic: Instant(1_000_000_000), wall: WallTime(1_800_000_000) };
        let mut engine = Engine::new(EngineConfig::default(), secrets, [1; 32]).expect("an engine");
        for unit in
            [spec(CLIENT, "frontend", PuPolicy::unrestricted()), spec(SERVER, "backend", frontends_only())]
        {
            engine.upsert_pu(unit, now, &mut Vec::new()).expect("a unit");
        }
        Self { engine, verifier, table: BTreeMap::new(), now }
    }

    fn wait(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic + time;
        let mut effects = Vec::new();
        self.engine.handle_timeout(self.now, &mut effects);
        self.carry_out(effects);
    }

    /// Hands one packet to the engine and gives back what went on from there.
    pub fn handle(&mut self, pu: PuSlot, hook: Hook, bytes: &[u8]) -> Vec<Vec<u8>> {
        let connection = key(pu, hook, bytes).and_then(|key| self.table.get(&key).copied());
        let packet = Packet {
            pu,
            hook,
            bytes: bytes.to_vec(),
            gso_size: None,
            connection,
            half_open: None,
            renewal: false,
            token: 7,
        };
        let before: u64 = self.engine.stats().reasons.values().sum();
        let mut effects = Vec::new();
        let verdict = self.engine.handle_packet(packet, self.now, &mut effects);
        let mut sent = self.carry_out(effects);
        match verdict {
            Verdict::Pass(packet) => {
                assert_eq!((packet.pu, packet.hook, packet.token), (pu, hook, 7));
                check(packet.hook.into(), &packet.bytes);
                sent.push(packet.bytes);
            }
            Verdict::Drop(reason) => {
                let after: u64 = self.engine.stats().reasons.values().sum();
                assert!(after > before, "{reason:?} was not counted");
            }
            Verdict::Held => {}
        }
        sent
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Transmit { toward, bytes, .. } => {
                    check(toward, &bytes);
                    sent.push(bytes);
                }
                Effect::Verify(job) => {
                    let mut effects = Vec::new();
                    self.engine.handle_verified(job.run(&self.verifier), self.now, &mut effects);
                    sent.extend(self.carry_out(effects));
                }
                Effect::Install(key, entry) => drop(self.table.insert(key, entry)),
                Effect::Remove(key) => drop(self.table.remove(&key)),
                Effect::Block(..) | Effect::Record(_) | Effect::Teach(_) | Effect::ForgetConntrack(_) => {}
            }
        }
        sent
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

fn check(toward: Toward, bytes: &[u8]) {
    assert!(ip::Packet::parse(bytes).is_ok(), "what goes on is a packet");
    if let (Toward::Pu, Ok(datagram)) = (toward, Datagram::parse(bytes))
        && let Ok(header) = tap::Header::parse(datagram.udp_data(bytes))
    {
        assert_ne!(header.protocol(), Protocol::UDP, "TAP reached the unit");
    }
    if let (Toward::Pu, Ok(segment)) = (toward, Segment::parse(bytes))
        && segment.flags.contains(Flags::SYN)
    {
        assert!(!segment.payload(bytes).starts_with(&tap::MAGIC), "TAP reached the unit");
    }
}

fn key(pu: PuSlot, hook: Hook, bytes: &[u8]) -> Option<FlowKey> {
    let (protocol, tuple) = match Segment::parse(bytes) {
        Ok(segment) => (Protocol::TCP, segment.tuple()),
        Err(_) => {
            let datagram = Datagram::parse(bytes).ok()?;
            (datagram.ip.protocol, datagram.tuple())
        }
    };
    let (local, remote) = match hook {
        Hook::FromPu => (tuple.src, tuple.dst),
        Hook::ToPu => (tuple.dst, tuple.src),
    };
    Some(FlowKey::new(pu, protocol, local.into(), remote.into()))
}

fn spec(slot: PuSlot, role: &str, policy: PuPolicy) -> PuSpec {
    PuSpec {
        slot,
        id: role.parse().expect("a unit id"),
        tags: TagSet::parse([format!("role={role}").as_str()]).expect("tags"),
        policy: Arc::new(CompiledPolicy::compile(&policy).expect("a policy")),
        epoch: 1,
        settings: PuSettings::default(),
    }
}

fn frontends_only() -> PuPolicy {
    let rule = Rule::new(
        [Selector::new([Clause::equal("role", ["frontend"])])],
        Services::Only(vec![Service::tcp(80)]),
        FlowPolicy::accept().named("web", "frontends"),
    );
    PuPolicy { ingress: Ruleset::Rules(vec![rule]), ..PuPolicy::unrestricted() }
}
