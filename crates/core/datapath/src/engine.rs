//! The engine itself; one file per step and per kind of segment.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use trireme_flow::{
    Aggregator, BoundedMap, Budget, Deadlines, FlowKey, FragmentKey, FragmentTable, HalfOpenKey,
    HalfOpenTable, HeldQueue, PuSlot, Reason, SlotTable,
};
use trireme_identity::time::{Instant, Now, WallTime};
use trireme_policy::Mode;
use trireme_token::cache::TokenCache;
use trireme_token::rotation::{OwnTokens, Settings};
use trireme_token::{
    AgreementPublic, IssueError, MacKey, PairKeys, Pooled, RandomSource, Role, SeededRandom, TokenId,
    Verified,
};
use trireme_wire::tcp::Segment;

use crate::{
    Effect, EngineConfig, EngineError, EngineStats, Hook, KeyName, Packet, PuError, PuSpec, Secrets, Verdict,
};

mod adopt;
mod agents;
mod authenticate;
mod authorize;
mod control;
mod cookie;
mod datagram;
mod egress_segment;
mod egress_syn;
mod egress_syn_ack;
mod emit;
mod essential;
mod established;
mod event;
mod exchange;
mod exchange_message;
mod fragment;
mod handshake;
mod icmp_error;
mod ingress_segment;
mod ingress_syn;
mod ingress_syn_ack;
mod jobs;
mod lifecycle;
mod parse;
mod peers;
mod persist;
mod record;
mod refuse;
mod remembered;
mod renew;
mod revoke;
mod teach;
mod timeout;

use agents::Agents;
use handshake::Handshake;
use jobs::Jobs;
use parse::Parsed;
use peers::Peers;
use refuse::Refused;

pub use remembered::PeersError;

/// Decides about the packets of every processing unit of a node.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    secrets: Secrets,
    random: Pooled<SeededRandom>,
    cookie_key: MacKey,
    own: OwnTokens,
    rotate_at: Instant,
    units: BTreeMap<PuSlot, Arc<Unit>>,
    handshakes: HalfOpenTable<Handshake>,
    held: HeldQueue<HalfOpenKey, Packet>,
    flows: BoundedMap<FlowKey, datagram::Admitted>,
    fragments: FragmentTable<fragment::First>,
    fragments_held: HeldQueue<FragmentKey, Packet>,
    /// Datagrams that wait for an exchange of identities.
    waiting: HeldQueue<FlowKey, Packet>,
    /// Repetitions of an exchange's messages.
    retries: Deadlines<HalfOpenKey>,
    /// Flows whose datagrams wait for the initiator to begin an exchange.
    awaited: BoundedMap<FlowKey, exchange_message::Awaited>,
    agents: Agents,
    jobs: Jobs,
    tokens: TokenCache,
    peers: Peers,
    refused: SlotTable<TokenId, Arc<Verified>>,
    pair_keys: BoundedMap<(AgreementPublic, AgreementPublic, Role), Arc<PairKeys>>,
    known: BoundedMap<Destination, Known>,
    hostile: BoundedMap<Destination, Instant>,
    verify_source: Budget,
    verify_total: Budget,
    verify_proven: Budget,
    replies: Budget,
    explanations: Budget,
    records: Aggregator,
    counters: BTreeMap<(PuSlot, Reason), u64>,
}

/// A processing unit as it is in force.
pub(crate) type Unit = PuSpec;

/// Where a unit connects to.
type Destination = (PuSlot, (std::net::IpAddr, u16));

/// A destination at which identity was shown with success.
#[derive(Clone, Debug)]
struct Known {
    /// The node behind it, where nothing translates the address.
    peer: Option<Arc<Verified>>,
    /// The token of ours that worked last there.
    holds: TokenId,
    /// Behind a service: the newest agreement key of ours that was tried.
    tried_key: Option<KeyName>,
}

/// The packet under judgement and what is known about it; the view is that of its protocol.
struct Context<'a, V = Segment> {
    unit: Arc<Unit>,
    slot: PuSlot,
    key: FlowKey,
    view: V,
    now: Now,
    out: &'a mut Vec<Effect>,
}

/// What becomes of the packet under judgement.
enum Next {
    /// It goes on, with the bytes it has.
    Pass,
    /// It is dropped.
    Drop(Reason),
    /// It waits for the proof of this handshake.
    Hold(HalfOpenKey),
    /// It waits for the first fragment of this packet.
    HoldFragment(FragmentKey),
    /// It waits for the identity of the flow's other end.
    HoldFlow(FlowKey),
    /// The same, for a later fragment of a packet that waits.
    HoldPart(FlowKey),
    /// It waits for this signature check.
    Park(u64),
    /// It was transmitted in the right order with others.
    Sent,
}

type Judged = Result<Next, Box<Refused>>;

impl Engine {
    /// Builds an engine. Nonces, agreement keys and cookies come from `seed`: 32 bytes of the operating system's
    /// randomness, or fixed ones in tests.
    ///
    /// # Errors
    /// [`EngineError`] if a limit is zero or no agreement key can be made.
    pub fn new(config: EngineConfig, secrets: Secrets, seed: [u8; 32]) -> Result<Self, EngineError> {
        let tokens = NonZeroUsize::new(config.tokens).ok_or(EngineError::ZeroLimit("tokens"))?;
        if config.units == 0 {
            return Err(EngineError::ZeroLimit("units"));
        }
        let mut random = Pooled::new(SeededRandom::new(seed));
        let mut cookie_key = [0; 16];
        random.fill(&mut cookie_key);
        let settings = Settings { encoding: secrets.encoding, lifetime_secs: config.token_lifetime_secs };
        // The first unit's arrival tells the time; the key made here is replaced then.
        let own = OwnTokens::new(settings, WallTime(0), &mut random).map_err(EngineError::Agreement)?;
        let budget = |limits| Budget::new(limits, config.sources);
        Ok(Self {
            rotate_at: Instant(0),
            own,
            cookie_key: MacKey::from_bytes(cookie_key),
            random,
            units: BTreeMap::new(),
            handshakes: HalfOpenTable::new(config.half_open),
            held: HeldQueue::new(config.held),
            flows: BoundedMap::new(config.flows),
            fragments: FragmentTable::new(config.fragmented),
            fragments_held: HeldQueue::new(config.fragments_held),
            waiting: HeldQueue::new(config.first_datagrams),
            retries: Deadlines::default(),
            awaited: BoundedMap::new(config.flows),
            agents: Agents::new(config.destinations),
            jobs: Jobs::new(config.verifications, config.parked_packets),
            tokens: TokenCache::new(tokens),
            peers: Peers::new(config.peers),
            refused: SlotTable::new(config.refused_peers),
            pair_keys: BoundedMap::new(config.pair_keys),
            known: BoundedMap::new(config.destinations),
            hostile: BoundedMap::new(config.destinations),
            verify_source: budget(config.verify_source),
            verify_total: Budget::new(config.verify_total, 1),
            verify_proven: Budget::new(config.verify_total, 1),
            replies: budget(config.replies),
            explanations: Budget::new(config.explanations, 1),
            records: Aggregator::new(config.records, config.record_interval),
            counters: BTreeMap::new(),
            secrets,
            config,
        })
    }

    /// Judges one packet.
    ///
    /// The effects pushed to `out` are to be carried out in order, then the verdict.
    pub fn handle_packet(&mut self, mut packet: Packet, now: Now, out: &mut Vec<Effect>) -> Verdict {
        match self.judge(&mut packet, now, out) {
            Next::Pass => Verdict::Pass(packet),
            Next::Drop(reason) => Verdict::Drop(reason),
            Next::Sent => Verdict::Held,
            Next::Park(job) => {
                self.jobs.park(job, packet);
                Verdict::Held
            }
            Next::Hold(handshake) => {
                let len = packet.bytes.len();
                match self.held.push(handshake, packet, len, now.monotonic) {
                    Ok(()) => Verdict::Held,
                    Err(packet) => self.refuse_waiting(packet, &Reason::HeldFull.into(), now, out),
                }
            }
            Next::HoldFlow(flow) => {
                let len = ip_payload_len(&packet);
                self.hold_fragments(&packet, flow, now);
                match self.waiting.push(flow, packet, len, now.monotonic) {
                    Ok(()) => Verdict::Held,
                    Err(packet) => self.refuse_waiting(packet, &Reason::HeldFull.into(), now, out),
                }
            }
            Next::HoldPart(flow) => {
                let len = ip_payload_len(&packet);
                match self.waiting.push_part(flow, packet, len) {
                    Ok(()) => Verdict::Held,
                    Err(packet) => self.refuse_waiting(packet, &Reason::HeldFull.into(), now, out),
                }
            }
            Next::HoldFragment(key) => {
                let len = packet.bytes.len();
                match self.fragments_held.push(key, packet, len, now.monotonic) {
                    Ok(()) => Verdict::Held,
                    Err(packet) => self.refuse_waiting(packet, &Reason::HeldFull.into(), now, out),
                }
            }
        }
    }

    /// Owner, parse, then one step per kind of segment; the steps find the flow, authenticate, authorize, rewrite and
    /// record.
    fn judge(&mut self, packet: &mut Packet, now: Now, out: &mut Vec<Effect>) -> Next {
        let Some(unit) = self.units.get(&packet.pu).map(Arc::clone) else {
            self.count(NO_UNIT, Reason::UnitUnknown);
            return Next::Drop(Reason::UnitUnknown);
        };
        if unit.policy.mode() == Mode::Off {
            return Next::Pass;
        }
        let view = match parse::parse(&mut packet.bytes) {
            Ok(Parsed::Tcp(segment)) => segment,
            Ok(Parsed::Datagram(view)) => {
                let key = parse::datagram_key(packet.pu, packet.hook, &view);
                let mut cx = Context { unit, slot: packet.pu, key, view, now, out };
                return self.judge_datagram(&mut cx, packet);
            }
            Ok(Parsed::IcmpError(error)) => return self.icmp_error(&unit, packet, &error, now, out),
            Err(reason) => return self.refuse_unparsed(&unit, packet, reason),
        };
        let key = parse::flow_key(packet.pu, packet.hook, &view);
        let mut cx = Context { unit, slot: packet.pu, key, view, now, out };
        // Before the packet is looked at: the back end has forgotten the handshake, and a bad packet must not end it.
        let judged = self
            .adopt(&mut cx, packet)
            .and_then(|()| {
                parse::check(&packet.bytes, &cx.view).map_err(|reason| Refused::by_hook(packet.hook, reason))
            })
            .and_then(|()| self.dispatch(&mut cx, packet));
        match judged {
            Ok(next) => next,
            Err(refused) => self.refuse(&mut cx, packet, *refused),
        }
    }

    fn dispatch(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        let flags = cx.view.flags;
        match packet.hook {
            Hook::FromPu if flags.is_syn() => self.egress_syn(cx, packet),
            Hook::ToPu if flags.is_syn() => self.ingress_syn(cx, packet),
            Hook::FromPu if flags.is_syn_ack() => self.egress_syn_ack(cx, packet),
            Hook::ToPu if flags.is_syn_ack() => self.ingress_syn_ack(cx, packet),
            Hook::FromPu => self.egress_segment(cx, packet),
            Hook::ToPu => self.ingress_segment(cx, packet),
        }
    }

    fn count(&mut self, slot: PuSlot, reason: Reason) {
        self.count_many(slot, reason, 1);
    }

    fn count_many(&mut self, slot: PuSlot, reason: Reason, count: u64) {
        let counter = self.counters.entry((slot, reason)).or_insert(0);
        *counter = counter.saturating_add(count);
    }

    /// A picture of counters and table sizes.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let (held_packets, held_bytes) = self.held.size();
        EngineStats {
            half_open: self.handshakes.len(),
            held_packets,
            held_bytes,
            fragmented: self.fragments.len(),
            fragments_held: self.fragments_held.size().0,
            waiting: self.waiting.size().0,
            flows: self.flows.len(),
            parked_packets: self.jobs.parked(),
            verifications: self.jobs.len(),
            peers: self.peers.len(),
            pair_keys: self.pair_keys.len(),
            tokens: self.tokens.len(),
            records: self.records.len(),
            records_lost: self.records.lost(),
            reasons: self.counters.clone(),
        }
    }
}

/// What a datagram of the largest size and its fragments have in common: headers do not count.
fn ip_payload_len(packet: &Packet) -> usize {
    trireme_wire::ip::Packet::parse(&packet.bytes).map_or(packet.bytes.len(), |ip| ip.payload_len())
}

/// Where packets are counted that no unit owns.
const NO_UNIT: PuSlot = PuSlot(u32::MAX);

impl PuError {
    fn token(spec: &PuSpec, source: IssueError) -> Self {
        Self::Token { id: spec.id.clone(), source }
    }
}
