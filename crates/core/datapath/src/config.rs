//! Limits and secrets of an engine.

use std::sync::Arc;
use std::time::Duration;

use trireme_flow::{BudgetConfig, HalfOpenLimits, HeldLimits};
use trireme_token::{Encoding, IssueError, Signer, Verifier};

/// Limits, budgets and times of an engine; every default is in [`EngineConfig::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Processing units; default 1,024.
    pub units: usize,
    /// Handshakes in progress; defaults: 65,536 in total, 16,384 per unit and role, 4,096 per source and unit,
    /// a quarter of each kept for SYNs with a valid MAC or cookie.
    pub half_open: HalfOpenLimits,
    /// How long an initiator's handshake without progress is remembered; default 70 s, longer than the longest
    /// pause between a stack's SYN retransmissions.
    pub initiator_timeout: Duration,
    /// How long a responder's handshake without progress is remembered; default 40 s, as above for SYN-ACKs.
    pub responder_timeout: Duration,
    /// How long a completed handshake is remembered, to repeat the proof and to serve packets already on their way
    /// to the engine; default 40 s.
    pub completed_timeout: Duration,
    /// Data that overtook the proof; defaults: 50 ms, 64 KiB and 32 packets per flow, 4 MiB in total.
    pub held: HeldLimits,
    /// Fragments that overtook the first one; defaults: 250 ms, 64 fragments and 64 KiB per packet, 1 MiB in total.
    pub fragments_held: HeldLimits,
    /// Datagrams that wait for an exchange of identities; defaults: 3 s, 32 datagrams and 64 KiB per flow, 4 MiB in total.
    pub first_datagrams: HeldLimits,
    /// Fragmented packets under way whose first fragment was admitted; default 4,096.
    pub fragmented: usize,
    /// Flows of other protocols admitted lately; default 16,384.
    pub flows: usize,
    /// How long a back end may drop the packets of a refused flow without asking; default 10 s.
    pub block_time: Duration,
    /// Packets that wait for a signature check, in total; default 1,024.
    pub parked_packets: usize,
    /// Signature checks under way at once; default 256.
    pub verifications: usize,
    /// Signature checks per second that one source may cause; default 200, burst 64.
    pub verify_source: BudgetConfig,
    /// Signature checks per second in total; default 4,000, burst 512.
    pub verify_total: BudgetConfig,
    /// Kind-4 and kind-5 messages, resets and ICMP errors that one source may cause; default 100/s, burst 50.
    pub replies: BudgetConfig,
    /// Sources whose budgets are remembered; default 16,384.
    pub sources: usize,
    /// Verified tokens in the cache; default 16,384.
    pub tokens: usize,
    /// Peers whose claims are kept for judging live connections again; default 16,384.
    pub peers: usize,
    /// Initiators whose refusal was taught to the back end, so that its events name them; default 4,096.
    pub refused_peers: usize,
    /// Pair keys in the cache; default 16,384.
    pub pair_keys: usize,
    /// Destinations remembered as known nodes or as hostile paths; default 16,384 each.
    pub destinations: usize,
    /// How long a destination is remembered as a hostile path; default 10 min.
    pub hostile_timeout: Duration,
    /// Whether tokens that the peer is known to hold are left out of first transmissions; default yes.
    pub known_tokens: KnownTokens,
    /// Flow records being aggregated; default 8,192. Beyond, decisions are counted only.
    pub records: usize,
    /// How long equal decisions are gathered into one record; default 1 s. The first of them is emitted at once.
    pub record_interval: Duration,
    /// Explanations of refusals by policy; default 100/s, burst 100.
    pub explanations: BudgetConfig,
    /// Repetitions of an unconfirmed proof after which this node's conntrack entry is deleted; default 2.
    pub forget_conntrack_after: u32,
    /// Largest packet, in bytes, that a TAP message may grow a SYN or SYN-ACK to; default 1,280 (the IPv6 minimum).
    pub handshake_mtu: usize,
    /// Lifetime of own tokens in seconds; default 600.
    pub token_lifetime_secs: u64,
}

/// What happens to tokens that the peer is known to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownTokens {
    /// First transmissions carry only their id; retransmissions carry them in full.
    #[default]
    Omit,
    /// Every SYN and SYN-ACK carries them in full.
    Attach,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            units: 1024,
            half_open: HalfOpenLimits::default(),
            initiator_timeout: Duration::from_secs(70),
            responder_timeout: Duration::from_secs(40),
            completed_timeout: Duration::from_secs(40),
            held: HeldLimits::default(),
            fragments_held: HeldLimits {
                time: Duration::from_millis(250),
                flow_packets: 64,
                flow_bytes: 64 << 10,
                total_bytes: 1 << 20,
            },
            first_datagrams: HeldLimits { time: Duration::from_secs(3), ..HeldLimits::default() },
            fragmented: 4096,
            flows: 16_384,
            block_time: Duration::from_secs(10),
            parked_packets: 1024,
            verifications: 256,
            verify_source: BudgetConfig { per_second: 200, burst: 64 },
            verify_total: BudgetConfig { per_second: 4000, burst: 512 },
            replies: BudgetConfig { per_second: 100, burst: 50 },
            sources: 16_384,
            tokens: 16_384,
            peers: 16_384,
            refused_peers: 4096,
            pair_keys: 16_384,
            destinations: 16_384,
            hostile_timeout: Duration::from_mins(10),
            known_tokens: KnownTokens::default(),
            records: 8192,
            record_interval: Duration::from_secs(1),
            explanations: BudgetConfig { per_second: 100, burst: 100 },
            forget_conntrack_after: 2,
            handshake_mtu: 1280,
            token_lifetime_secs: 600,
        }
    }
}

/// What a node proves itself with and what it trusts.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Makes the node's tokens.
    pub signer: Arc<Signer>,
    /// Judges the peers' tokens; the same one runs the [`VerifyJob`](crate::VerifyJob)s.
    pub verifier: Arc<Verifier>,
    /// The form of the node's tokens; both forms are accepted.
    pub encoding: Encoding,
}

/// Why an engine cannot be built or rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A limit of zero would admit nothing, ever.
    #[error("{0} must not be zero")]
    ZeroLimit(&'static str),
    /// No agreement key can be made.
    #[error("no agreement key can be made")]
    Agreement(#[source] IssueError),
    /// The units' tokens cannot be made with the new secrets; the old ones stay in force.
    #[error("the units' tokens cannot be made with the new secrets")]
    Secrets(#[source] IssueError),
}
