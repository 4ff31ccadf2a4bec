//! What one seed means: hosts, nodes, network, policies and conversations.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trireme_datapath::{Authorize, KnownTokens, NotifyPeer, Refusal, Strictness};
use trireme_token::Encoding;

use super::app::{Dialogue, Protocol};
use super::host::HostSpec;
use super::nat::{Masquerade, NatSpec};
use super::network::LinkSpec;
use super::stream::Opening;

/// Whether engines stand between hosts and network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// None: the harness tests itself.
    Bare,
    /// One per node.
    Engines,
    /// The same, and kernels that complete handshakes by what the engines teach.
    FastPath,
}

impl Guard {
    const fn is_bare(self) -> bool {
        matches!(self, Self::Bare)
    }
}

/// How nodes trust each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// A pre-shared key.
    Psk,
    /// A CA; the certificate travels beside the token.
    Certificate,
    /// A CA; the compact key token travels beside the token.
    KeyToken,
    /// Every node was given the other's public key.
    Prepopulated,
}

/// Address family of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Hosts by their place: two units and a plain host.
pub const FIRST: usize = 0;
/// A unit on the second node, or on the first when there is only one.
pub const SECOND: usize = 1;
/// Another unit on the first node.
pub const THIRD: usize = 2;
/// A host without a node, outside the target networks.
pub const OUTSIDE: usize = 3;

/// What must become of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Both ends get everything.
    Completes,
    /// It is allowed, but packets of an earlier connection on the same ports may come back and end it.
    MayFail,
    /// The server's policy has no rule for it.
    DeniedByServer,
    /// The client's policy has no rule for it.
    DeniedByClient,
    /// It is allowed, but nothing listens.
    Refused,
}

/// Conversations with one listening port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Index of the connecting host.
    pub client: usize,
    /// Index of the accepting host.
    pub server: usize,
    /// The server's port.
    pub port: u16,
    /// What the client connects to: the server itself or a service in front of it.
    pub target: SocketAddr,
    /// First local port of the client.
    pub client_port: u16,
    /// Conversations at once, from consecutive ports.
    pub parallel: u16,
    /// Time between the first conversations of consecutive ports.
    pub stagger: Duration,
    /// Conversations one after the other from the same port.
    pub rounds: u16,
    /// When the first begins.
    pub start: Duration,
    /// Pause between rounds.
    pub pause: Duration,
    /// What is said.
    pub dialogue: Dialogue,
    /// Whether the server's policy has a rule that admits the client.
    pub ingress_rule: bool,
    /// Whether the client's policy has a rule that admits the server.
    pub egress_rule: bool,
    /// How it must end.
    pub expect: Expect,
    /// When a client whose connection is refused silently loses patience.
    pub patience: Duration,
}

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it came from.
    pub seed: u64,
    /// Whether engines take part.
    pub guard: Guard,
    /// Address family.
    pub family: Family,
    /// How nodes trust each other.
    pub trust: Trust,
    /// Token form of each node.
    pub encodings: [Encoding; 2],
    /// Which side authorizes.
    pub authorize: Authorize,
    /// What refused clients see.
    pub refusal: Refusal,
    /// Whether refusals are reported to the peer's node.
    pub notify_peer: NotifyPeer,
    /// What happens to peers without identity.
    pub strictness: Strictness,
    /// Whether known tokens are left out.
    pub known_tokens: KnownTokens,
    /// The hosts, in the order of [`FIRST`], [`SECOND`], [`THIRD`], [`OUTSIDE`].
    pub hosts: Vec<HostSpec>,
    /// Each host's node.
    pub nodes: [Option<usize>; 4],
    /// The path between all hosts.
    pub link: LinkSpec,
    /// The router.
    pub nat: NatSpec,
    /// The conversations.
    pub groups: Vec<Group>,
    /// When every unit's policy epoch changes, without a change of policy.
    pub reloads: Vec<Duration>,
    /// When a node's agent is stopped and started again.
    pub restarts: Vec<(Duration, usize)>,
    /// When the server of a group stops admitting its client.
    pub revocations: Vec<(Duration, usize)>,
    /// Longest time a packet waits for the engine.
    pub punt_latency: Duration,
    /// Longest time a signature check takes.
    pub verify_latency: Duration,
    /// Whether kernels complete handshakes of known identities.
    pub fast_path: bool,
    /// Connections that each kernel table remembers after their end.
    pub closing_capacity: usize,
    /// Seed of the engines.
    pub engine_seed: [u8; 32],
    /// Seed of the network's and the scheduler's randomness.
    pub run_seed: u64,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn generate(seed: u64, guard: Guard) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let family = if rng.random_bool(0.5) { Family::V4 } else { Family::V6 };
        let is_one_node = rng.random_bool(0.3);
        let nodes = [Some(0), Some(usize::from(!is_one_node)), Some(0), None];
        let mut link = link(rng);
        let hosts = hosts(rng, family, link.mtu);
        if is_one_node && hosts.iter().any(|host| host.offload) {
            // A sum that is never completed protects nothing.
            link.corrupt = 0.0;
        }
        let authorize = if rng.random_bool(0.7) { Authorize::Mutual } else { Authorize::ReceiverOnly };
        let masquerade = rng.random_bool(0.25).then(|| Masquerade {
            inside: vec![hosts[FIRST].addr, hosts[THIRD].addr],
            outside: address(family, Net::Router),
        });
        let mut nat = NatSpec { masquerade, services: BTreeMap::new() };
        let strictness = *pick(rng, &[Strictness::Lenient, Strictness::StrictIdentity]);
        let groups = (0..rng.random_range(1..=3))
            .map(|index| group(rng, index, family, &hosts, &link, guard, authorize, strictness, &mut nat))
            .collect();
        let mut groups: Vec<Group> = groups;
        let (restarts, revocations) = upheavals(rng, guard, &nodes, &mut groups);
        let reloads = if restarts.is_empty() && rng.random_bool(0.15) {
            vec![Duration::from_millis(rng.random_range(5..3000))]
        } else {
            Vec::new()
        };
        Self {
            seed,
            guard,
            family,
            trust: *pick(
                rng,
                &[Trust::Psk, Trust::Psk, Trust::Certificate, Trust::KeyToken, Trust::Prepopulated],
            ),
            encodings: [
                *pick(rng, &[Encoding::Cwt, Encoding::Jwt]),
                *pick(rng, &[Encoding::Cwt, Encoding::Jwt]),
            ],
            authorize,
            refusal: *pick(rng, &[Refusal::Silent, Refusal::Silent, Refusal::Rst, Refusal::Icmp]),
            notify_peer: *pick(rng, &[NotifyPeer::Never, NotifyPeer::WithReason]),
            strictness,
            known_tokens: *pick(rng, &[KnownTokens::Omit, KnownTokens::Omit, KnownTokens::Attach]),
            hosts,
            nodes,
            link,
            nat,
            groups,
            reloads,
            restarts,
            revocations,
            punt_latency: Duration::from_micros(rng.random_range(1..500)),
            verify_latency: Duration::from_micros(rng.random_range(1..20_000)),
            // No run ends so many connections that a half-closed one could be pushed out.
            fast_path: guard == Guard::FastPath,
            closing_capacity: rng.random_range(64..256),
            engine_seed: rng.random(),
            run_seed: rng.random(),
        }
    }
}

/// Networks that hosts and the router live in.
#[derive(Clone, Copy)]
enum Net {
    Node(u8),
    Service,
    Router,
    Outside,
}

fn address(family: Family, net: Net) -> IpAddr {
    match (family, net) {
        (Family::V4, Net::Node(host)) => Ipv4Addr::new(10, 1 + host % 2, 0, 1 + host).into(),
        (Family::V4, Net::Service) => Ipv4Addr::new(10, 96, 0, 10).into(),
        (Family::V4, Net::Router) => Ipv4Addr::new(10, 9, 0, 1).into(),
        (Family::V4, Net::Outside) => Ipv4Addr::new(203, 0, 113, 7).into(),
        (Family::V6, Net::Node(host)) => {
            Ipv6Addr::new(0xfd00, 0, 0, 1 + u16::from(host % 2), 0, 0, 0, 1 + u16::from(host)).into()
        }
        (Family::V6, Net::Service) => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 10).into(),
        (Family::V6, Net::Router) => Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1).into(),
        (Family::V6, Net::Outside) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into(),
    }
}

fn hosts(rng: &mut ChaCha8Rng, family: Family, mtu: usize) -> Vec<HostSpec> {
    let offload = rng.random_bool(0.4);
    [Net::Node(0), Net::Node(1), Net::Node(2), Net::Outside]
        .map(|net| HostSpec {
            addr: address(family, net),
            mtu,
            offload,
            ack_delay: *pick(rng, &[None, Some(Duration::from_millis(10)), Some(Duration::from_millis(200))]),
            eager: rng.random_bool(0.5),
            nagle: rng.random_bool(0.5),
            timestamps: rng.random_bool(0.5),
            buffer: 1 << rng.random_range(12..=16),
            seed: rng.random(),
        })
        .to_vec()
}

fn link(rng: &mut ChaCha8Rng) -> LinkSpec {
    let mtu = *pick(rng, &[1280, 1280, 1400, 1500]);
    let mut maybe =
        |share: f64, most: f64| if rng.random_bool(share) { most * rng.random::<f64>() } else { 0.0 };
    let loss = if maybe(0.3, 1.0) > 0.0 { 0.3 } else { 0.05 };
    let (loss, duplicate, corrupt) = (maybe(0.6, loss), maybe(0.4, 0.2), maybe(0.3, 0.05));
    let (stall, replay) = (maybe(0.3, 0.05), maybe(0.3, 0.1));
    LinkSpec {
        loss,
        duplicate,
        corrupt,
        stall,
        replay,
        delay: Duration::from_micros(rng.random_range(20..30_000)),
        jitter: Duration::from_micros(*pick(rng, &[0, 50, 2_000, 60_000])),
        mtu,
    }
}

#[expect(clippy::too_many_arguments, reason = "one call site; each is a different part of the scenario")]
fn group(
    rng: &mut ChaCha8Rng,
    index: u16,
    family: Family,
    hosts: &[HostSpec],
    link: &LinkSpec,
    guard: Guard,
    authorize: Authorize,
    strictness: Strictness,
    nat: &mut NatSpec,
) -> Group {
    let pairs: &[(usize, usize)] = &[
        (FIRST, SECOND),
        (FIRST, SECOND),
        (FIRST, SECOND),
        (SECOND, FIRST),
        (THIRD, SECOND),
        (THIRD, FIRST),
        (FIRST, OUTSIDE),
        (OUTSIDE, SECOND),
    ];
    let (client, server) = *pick(rng, pairs);
    let port = 8000 + index;
    let real = SocketAddr::new(hosts[server].addr, port);
    // A service address lies inside the target networks, where strict units insist on identity.
    let may_be_service = client != OUTSIDE && (server != OUTSIDE || strictness == Strictness::Lenient);
    let target = if rng.random_bool(0.25) && may_be_service {
        let service = SocketAddr::new(address(family, Net::Service), 80 + index);
        nat.services.insert(service, real);
        service
    } else {
        real
    };
    let verdict = verdict(rng, client, server, guard, authorize);
    let rounds = *pick(rng, if guard == Guard::FastPath { &[1, 2, 2, 3, 5] } else { &[1, 1, 1, 2, 3] });
    // The first of them makes the two known to each other, over several rotations of keys.
    let stagger = match guard {
        Guard::FastPath => *pick(rng, &[1, 400_000, 3_000_000, 170_000_000]),
        Guard::Bare | Guard::Engines => 1,
    };
    let stagger = Duration::from_micros(stagger);
    let is_fragile = rounds > 1 && !link.is_lossless() && rng.random_bool(0.5);
    // Segments that outlive TIME-WAIT can end any TCP connection.
    let expect =
        if is_fragile && verdict.expect == Expect::Completes { Expect::MayFail } else { verdict.expect };
    let pause = if is_fragile || link.is_lossless() {
        Duration::from_millis(*pick(rng, &[0, 50, 15_000]))
    } else {
        Duration::from_secs(700)
    };
    Group {
        client,
        server,
        port,
        target,
        client_port: 40_000 + index * 100,
        parallel: *pick(rng, if guard == Guard::FastPath { &[1, 2, 3, 4, 6] } else { &[1, 1, 1, 2, 4] }),
        stagger,
        rounds,
        start: Duration::from_micros(rng.random_range(0..500_000)),
        pause,
        dialogue: dialogue(rng, link),
        ingress_rule: verdict.ingress_rule,
        egress_rule: verdict.egress_rule,
        expect,
        patience: Duration::from_secs(rng.random_range(5..40)),
    }
}

struct Rules {
    ingress_rule: bool,
    egress_rule: bool,
    expect: Expect,
}

/// Which rules exist for a conversation, and what follows from that.
fn verdict(rng: &mut ChaCha8Rng, client: usize, server: usize, guard: Guard, authorize: Authorize) -> Rules {
    let is_listening = rng.random_bool(0.85);
    // A host without a node has no rules that could be missing.
    let ingress_rule = rng.random_bool(0.8) || guard.is_bare() || server == OUTSIDE;
    let egress_rule = rng.random_bool(0.8)
        || guard.is_bare()
        || client == OUTSIDE
        // Whether a receiver-only initiator asks its IP rules about a peer without identity is its own business.
        || (server == OUTSIDE && authorize == Authorize::ReceiverOnly);
    let expect = if !ingress_rule {
        Expect::DeniedByServer
    } else if !egress_rule && authorize == Authorize::Mutual {
        Expect::DeniedByClient
    } else if is_listening {
        Expect::Completes
    } else {
        Expect::Refused
    };
    Rules { ingress_rule, egress_rule, expect }
}

/// When something happens, and to which node or group.
type Upheaval = (Duration, usize);

/// Restarts and revocations, of which a run has at most one, and what they change about the expectations.
fn upheavals(
    rng: &mut ChaCha8Rng,
    guard: Guard,
    nodes: &[Option<usize>; 4],
    groups: &mut [Group],
) -> (Vec<Upheaval>, Vec<Upheaval>) {
    let kind = rng.random_range(0..100);
    let after = Duration::from_millis(rng.random_range(1..3000));
    let index = rng.random_range(0..groups.len());
    let node = nodes[*pick(rng, &[FIRST, SECOND])].unwrap_or(0);
    let group = &mut groups[index];
    match kind {
        0..10 if !guard.is_bare() => (vec![(after, node)], Vec::new()),
        10..20 if !guard.is_bare() && group.server != OUTSIDE && group.expect == Expect::Completes => {
            group.expect = Expect::MayFail;
            (Vec::new(), vec![(after, index)])
        }
        _ => (Vec::new(), Vec::new()),
    }
}

fn dialogue(rng: &mut ChaCha8Rng, link: &LinkSpec) -> Dialogue {
    let protocol = *pick(rng, &Protocol::ALL);
    let most = if link.loss > 0.08 || link.stall > 0.01 { 8_000 } else { 200_000 };
    let mut size = || {
        let bound: usize =
            *pick(rng, &[0, 1, 100, 100, 3_000, 3_000, 3_000, 20_000, 20_000, 20_000, 200_000]);
        rng.random_range(0..=bound.min(most))
    };
    let (to_server, to_client) = (size(), size());
    Dialogue {
        protocol,
        // A reset right after the handshake may outrun it.
        to_server: if protocol == Protocol::ClientAborts { to_server.max(1) } else { to_server },
        to_client: if protocol == Protocol::ConnectAndClose { 0 } else { to_client },
        opening: if rng.random_bool(0.15) { Opening::LooksLikeTap } else { Opening::Plain },
    }
}

fn pick<'a, T>(rng: &mut ChaCha8Rng, choices: &'a [T]) -> &'a T {
    choices.choose(rng).expect("there is something to choose from")
}
