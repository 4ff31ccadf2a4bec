//! What a seed decides.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trireme_datapath::{PuSettings, PuSpec};
use trireme_flow::PuSlot;
use trireme_identity::TagSet;
use trireme_policy::{
    Clause, CompiledPolicy, FlowPolicy, IpRule, PuPolicy, Rule, Ruleset, Selector, Service, Services,
};
use trireme_wire::tuple::Endpoint;

use super::super::network::LinkSpec;
use super::super::scenario::Trust;
use super::{CLIENT, SERVER, end};

/// What the rules of both ends come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both ends' identities are admitted, and nothing else.
    ByIdentity,
    /// Both ends' addresses are admitted; only the client has an enforcer.
    ByAddress,
    /// The server's rules refuse the client's identity.
    DeniedByServer,
    /// The client's rules refuse the server's identity.
    DeniedByClient,
    /// Only the client has an enforcer, and its rules ask for an identity.
    NobodyThere,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// What is to come of it.
    pub verdict: Verdict,
    /// The wire.
    pub link: LinkSpec,
    /// The nodes' keys.
    pub trust: Trust,
    /// Flows at a time.
    pub flows: u16,
    /// Questions per flow.
    pub rounds: u16,
    /// How long a client waits before it asks again.
    pub patience: Duration,
    /// How long it rests after an answer, by round.
    pub pauses: Vec<Duration>,
    /// The far side of a translator in front of the client.
    pub translator: Option<IpAddr>,
    /// When the translator forgets, in seconds.
    pub rebinds: Vec<u64>,
    /// When the attacker strikes.
    pub attacks: Vec<Duration>,
    is_v6: bool,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let verdict = match rng.random_range(0..10) {
            0..=5 => Verdict::ByIdentity,
            6 => Verdict::ByAddress,
            7 => Verdict::DeniedByServer,
            8 => Verdict::DeniedByClient,
            _ => Verdict::NobodyThere,
        };
        let link = if rng.random_bool(0.3) {
            LinkSpec { jitter: Duration::from_millis(rng.random_range(0..20)), ..LinkSpec::PERFECT }
        } else {
            LinkSpec {
                loss: rng.random_range(0.0..0.25),
                duplicate: rng.random_range(0.0..0.2),
                corrupt: rng.random_range(0.0..0.05),
                stall: rng.random_range(0.0..0.03),
                replay: rng.random_range(0.0..0.1),
                delay: Duration::from_millis(rng.random_range(1..80)),
                jitter: Duration::from_millis(rng.random_range(0..40)),
                mtu: 1500,
            }
        };
        let is_v6 = rng.random_bool(0.5);
        let translator =
            rng.random_bool(0.4).then(|| end(if is_v6 { "fd00::99" } else { "10.0.0.99" }, 1).addr);
        let is_long = rng.random_bool(0.5);
        let pause = |rng: &mut ChaCha8Rng| match rng.random_range(0..3) {
            0 if is_long => Duration::from_secs(rng.random_range(20..400)),
            1 => Duration::from_secs(rng.random_range(1..30)),
            _ => Duration::from_millis(rng.random_range(1..500)),
        };
        let pauses = (0..4).map(|_| pause(&mut rng)).collect();
        let rebinds = match translator {
            Some(_) => (0..rng.random_range(0..4)).map(|_| rng.random_range(1..600)).collect(),
            None => Vec::new(),
        };
        let strikes = if rng.random_bool(0.5) { rng.random_range(1..60) } else { 0 };
        let attacks = (0..strikes).map(|_| Duration::from_millis(rng.random_range(1..120_000))).collect();
        let trust = if seed.is_multiple_of(16) { Trust::Certificate } else { Trust::Psk };
        Self {
            seed,
            verdict,
            link,
            trust,
            flows: rng.random_range(1..5),
            rounds: rng.random_range(1..8),
            patience: Duration::from_millis(rng.random_range(1500..4000)),
            pauses,
            translator,
            rebinds,
            attacks,
            is_v6,
        }
    }

    pub(super) fn ports(&self) -> std::ops::Range<u16> {
        40_000..40_000 + self.flows
    }

    pub(super) fn client(&self, port: u16) -> Endpoint {
        end(if self.is_v6 { "fd00::1" } else { "10.0.0.1" }, port)
    }

    pub(super) fn server(&self) -> Endpoint {
        end(if self.is_v6 { "fd00::2" } else { "10.0.0.2" }, 53)
    }

    /// Whether this end has an enforcer.
    pub(super) const fn has_enforcer(&self, side: usize) -> bool {
        side == CLIENT || !matches!(self.verdict, Verdict::ByAddress | Verdict::NobodyThere)
    }

    /// The unit at this end.
    pub(super) fn unit(&self, side: usize) -> PuSpec {
        let (id, own) = if side == CLIENT { ("client", "caller") } else { ("server", "called") };
        let peer = match (self.verdict, side) {
            (Verdict::DeniedByClient, CLIENT) | (Verdict::DeniedByServer, SERVER) => "nobody",
            (_, CLIENT) => "called",
            _ => "caller",
        };
        let services = || Services::Only(vec![Service::udp(53)]);
        let tagged =
            Rule::new([Selector::new([Clause::equal("role", [peer])])], services(), FlowPolicy::accept());
        let none = || Ruleset::Rules(Vec::new());
        let net = if self.is_v6 { "fd00::/64" } else { "10.0.0.0/24" }.parse().expect("a network");
        let addresses = if self.verdict == Verdict::ByAddress {
            Ruleset::Rules(vec![IpRule::new([net], services(), FlowPolicy::accept())])
        } else {
            Ruleset::Rules(Vec::new())
        };
        let tagged = Ruleset::Rules(vec![tagged]);
        let (ingress, egress) = if side == CLIENT { (none(), tagged) } else { (tagged, none()) };
        let policy = PuPolicy {
            ingress,
            egress,
            network_acls: Ruleset::Rules(Vec::new()),
            application_acls: addresses,
            ..PuPolicy::unrestricted()
        };
        PuSpec {
            slot: PuSlot(1),
            id: id.parse().expect("a valid id"),
            tags: TagSet::parse([format!("role={own}").as_str()]).expect("a valid tag"),
            policy: Arc::new(CompiledPolicy::compile(&policy).expect("plain rules compile")),
            epoch: 1,
            settings: PuSettings::default(),
        }
    }
}
