//! All cases, in rounds.

mod queues;

use std::path::Path;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use trireme_testkit::lab::{Family, Side};

use crate::bed::{Bed, Enforcement};
use crate::contact::Strangers;
use crate::kernel::Maps;
use crate::load::{self, CLIENTS, Rate};
use crate::profile::{self, Table};
use crate::report::Results;
use crate::{cut, flood, process};
use queues::{Beds, OpenBed};

pub(crate) use queues::queues;

/// Workloads on each node that crr-many has beside client and server.
const FILLERS: u16 = 98;
const PEERS: u32 = 10_000;
const CONNECTIONS: u32 = 1_000_000;
/// The shortest that a token can live; a new one is made after half of it.
const SHORT_LIFE_SECS: u64 = 60;
/// How long a quick run stops for a rotation.
const SHORT_WAIT: Duration = Duration::from_secs(4);
/// Behind this time a quick run begins no other round: it must end within a minute.
const QUICK: Duration = Duration::from_secs(36);
/// Until then a quick run waits for a rotation that it has not seen.
const LAST_WAIT: Duration = Duration::from_secs(45);
/// Refused attempts per second.
const HAMMERING: u32 = 10_000;
/// SYNs of unknown senders per second.
const FLOOD: u32 = 100_000;

/// How long a run may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Interleaved rounds.
    pub(crate) rounds: u32,
    /// Length of one load.
    pub(crate) time: Duration,
    /// Leaves out what takes minutes, and does not wait for rotations of tokens.
    pub(crate) quick: bool,
}

/// What came of a run.
pub(crate) struct Outcome {
    /// The cases.
    pub(crate) results: Results,
    /// Where the programs spend their time.
    pub(crate) profiles: Vec<Table>,
}

/// Builds the beds, runs all cases and removes the beds.
pub(crate) fn run(program: &Path, extent: Extent) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let progress = |what: &str| eprintln!("{:4} s: {what}", began.elapsed().as_secs());
    progress("building nodes and workloads");
    let mut suite = Suite::build(program, extent)?;
    for round in 1..=extent.rounds {
        if extent.quick && round > 1 && began.elapsed() > QUICK {
            progress("no time for another round");
            break;
        }
        progress(&format!("round {round} of {}", extent.rounds));
        suite.round()?;
    }
    if extent.quick {
        suite.rotation(LAST_WAIT.saturating_sub(began.elapsed()))?;
    }
    progress("changes of policy, memory, profile");
    suite.once(program)?;
    let profiles = if extent.quick {
        Vec::new()
    } else {
        profile::tables(&suite.fast, Family::V4, CLIENTS, extent.time)?.into()
    };
    progress("removing nodes and workloads");
    let Suite { bare, fast, punt, many, rotating, queued, strangers, results, .. } = suite;
    std::thread::scope(|scope| {
        for bed in [bare, fast, punt, many, rotating, queued] {
            scope.spawn(|| drop(bed));
        }
        drop(strangers);
    });
    Ok(Outcome { results, profiles })
}

struct Suite {
    extent: Extent,
    bare: Bed,
    fast: Bed,
    punt: Bed,
    many: Bed,
    rotating: Bed,
    queued: Bed,
    open: OpenBed,
    /// When the next rotation is to be measured.
    rotation: Instant,
    strangers: Strangers,
    syns: Vec<Vec<u8>>,
    results: Results,
}

impl Suite {
    fn build(program: &Path, extent: Extent) -> anyhow::Result<Self> {
        let plain = Enforcement::default();
        let with_others = Enforcement { others: true, ..plain.clone() };
        let short_lived = Enforcement { lifetime_secs: SHORT_LIFE_SECS, ..plain.clone() };
        let crowded = Enforcement { fillers: FILLERS, ..plain.clone() };
        let queues = Enforcement { datapath: "nfqueue", ..plain.clone() };
        let slow = Enforcement { fast_path: false, ..plain };
        std::thread::scope(|scope| {
            let build = |enforcement| scope.spawn(move || Bed::enforced(program, enforcement));
            let [rotating, fast, many, punt, queued] =
                [&short_lived, &with_others, &crowded, &slow, &queues].map(build);
            let bare = scope.spawn(|| Bed::bare(program));
            let strangers = Strangers::build(program)?;
            let (rotating, fast, many) = (built(rotating)?, built(fast)?, built(many)?);
            for side in Side::BOTH {
                Maps::of(&many, side)?.insert_peers(PEERS)?;
            }
            Ok(Self {
                extent,
                bare: built(bare)?,
                syns: flood::unknown_syns(&fast)?,
                fast,
                punt: built(punt)?,
                many,
                rotation: rotating.began + rotation_interval(),
                rotating,
                queued: built(queued)?,
                open: OpenBed::build(program)?,
                strangers,
                results: Results::default(),
            })
        })
    }

    /// Every case once.
    fn round(&mut self) -> anyhow::Result<()> {
        self.connections()?;
        self.rotation(SHORT_WAIT)?;
        self.established()?;
        self.rotation(SHORT_WAIT)?;
        self.latency()?;
        self.bystanders()?;
        if !self.extent.quick {
            let time = self.extent.time;
            Beds { bare: &self.bare, queued: &self.queued, open: &self.open, time }
                .round(&mut self.results)?;
        }
        self.rotation(SHORT_WAIT)?;
        self.hammering()?;
        self.rotation(SHORT_WAIT)?;
        self.flood()?;
        self.strangers.meet(&mut self.results)?;
        self.rotation(if self.extent.quick { SHORT_WAIT } else { rotation_interval() })
    }

    fn connections(&mut self) -> anyhow::Result<()> {
        let before = self.fast.punts();
        let [[bare], [fast]] = self.turns(|time| crr(&self.bare, time), |time| crr(&self.fast, time))?;
        let punts = (self.fast.punts() - before) / (fast * self.extent.time.as_secs_f64());
        self.results.variant("crr-fast-path", "ipv4", "connections/s", [bare, fast]);
        self.results.value("punts-per-connection", "segments", punts);
        let [[fast], [many]] = self.turns(|time| crr(&self.fast, time), |time| crr(&self.many, time))?;
        self.results.compare(("crr-many", None), "connections/s", "crr-fast-path", fast, many);
        let [punt] = crr(&self.punt, self.extent.time)?;
        self.results.pair("crr-punt", "connections/s", bare, punt);
        let crr = |bed: &Bed, time| rate(load::connections(bed.way(Family::V6), CLIENTS, time));
        let [[bare], [fast]] = self.turns(|time| crr(&self.bare, time), |time| crr(&self.fast, time))?;
        self.results.variant("crr-fast-path", "ipv6", "connections/s", [bare, fast]);
        Ok(())
    }

    fn established(&mut self) -> anyhow::Result<()> {
        for (family, variant) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
            let bulk = |bed: &Bed, time| load::bulk(bed.way(family), time).map(|rate| [rate]);
            let [[bare], [fast]] =
                self.turns(|time| bulk(&self.bare, time), |time| bulk(&self.fast, time))?;
            self.results.variant("bulk", variant, "bytes/s", [bare, fast]);
            let trips = |bed: &Bed, time| load::round_trips(bed.way(family), time).map(|rate| [rate]);
            let [[bare], [fast]] =
                self.turns(|time| trips(&self.bare, time), |time| trips(&self.fast, time))?;
            self.results.variant("rr-established", variant, "round trips/s", [bare, fast]);
        }
        Ok(())
    }

    fn latency(&mut self) -> anyhow::Result<()> {
        let latency = |bed: &Bed, time| {
            load::connect_latency(bed.way(Family::V4), time).map(|latency| [latency.p50, latency.p99])
        };
        let [bare, fast] = self.turns(|time| latency(&self.bare, time), |time| latency(&self.fast, time))?;
        self.results.pair("connect-known-p50", "us", bare[0], fast[0]);
        self.results.pair("connect-known-p99", "us", bare[1], fast[1]);
        Ok(())
    }

    fn bystanders(&mut self) -> anyhow::Result<()> {
        let crr = |bed: &Bed, time| rate(load::connections(bed.others()?.way(), CLIENTS, time));
        let [[bare], [fast]] = self.turns(|time| crr(&self.bare, time), |time| crr(&self.fast, time))?;
        self.results.variant("non-pu", "crr", "connections/s", [bare, fast]);
        let bulk = |bed: &Bed, time| load::bulk(bed.others()?.way(), time).map(|rate| [rate]);
        let [[bare], [fast]] = self.turns(|time| bulk(&self.bare, time), |time| bulk(&self.fast, time))?;
        self.results.variant("non-pu", "bulk", "bytes/s", [bare, fast]);
        Ok(())
    }

    fn hammering(&mut self) -> anyhow::Result<()> {
        let cases = [("refused-hammering", &self.fast), ("refused-hammering-no-hooks", &self.bare)];
        for (case, bed) in cases {
            let hammered = |time| {
                let ([rate], attempts) = flood::during_refusals(bed, HAMMERING, || crr(bed, time))?;
                Ok([rate, attempts])
            };
            let alone = |time| crr(bed, time).map(|[rate]| [rate, 0.0]);
            let [[alone, _], [rate, attempts]] = self.turns(alone, hammered)?;
            self.results.compare((case, None), "connections/s", "alone", alone, rate);
            if case == "refused-hammering" {
                self.results.value("refused-hammering-attempts", "attempts/s", attempts);
            }
        }
        Ok(())
    }

    fn flood(&mut self) -> anyhow::Result<()> {
        let under_flood = |bed: &Bed, time| {
            let (before, punts) = (busiest_agent(bed)?, bed.punts());
            let began = Instant::now();
            let ([rate], syns) = flood::during_syns(bed, &self.syns, FLOOD, || crr(bed, time))?;
            let seconds = began.elapsed().as_secs_f64();
            Ok([rate, syns, (busiest_agent(bed)? - before) / seconds, (bed.punts() - punts) / seconds])
        };
        let [bare, fast] =
            self.turns(|time| under_flood(&self.bare, time), |time| under_flood(&self.fast, time))?;
        self.results.pair("syn-flood", "connections/s", bare[0], fast[0]);
        self.results.value("syn-flood-syns", "SYNs/s", fast[1]);
        self.results.value("syn-flood-agent-cpu", "cores", fast[2]);
        self.results.value("syn-flood-punts", "segments/s", fast[3]);
        Ok(())
    }

    fn turns<const N: usize>(
        &self,
        base: impl Fn(Duration) -> anyhow::Result<[f64; N]>,
        case: impl Fn(Duration) -> anyhow::Result<[f64; N]>,
    ) -> anyhow::Result<[[f64; N]; 2]> {
        turns(self.extent.time, base, case)
    }

    /// Measures a rotation of tokens if one comes within `patience`.
    fn rotation(&mut self, patience: Duration) -> anyhow::Result<()> {
        /// Longer than the agents' starts lie apart.
        const WINDOW: Duration = Duration::from_millis(2400);
        let now = Instant::now();
        if self.extent.quick && self.results.has("crr-fast-path", "during rotation") {
            return Ok(());
        }
        while self.rotation < now + WINDOW * 2 {
            self.rotation += rotation_interval();
        }
        if self.rotation > now + WINDOW * 2 + patience {
            return Ok(());
        }
        let [bare] = crr(&self.bare, WINDOW)?;
        let maps = Maps::of(&self.rotating, Side::A)?;
        let before = maps.newest_tokens()?;
        let wait = self.rotation.saturating_duration_since(Instant::now()).saturating_sub(WINDOW / 2);
        std::thread::sleep(wait);
        let [rotating] = crr(&self.rotating, WINDOW)?;
        if maps.newest_tokens()? == before {
            eprintln!("no token was rotated when one was expected");
        } else {
            self.results.variant("crr-fast-path", "during rotation", "connections/s", [bare, rotating]);
        }
        Ok(())
    }

    /// What is measured at the end only.
    fn once(&mut self, program: &Path) -> anyhow::Result<()> {
        let changes = if self.extent.quick { 2 } else { 20 };
        let cut = cut::times(&self.fast, changes).context("measuring how fast a change cuts")?;
        self.results.value("policy-cut-p50", "ms", cut.p50 / 1e3);
        self.results.value("policy-cut-p99", "ms", cut.p99 / 1e3);
        self.results.value("policy-cut-connections", "connections", load::approximate(cut.count as u64));
        self.results.value("agent-rss", "MiB", largest_mib(&[&self.fast, &self.many])?);
        self.results.value("map-memory", "MiB", map_mib(&self.many)?);
        if !self.extent.quick {
            self.million(program)?;
            queues::rules(program, queues::UNITS, &mut self.results)?;
        }
        Ok(())
    }

    /// Memory with every table as full as the issue says.
    fn million(&mut self, program: &Path) -> anyhow::Result<()> {
        let more = format!("\n[limits]\nconnections = {}\n", CONNECTIONS + 100_000);
        let bed = Bed::enforced(program, &Enforcement { fillers: FILLERS, more, ..Enforcement::default() })?;
        let maps = Maps::of(&bed, Side::B)?;
        maps.insert_peers(PEERS)?;
        maps.insert_connections(CONNECTIONS)?;
        // Several rounds of the sweep see them all.
        for _ in 0..20 {
            std::thread::sleep(Duration::from_secs(1));
            self.results.value("agent-rss-million", "MiB", largest_mib(&[&bed])?);
        }
        self.results.value("map-memory-million", "MiB", map_mib(&bed)?);
        let [[bare], [full]] = self.turns(|time| crr(&self.bare, time), |time| crr(&bed, time))?;
        self.results.pair("crr-million", "connections/s", bare, full);
        Ok(())
    }
}

/// Base and case in turns (base, case, case, base), so that a slow change of the machine hits both alike.
fn turns<const N: usize>(
    time: Duration,
    base: impl Fn(Duration) -> anyhow::Result<[f64; N]>,
    case: impl Fn(Duration) -> anyhow::Result<[f64; N]>,
) -> anyhow::Result<[[f64; N]; 2]> {
    let half = time / 2;
    let base = || base(half).context("where it is compared with");
    let case = || case(half).context("the case itself");
    let (first, second, third, fourth) = (base()?, case()?, case()?, base()?);
    let mean = |one: [f64; N], other: [f64; N]| {
        std::array::from_fn(|place| match (one.get(place), other.get(place)) {
            (Some(one), Some(other)) => f64::midpoint(*one, *other),
            _ => f64::NAN,
        })
    };
    Ok([mean(first, fourth), mean(second, third)])
}

/// What a thread built.
fn built(thread: ScopedJoinHandle<'_, anyhow::Result<Bed>>) -> anyhow::Result<Bed> {
    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("building a bed panicked")))
}

/// Connections per second by IPv4.
fn crr(bed: &Bed, time: Duration) -> anyhow::Result<[f64; 1]> {
    rate(load::connections(bed.way(Family::V4), CLIENTS, time))
}

/// A rate, with a word about connections that failed.
fn rate(rate: anyhow::Result<Rate>) -> anyhow::Result<[f64; 1]> {
    let Rate { per_second, failed } = rate?;
    if failed > 0 {
        eprintln!("{failed} connections failed");
    }
    Ok([per_second])
}

const fn rotation_interval() -> Duration {
    Duration::from_secs(SHORT_LIFE_SECS / 2)
}

/// Seconds of processor time of the busier agent.
fn busiest_agent(bed: &Bed) -> anyhow::Result<f64> {
    let mut busiest = Duration::ZERO;
    for id in bed.processes() {
        busiest = busiest.max(process::cpu_time(id)?);
    }
    Ok(busiest.as_secs_f64())
}

fn largest_mib(beds: &[&Bed]) -> anyhow::Result<f64> {
    let mut largest = 0;
    for bed in beds {
        largest = largest.max(bed.memory_kib()?);
    }
    Ok(load::approximate(largest) / 1024.0)
}

/// Kernel memory of the maps of one agent.
fn map_mib(bed: &Bed) -> anyhow::Result<f64> {
    let id = *bed.processes().last().context("no agent")?;
    Ok(load::approximate(process::bpf_map_bytes(id)?) / f64::from(1 << 20))
}
