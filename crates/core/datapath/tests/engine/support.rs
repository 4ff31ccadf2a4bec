//! Two nodes, each with an engine, a kernel's connection table and one unit, on a wire that the test holds in its hands.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trireme_datapath::{
    Block, Effect, Engine, EngineConfig, EngineStats, HalfOpenEntry, Hook, Lesson, Packet, PuSettings,
    PuSpec, Secrets, Toward, Verdict, VerifyDone,
};
use trireme_flow::{Action, ConnectionEntry, FlowKey, FlowRecord, PuSlot, Reason};
use trireme_identity::time::{Instant, Now, WallTime};
use trireme_identity::{NodeId, Protocol, TagSet};
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};
use trireme_token::{Encoding, Psk, Role, Signer, Verifier};
use trireme_wire::build::{self, TcpSpec, tcp};
use trireme_wire::datagram::{Datagram, Sender};
use trireme_wire::tap::Header;
use trireme_wire::tcp::{Flags, Segment};
pub(crate) use trireme_wire::tuple::Endpoint;
use trireme_wire::tuple::Tuple;

pub(crate) const CLIENT: PuSlot = PuSlot(1);
pub(crate) const SERVER: PuSlot = PuSlot(2);
pub(crate) const CLIENT_ISN: u32 = 0xffff_fff0;
pub(crate) const SERVER_ISN: u32 = 5000;
pub(crate) const PSH_ACK: Flags = Flags(0x18);

pub(crate) fn client_end() -> Endpoint {
    Endpoint::new("10.0.0.1".parse().unwrap(), 40_000)
}

pub(crate) fn server_end() -> Endpoint {
    Endpoint::new("10.0.0.2".parse().unwrap(), 80)
}

/// One node.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) table: BTreeMap<FlowKey, ConnectionEntry>,
    pub(crate) epochs: BTreeMap<PuSlot, u32>,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) forgotten: Vec<Tuple>,
    /// Results that the test gives back when it likes; none: at once.
    pub(crate) deferred: Option<Vec<VerifyDone>>,
    /// Installs and removals in order.
    pub(crate) writes: Vec<Write>,
    pub(crate) blocked: Vec<(FlowKey, Block)>,
    pub(crate) lessons: Vec<Lesson>,
    /// What the back end adds to the next packet.
    pub(crate) hand_over: Option<HalfOpenEntry>,
    pub(crate) renewal: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Write {
    Install(FlowKey, ConnectionEntry),
    Remove(FlowKey),
}

/// What a packet led to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// What went out to the network, in order.
    pub(crate) network: Vec<Vec<u8>>,
    /// What reached the unit, in order.
    pub(crate) unit: Vec<Vec<u8>>,
    /// Why the packet itself was dropped.
    pub(crate) dropped: Option<Reason>,
}

impl Step {
    /// The one packet that went out.
    pub(crate) fn sent(mut self) -> Vec<u8> {
        assert_eq!((self.network.len(), self.dropped), (1, None), "{self:?}");
        self.network.remove(0)
    }

    /// The one packet that reached the unit.
    pub(crate) fn got(mut self) -> Vec<u8> {
        assert_eq!((self.unit.len(), self.dropped), (1, None), "{self:?}");
        self.unit.remove(0)
    }

    /// The reason, where nothing else happened.
    pub(crate) fn silence(self) -> Reason {
        let Self { network, unit, dropped } = self;
        assert!(network.is_empty() && unit.is_empty(), "{network:?} {unit:?}");
        dropped.unwrap()
    }
}

pub(crate) fn psk(text: &str) -> Psk {
    Psk::new(text.as_bytes()).unwrap()
}

pub(crate) fn psk_secrets(node: &str, key: &str) -> Secrets {
    Secrets {
        signer: Arc::new(Signer::psk(node.parse::<NodeId>().unwrap(), psk(key))),
        verifier: Arc::new(Verifier::psk(psk(key))),
        encoding: Encoding::Cwt,
    }
}

pub(crate) const KEY: &str = "Wq7xKp2Lr9Tz4VbN8mHc";

impl Node {
    pub(crate) fn new(config: EngineConfig, secrets: Secrets, seed: u8) -> Self {
        Self {
            verifier: Arc::clone(&secrets.verifier),
            engine: Engine::new(config, secrets, [seed; 32]).unwrap(),
            table: BTreeMap::new(),
            epochs: BTreeMap::new(),
            records: Vec::new(),
            forgotten: Vec::new(),
            deferred: None,
            writes: Vec::new(),
            blocked: Vec::new(),
            lessons: Vec::new(),
            hand_over: None,
            renewal: false,
        }
    }

    pub(crate) fn upsert(&mut self, spec: PuSpec, now: Now) {
        self.epochs.insert(spec.slot, spec.epoch);
        let mut effects = Vec::new();
        self.engine.upsert_pu(spec, now, &mut effects).unwrap();
        self.carry_out(effects, now, &mut Step::default());
    }

    pub(crate) fn key(pu: PuSlot, hook: Hook, bytes: &[u8]) -> Option<FlowKey> {
        let (protocol, tuple) = match (Segment::parse(bytes), Datagram::parse(bytes)) {
            (Ok(segment), _) => (Protocol::TCP, segment.tuple()),
            (Err(_), Ok(datagram)) => (datagram.ip.protocol, datagram.tuple()),
            (Err(_), Err(_)) => return None,
        };
        let (local, remote) = match hook {
            Hook::FromPu => (tuple.src, tuple.dst),
            Hook::ToPu => (tuple.dst, tuple.src),
        };
        Some(FlowKey::new(pu, protocol, local.into(), remote.into()))
    }

    /// The kernel's part: whether the packet passes without the engine.
    fn kernel_passes(&mut self, pu: PuSlot, hook: Hook, bytes: &[u8]) -> bool {
        let Some(key) = Self::key(pu, hook, bytes) else { return false };
        let epoch = self.epochs[&pu];
        if let Ok(datagram) = Datagram::parse(bytes) {
            return self.kernel_passes_datagram(&key, hook, &datagram, bytes);
        }
        let (Some(entry), Ok(segment)) = (self.table.get_mut(&key), Segment::parse(bytes)) else {
            return false;
        };
        if entry.epoch != epoch || segment.flags.contains(Flags::SYN) {
            return false;
        }
        match hook {
            Hook::ToPu => {
                let proof =
                    Header::parse(segment.payload(bytes)).is_ok_and(|header| header.mac == entry.proof_mac);
                if segment.seq == entry.proof_seq && proof {
                    return false;
                }
                entry.confirmed = true;
                true
            }
            Hook::FromPu if entry.confirmed || entry.role == Role::Responder => true,
            Hook::FromPu if segment.is_empty_ack() => false,
            Hook::FromPu if segment.seq == entry.proof_seq && segment.sequence_len() > 0 => {
                !std::mem::replace(&mut entry.data_seen, true)
            }
            Hook::FromPu => true,
        }
    }

    /// The same for flows without connections; what the engine says of fragments is for the engine to remember.
    fn kernel_passes_datagram(&self, key: &FlowKey, hook: Hook, datagram: &Datagram, bytes: &[u8]) -> bool {
        let Some(entry) = self.table.get(key) else { return false };
        let asked = match (datagram.sender(), hook) {
            (Sender::Either, _) => entry.role,
            (Sender::Initiator, Hook::FromPu) | (Sender::Responder, Hook::ToPu) => Role::Initiator,
            (Sender::Initiator, Hook::ToPu) | (Sender::Responder, Hook::FromPu) => Role::Responder,
        };
        entry.epoch == self.epochs[&key.pu]
            && asked == entry.role
            && datagram.ip.fragment.is_none()
            && !trireme_wire::tap::is_tap(datagram.udp_data(bytes))
    }

    pub(crate) fn handle(&mut self, pu: PuSlot, hook: Hook, bytes: &[u8], now: Now) -> Step {
        let mut step = Step::default();
        if self.kernel_passes(pu, hook, bytes) {
            match hook {
                Hook::FromPu => step.network.push(bytes.to_vec()),
                Hook::ToPu => step.unit.push(bytes.to_vec()),
            }
            return step;
        }
        let connection = Self::key(pu, hook, bytes).and_then(|key| self.table.get(&key).copied());
        let packet = Packet {
            pu,
            hook,
            bytes: bytes.to_vec(),
            gso_size: None,
            connection,
            half_open: self.hand_over.take(),
            renewal: std::mem::take(&mut self.renewal),
            token: 7,
        };
        let mut effects = Vec::new();
        let before = self.stats().reasons;
        let verdict = self.engine.handle_packet(packet, now, &mut effects);
        let checked =
            self.deferred.is_none() && effects.iter().any(|effect| matches!(effect, Effect::Verify(_)));
        self.carry_out(effects, now, &mut step);
        match verdict {
            Verdict::Pass(packet) => {
                assert_eq!((packet.pu, packet.hook, packet.token), (pu, hook, 7));
                match hook {
                    Hook::FromPu => step.network.push(packet.bytes),
                    Hook::ToPu => step.unit.push(packet.bytes),
                }
            }
            Verdict::Drop(reason) => step.dropped = Some(reason),
            // The check was done at once: what it led to counts as what the packet led to.
            Verdict::Held
                if checked && self.records.last().is_none_or(|last| last.action == Action::Reject) =>
            {
                let grown = self.stats().reasons.into_iter().find(|((_, reason), count)| {
                    *reason != Reason::Accepted && before.get(&(pu, *reason)).is_none_or(|old| old < count)
                });
                step.dropped = grown.map(|((_, reason), _)| reason);
            }
            Verdict::Held => {}
        }
        step
    }

    pub(crate) fn carry_out(&mut self, effects: Vec<Effect>, now: Now, step: &mut Step) {
        for effect in effects {
            match effect {
                Effect::Transmit { toward: Toward::Network, bytes, .. } => step.network.push(bytes),
                Effect::Transmit { toward: Toward::Pu, bytes, .. } => step.unit.push(bytes),
                Effect::Verify(job) => {
                    let done = job.run(&self.verifier);
                    match &mut self.deferred {
                        Some(deferred) => deferred.push(done),
                        None => self.verified(done, now, step),
                    }
                }
                Effect::Install(key, entry) => {
                    self.table.insert(key, entry);
                    self.writes.push(Write::Install(key, entry));
                }
                Effect::Remove(key) => {
                    self.table.remove(&key);
                    self.writes.push(Write::Remove(key));
                }
                Effect::Block(key, block) => self.blocked.push((key, block)),
                Effect::Record(record) => self.records.push(record),
                Effect::ForgetConntrack(tuple) => self.forgotten.push(tuple),
                Effect::Teach(lesson) => self.lessons.push(lesson),
            }
        }
    }

    pub(crate) fn verified(&mut self, done: VerifyDone, now: Now, step: &mut Step) {
        let mut effects = Vec::new();
        self.engine.handle_verified(done, now, &mut effects);
        self.carry_out(effects, now, step);
    }

    pub(crate) fn timeout(&mut self, now: Now) -> Step {
        let (mut effects, mut step) = (Vec::new(), Step::default());
        self.engine.handle_timeout(now, &mut effects);
        self.carry_out(effects, now, &mut step);
        step
    }

    pub(crate) fn count(&self, pu: PuSlot, reason: Reason) -> u64 {
        self.stats().reasons.get(&(pu, reason)).copied().unwrap_or_default()
    }

    pub(crate) fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}

/// The pair.
pub(crate) struct Pair {
    pub(crate) now: Now,
    pub(crate) client: Node,
    pub(crate) server: Node,
}

pub(crate) fn start() -> Now {
    Now { monotonic: Instant(1_000_000_000), wall: WallTime(1_800_000_000) }
}

/// Admits only `role=frontend` on port 80.
pub(crate) fn frontends_only() -> PuPolicy {
    let selector = Selector::new([Clause::equal("role", ["frontend"])]);
    let rule = Rule::new(
        [selector],
        Services::Only(vec![Service::tcp(80)]),
        FlowPolicy::accept().named("web", "frontends"),
    );
    PuPolicy { ingress: Ruleset::Rules(vec![rule]), ..PuPolicy::unrestricted() }
}

pub(crate) fn spec(slot: PuSlot, id: &str, tags: &[&str], policy: &PuPolicy) -> PuSpec {
    PuSpec {
        slot,
        id: id.parse().unwrap(),
        tags: TagSet::parse(tags.iter().copied()).unwrap(),
        policy: Arc::new(CompiledPolicy::compile(policy).unwrap()),
        epoch: 1,
        settings: PuSettings::default(),
    }
}

pub(crate) fn client_spec() -> PuSpec {
    spec(CLIENT, "client", &["role=frontend"], &PuPolicy::unrestricted())
}

pub(crate) fn server_spec() -> PuSpec {
    spec(SERVER, "server", &["role=backend"], &frontends_only())
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(EngineConfig::default(), client_spec(), server_spec())
    }

    pub(crate) fn with(config: EngineConfig, client: PuSpec, server: PuSpec) -> Self {
        let now = start();
        let mut pair = Self {
            now,
            client: Node::new(config.clone(), psk_secrets("node-a", KEY), 1),
            server: Node::new(config, psk_secrets("node-b", KEY), 2),
        };
        pair.client.upsert(client, now);
        pair.server.upsert(server, now);
        pair
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic + time;
        self.now.wall = self.now.wall.plus_secs(time.as_secs());
    }

    pub(crate) fn client_sends(&mut self, bytes: &[u8]) -> Step {
        self.client.handle(CLIENT, Hook::FromPu, bytes, self.now)
    }

    pub(crate) fn client_gets(&mut self, bytes: &[u8]) -> Step {
        self.client.handle(CLIENT, Hook::ToPu, bytes, self.now)
    }

    pub(crate) fn server_sends(&mut self, bytes: &[u8]) -> Step {
        self.server.handle(SERVER, Hook::FromPu, bytes, self.now)
    }

    pub(crate) fn server_gets(&mut self, bytes: &[u8]) -> Step {
        self.server.handle(SERVER, Hook::ToPu, bytes, self.now)
    }

    /// SYN and SYN-ACK up to the client's unit; returns both as they were on the wire.
    pub(crate) fn open(&mut self) -> (Vec<u8>, Vec<u8>) {
        let syn_wire = self.client_sends(&syn()).sent();
        assert_eq!(self.server_gets(&syn_wire).got(), syn());
        let syn_ack_wire = self.server_sends(&syn_ack()).sent();
        assert_eq!(self.client_gets(&syn_ack_wire).got(), syn_ack());
        (syn_wire, syn_ack_wire)
    }

    /// A whole handshake; returns its three segments as they were on the wire.
    pub(crate) fn connect(&mut self) -> [Vec<u8>; 3] {
        let (syn_wire, syn_ack_wire) = self.open();
        let ack_wire = self.client_sends(&ack()).sent();
        assert_eq!(self.server_gets(&ack_wire).got(), ack());
        [syn_wire, syn_ack_wire, ack_wire]
    }

    /// Data of both ends arrives.
    pub(crate) fn assert_talking(&mut self) {
        let request = data(b"ping");
        let wire = self.client_sends(&request).sent();
        assert_eq!(self.server_gets(&wire).got(), request);
        let reply = server_data(b"pong");
        let wire = self.server_sends(&reply).sent();
        assert_eq!(self.client_gets(&wire).got(), reply);
    }
}

pub(crate) fn client_key() -> FlowKey {
    FlowKey::tcp(CLIENT, client_end().into(), server_end().into())
}

pub(crate) fn server_key() -> FlowKey {
    FlowKey::tcp(SERVER, server_end().into(), client_end().into())
}

pub(crate) fn segment(spec: &TcpSpec<'_>) -> Vec<u8> {
    tcp(&TcpSpec { window: 64_240, ..*spec }).unwrap()
}

pub(crate) fn from_client(seq: u32, ack: u32, flags: Flags) -> TcpSpec<'static> {
    TcpSpec::new(client_end(), server_end(), seq, ack, flags)
}

pub(crate) fn from_server(seq: u32, ack: u32, flags: Flags) -> TcpSpec<'static> {
    TcpSpec::new(server_end(), client_end(), seq, ack, flags)
}

/// MSS 1460, window scale 7, timestamps 100 / 0.
pub(crate) const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 180, 1, 3, 3, 7, 1, 1, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0];

pub(crate) fn syn() -> Vec<u8> {
    syn_with(CLIENT_ISN)
}

pub(crate) fn syn_with(isn: u32) -> Vec<u8> {
    segment(&TcpSpec { options: &SYN_OPTIONS, ..from_client(isn, 0, Flags::SYN) })
}

pub(crate) fn syn_ack() -> Vec<u8> {
    syn_ack_with(SERVER_ISN, CLIENT_ISN)
}

pub(crate) fn syn_ack_with(seq: u32, isn: u32) -> Vec<u8> {
    segment(&TcpSpec { options: &SYN_OPTIONS, ..from_server(seq, isn.wrapping_add(1), Flags::SYN_ACK) })
}

pub(crate) fn next() -> u32 {
    CLIENT_ISN.wrapping_add(1)
}

pub(crate) fn ack() -> Vec<u8> {
    segment(&from_client(next(), SERVER_ISN + 1, Flags::ACK))
}

pub(crate) fn data(payload: &[u8]) -> Vec<u8> {
    segment(&TcpSpec { payload, ..from_client(next(), SERVER_ISN + 1, PSH_ACK) })
}

pub(crate) fn server_data(payload: &[u8]) -> Vec<u8> {
    segment(&TcpSpec { payload, ..from_server(SERVER_ISN + 1, next(), PSH_ACK) })
}

/// From the client's end to the server's, or back.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Way {
    Forth,
    Back,
}

pub(crate) fn udp(from: Endpoint, to: Endpoint, data: &[u8]) -> Vec<u8> {
    build::udp(from, to, 64, data).unwrap()
}

/// A packet of this protocol with these bytes behind the IP header.
pub(crate) fn raw(protocol: Protocol, way: Way, transport: &[u8]) -> Vec<u8> {
    let (from, to) = match way {
        Way::Forth => (client_end(), server_end()),
        Way::Back => (server_end(), client_end()),
    };
    let mut packet = udp(from, to, &[]);
    packet.truncate(20);
    packet[9] = protocol.0;
    packet.extend_from_slice(transport);
    let len = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet
}

/// An ICMP message with an identifier.
pub(crate) fn echo(icmp_type: u8, id: u16, way: Way) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    raw(Protocol::ICMP, way, &[icmp_type, 0, 0, 0, high, low, 0, 1])
}

/// The same ends over another protocol.
pub(crate) trait Over {
    fn over(self, protocol: Protocol) -> Self;
}

impl Over for FlowKey {
    fn over(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }
}

/// The TAP message of a packet.
pub(crate) fn tap(bytes: &[u8]) -> Header {
    Header::parse(payload(bytes)).unwrap()
}

pub(crate) fn payload(bytes: &[u8]) -> &[u8] {
    Segment::parse(bytes).unwrap().payload(bytes)
}

/// The TAP message of a datagram.
pub(crate) fn message_of(bytes: &[u8]) -> Header {
    Header::parse(data_of(bytes)).unwrap()
}

pub(crate) fn data_of(bytes: &[u8]) -> &[u8] {
    Datagram::parse(bytes).unwrap().udp_data(bytes)
}

/// The same packet with another payload and right checksums.
pub(crate) fn with_payload(bytes: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    trireme_wire::edit::replace_payload(&mut bytes, payload).unwrap();
    bytes
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
