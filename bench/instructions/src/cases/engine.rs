//! The engine's part of a handshake: two engines on a wire, the segment in question handled inside the measured section.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use trireme_datapath::{
    Effect, Engine, EngineConfig, Hook, Packet, PuSettings, PuSpec, Secrets, Toward, Verdict,
};
use trireme_flow::{ConnectionEntry, FlowKey, PuSlot};
use trireme_identity::time::{Instant, Now, WallTime};
use trireme_identity::{NodeId, TagSet};
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};
use trireme_token::{Encoding, Psk, Signer, Verifier};
use trireme_wire::build::{TcpSpec, tcp};
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::tuple::Endpoint;

use super::{CALLS, measured_section};

const PSK: &[u8] = b"Wq7xKp2Lr9Tz4VbN8mHc";
const NOW: Now = Now { monotonic: Instant(1_000_000_000), wall: WallTime(1_800_000_000) };
const SYN_ACK_SEQ: u32 = 5000;
/// MSS 1460, window scale 7, timestamps.
const OPTIONS: [u8; 20] = [2, 4, 5, 180, 1, 3, 3, 7, 1, 1, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0];

/// A segment of the handshake between identities that know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// SYN at the initiator's edge.
    SynFrom,
    /// SYN at the responder's edge.
    SynTo,
    /// SYN-ACK at the responder's edge.
    SynAckFrom,
    /// SYN-ACK at the initiator's edge.
    SynAckTo,
    /// First ACK at the initiator's edge.
    AckFrom,
    /// First ACK at the responder's edge.
    AckTo,
}

/// Counts one step of handshakes between identities that know each other.
pub(super) fn known(counted: Step) -> anyhow::Result<()> {
    let mut pair = Pair::new()?;
    pair.handshake(0, None)?;
    for number in 1..=CALLS {
        pair.handshake(u16::try_from(number)?, Some(counted))?;
    }
    Ok(())
}

/// Counts the SYN of a peer that the responder has never heard of, up to the check of its token.
pub(super) fn first_syn() -> anyhow::Result<()> {
    for _ in 0..CALLS {
        let mut pair = Pair::new()?;
        let wire = pair.client.forward(Hook::FromPu, syn(0)?, false)?;
        let packet = pair.server.packet(Hook::ToPu, wire)?;
        let engine = &mut pair.server.engine;
        let mut effects = Vec::new();
        let verdict = measured_section(|| engine.handle_packet(packet, NOW, &mut effects));
        if !matches!(verdict, Verdict::Held) {
            bail!("a first SYN was not held: {verdict:?}");
        }
    }
    Ok(())
}

/// Counts a segment that belongs to nothing.
pub(super) fn stray() -> anyhow::Result<()> {
    let mut pair = Pair::new()?;
    for number in 0..CALLS {
        let packet = pair.server.packet(Hook::ToPu, ack(u16::try_from(number)?)?)?;
        let engine = &mut pair.server.engine;
        let mut effects = Vec::new();
        let verdict = measured_section(|| engine.handle_packet(packet, NOW, &mut effects));
        if !matches!(verdict, Verdict::Drop(_)) {
            bail!("a stray segment was not dropped: {verdict:?}");
        }
    }
    Ok(())
}

struct Pair {
    client: Node,
    server: Node,
}

struct Node {
    engine: Engine,
    verifier: Arc<Verifier>,
    table: BTreeMap<FlowKey, ConnectionEntry>,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let policy = PuPolicy::unrestricted();
        let client = Node::new("node-a", 1, "role=frontend", &policy)?;
        let frontends = Selector::new([Clause::equal("role", ["frontend"])]);
        let services = Services::Only(vec![Service::tcp(80)]);
        let rule = Rule::new([frontends], services, FlowPolicy::accept().named("web", "frontends"));
        let policy = PuPolicy { ingress: Ruleset::Rules(vec![rule]), ..policy };
        Ok(Self { client, server: Node::new("node-b", 2, "role=backend", &policy)? })
    }

    fn handshake(&mut self, number: u16, counted: Option<Step>) -> anyhow::Result<()> {
        let is = |step| counted == Some(step);
        let wire = self.client.forward(Hook::FromPu, syn(number)?, is(Step::SynFrom))?;
        self.server.forward(Hook::ToPu, wire, is(Step::SynTo))?;
        let wire = self.server.forward(Hook::FromPu, syn_ack(number)?, is(Step::SynAckFrom))?;
        self.client.forward(Hook::ToPu, wire, is(Step::SynAckTo))?;
        let wire = self.client.forward(Hook::FromPu, ack(number)?, is(Step::AckFrom))?;
        self.server.forward(Hook::ToPu, wire, is(Step::AckTo)).map(drop)
    }
}

impl Node {
    fn new(name: &str, seed: u8, tag: &str, policy: &PuPolicy) -> anyhow::Result<Self> {
        let node: NodeId = name.parse().context("a node's name")?;
        let verifier = Arc::new(Verifier::psk(Psk::new(PSK)?));
        let secrets = Secrets {
            signer: Arc::new(Signer::psk(node, Psk::new(PSK)?)),
            verifier: Arc::clone(&verifier),
            encoding: Encoding::Cwt,
        };
        let mut engine = Engine::new(EngineConfig::default(), secrets, [seed; 32])?;
        let spec = PuSpec {
            slot: PuSlot(1),
            id: name.parse().context("a unit's name")?,
            tags: TagSet::parse([tag]).context("a tag")?,
            policy: Arc::new(CompiledPolicy::compile(policy)?),
            epoch: 1,
            settings: PuSettings::default(),
        };
        engine.upsert_pu(spec, NOW, &mut Vec::new())?;
        Ok(Self { engine, verifier, table: BTreeMap::new() })
    }

    fn packet(&self, hook: Hook, bytes: Vec<u8>) -> anyhow::Result<Packet> {
        let tuple = Segment::parse(&bytes)?.tuple();
        let (local, remote) = match hook {
            Hook::FromPu => (tuple.src, tuple.dst),
            Hook::ToPu => (tuple.dst, tuple.src),
        };
        let key = FlowKey::tcp(PuSlot(1), local.into(), remote.into());
        Ok(Packet {
            pu: PuSlot(1),
            hook,
            bytes,
            gso_size: None,
            connection: self.table.get(&key).copied(),
            half_open: None,
            renewal: false,
            token: 0,
        })
    }

    /// What leaves on the other side, checks of tokens done at once.
    fn forward(&mut self, hook: Hook, bytes: Vec<u8>, counted: bool) -> anyhow::Result<Vec<u8>> {
        let packet = self.packet(hook, bytes)?;
        let engine = &mut self.engine;
        let mut effects = Vec::new();
        let verdict = if counted {
            measured_section(|| engine.handle_packet(packet, NOW, &mut effects))
        } else {
            engine.handle_packet(packet, NOW, &mut effects)
        };
        let passed = match verdict {
            Verdict::Pass(packet) => Some(packet.bytes),
            Verdict::Held => None,
            Verdict::Drop(reason) => bail!("dropped: {reason:?}"),
        };
        let toward = match hook {
            Hook::FromPu => Toward::Network,
            Hook::ToPu => Toward::Pu,
        };
        let sent = self.carry_out(effects, toward);
        passed.or(sent).context("nothing left")
    }

    fn carry_out(&mut self, effects: Vec<Effect>, wanted: Toward) -> Option<Vec<u8>> {
        let mut sent = None;
        for effect in effects {
            match effect {
                Effect::Transmit { toward, bytes, .. } if toward == wanted => sent = Some(bytes),
                Effect::Verify(job) => {
                    let done = job.run(&self.verifier);
                    let mut effects = Vec::new();
                    self.engine.handle_verified(done, NOW, &mut effects);
                    sent = self.carry_out(effects, wanted).or(sent);
                }
                Effect::Install(key, entry) => drop(self.table.insert(key, entry)),
                Effect::Remove(key) => drop(self.table.remove(&key)),
                Effect::Transmit { .. }
                | Effect::Record(_)
                | Effect::Teach(_)
                | Effect::Block(..)
                | Effect::ForgetConntrack(_) => {}
            }
        }
        sent
    }
}

fn client(number: u16) -> Endpoint {
    Endpoint::new([10, 0, 0, 1].into(), 40_000 + number)
}

fn server() -> Endpoint {
    Endpoint::new([10, 0, 0, 2].into(), 80)
}

fn syn(number: u16) -> anyhow::Result<Vec<u8>> {
    let spec = TcpSpec::new(client(number), server(), 1000, 0, Flags::SYN);
    Ok(tcp(&TcpSpec { window: 64_240, options: &OPTIONS, ..spec })?)
}

fn syn_ack(number: u16) -> anyhow::Result<Vec<u8>> {
    let spec = TcpSpec::new(server(), client(number), SYN_ACK_SEQ, 1001, Flags::SYN_ACK);
    Ok(tcp(&TcpSpec { window: 64_240, options: &OPTIONS, ..spec })?)
}

fn ack(number: u16) -> anyhow::Result<Vec<u8>> {
    let spec = TcpSpec::new(client(number), server(), 1001, SYN_ACK_SEQ + 1, Flags::ACK);
    Ok(tcp(&TcpSpec { window: 502, ..spec })?)
}
