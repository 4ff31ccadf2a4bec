//! The wire between the edges: loses, duplicates, reorders, delays, corrupts and replays packets.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::clock::nanos_of;

/// How bad a path is. Probabilities are per packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSpec {
    /// Probability that a packet vanishes.
    pub loss: f64,
    /// Probability that it arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of it changes.
    pub corrupt: f64,
    /// Probability that it is held up longer than a retransmission timeout.
    pub stall: f64,
    /// Probability that a copy of it comes back much later.
    pub replay: f64,
    /// Time in flight without jitter.
    pub delay: Duration,
    /// Largest extra time in flight; more than the gap between packets reorders them.
    pub jitter: Duration,
    /// Largest packet that gets through.
    pub mtu: usize,
}

impl LinkSpec {
    /// A path that does nothing but take time.
    pub const PERFECT: Self = Self {
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        stall: 0.0,
        replay: 0.0,
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
        mtu: 1500,
    };

    /// Whether every packet arrives once, intact and in time.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        [self.loss, self.duplicate, self.corrupt, self.stall, self.replay].iter().all(|share| *share == 0.0)
    }
}

/// What became of a packet on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It arrives as it was.
    Intact,
    /// It never arrives.
    Lost,
    /// It is larger than the path allows.
    TooBig,
    /// It arrives with one bit changed.
    Corrupted,
    /// It arrives after a long stall.
    Stalled,
    /// An extra copy arrives soon.
    Duplicated,
    /// An extra copy arrives much later.
    Replayed,
}

impl Fate {
    /// How traces call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intact => "delivers",
            Self::Lost => "loses",
            Self::TooBig => "drops what is too big",
            Self::Corrupted => "corrupts",
            Self::Stalled => "stalls",
            Self::Duplicated => "duplicates",
            Self::Replayed => "will replay",
        }
    }
}

/// One copy of a packet on its way.
#[derive(Debug)]
pub struct InFlight {
    /// Nanoseconds until it arrives; meaningless for what does not arrive.
    pub after: u64,
    /// What the wire did to it.
    pub fate: Fate,
    /// Its bytes, unless it is lost.
    pub packet: Option<Vec<u8>>,
}

/// A path with its own stream of randomness.
#[derive(Debug)]
pub struct Link {
    spec: LinkSpec,
    rng: ChaCha8Rng,
    quiet: bool,
}

impl Link {
    /// A path that behaves as `spec` says.
    #[must_use]
    pub const fn new(spec: LinkSpec, rng: ChaCha8Rng) -> Self {
        Self { spec, rng, quiet: false }
    }

    /// Stops every impairment but the time in flight.
    pub const fn calm_down(&mut self) {
        self.quiet = true;
    }

    /// Decides the fate of `packet`; one draw per impairment, whatever the outcome of the others.
    pub fn send(&mut self, packet: Vec<u8>) -> Vec<InFlight> {
        let spec = self.spec;
        let draws: [f64; 5] = self.rng.random();
        let [loss, duplicate, corrupt, stall, replay] = draws;
        let [jitter, copy_jitter, long, bit]: [u32; 4] = self.rng.random();
        let after = nanos_of(spec.delay) + scale(nanos_of(spec.jitter), jitter);
        if packet.len() > spec.mtu {
            return vec![InFlight { after, fate: Fate::TooBig, packet: None }];
        }
        if self.quiet {
            return vec![InFlight { after, fate: Fate::Intact, packet: Some(packet) }];
        }
        let mut copies = Vec::with_capacity(1);
        if duplicate < spec.duplicate {
            let after = nanos_of(spec.delay) + scale(nanos_of(spec.jitter), copy_jitter);
            copies.push(InFlight { after, fate: Fate::Duplicated, packet: Some(packet.clone()) });
        }
        if replay < spec.replay {
            let after = 1_000_000_000 + scale(60_000_000_000, long);
            copies.push(InFlight { after, fate: Fate::Replayed, packet: Some(packet.clone()) });
        }
        let first = if loss < spec.loss {
            InFlight { after, fate: Fate::Lost, packet: None }
        } else if corrupt < spec.corrupt {
            InFlight { after, fate: Fate::Corrupted, packet: Some(flip(packet, bit)) }
        } else if stall < spec.stall {
            let after = after + 1_000_000_000 + scale(5_000_000_000, long);
            InFlight { after, fate: Fate::Stalled, packet: Some(packet) }
        } else {
            InFlight { after, fate: Fate::Intact, packet: Some(packet) }
        };
        copies.insert(0, first);
        copies
    }
}

fn flip(mut packet: Vec<u8>, draw: u32) -> Vec<u8> {
    let bits = packet.len() as u64 * 8;
    let bit = usize::try_from((bits * u64::from(draw)) >> 32).unwrap_or(0);
    packet[bit / 8] ^= 1 << (bit % 8);
    packet
}

/// `draw` as a fraction of `range`.
fn scale(range: u64, draw: u32) -> u64 {
    u64::try_from((u128::from(range) * u128::from(draw)) >> 32).unwrap_or(range)
}
