//! All cases, in rounds.

use std::path::Path;
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

/// Workloads on each node that crr-many has beside client and server.
const FILLERS: u16 = 98;
const PEERS: u32 = 10_000;
const CONNECTIONS: u32 = 1_000_000;
/// The shortest that a token can live; a new one is made after half of it.
const SHORT_LIFE_SECS: u64 = 60;
/// How long a quick run stops for a rotation.
const SHORT_WAIT: Duration = Duration::from_secs(4);
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
    let mut suite = Suite::build(program, extent)?;
    for round in 1..=extent.rounds {
        eprintln!("round {round} of {}", extent.rounds);
        suite.round(round)?;
    }
    suite.once(program)?;
    let profiles = profile::tables(&suite.fast, Family::V4, CLIENTS, extent.time)?.into();
    Ok(Outcome { results: suite.results, profiles })
}

struct Suite {
    extent: Extent,
    bare: Bed,
    fast: Bed,
    punt: Bed,
    many: Bed,
    rotating: Bed,
    /// When the next rotation is to be measured.
    rotation: Instant,
    strangers: Strangers,
    syns: Vec<Vec<u8>>,
    results: Results,
}

impl Suite {
    fn build(program: &Path, extent: Extent) -> anyhow::Result<Self> {
        let enforcement = Enforcement::default();
        let rotating =
            Bed::enforced(program, &Enforcement { lifetime_secs: SHORT_LIFE_SECS, ..enforcement.clone() })?;
        let fast = Bed::enforced(program, &enforcement)?;
        let many = Bed::enforced(program, &Enforcement { fillers: FILLERS, ..enforcement.clone() })?;
        for side in Side::BOTH {
            Maps::of(&many, side)?.insert_peers(PEERS)?;
        }
        Ok(Self {
            extent,
            bare: Bed::bare(program)?,
            syns: flood::unknown_syns(&fast)?,
            fast,
            punt: Bed::enforced(program, &Enforcement { fast_path: false, ..enforcement })?,
            many,
            rotation: rotating.began + rotation_interval(),
            rotating,
            strangers: Strangers::build(program)?,
            results: Results::default(),
        })
    }

    /// Every case once. Base and case change places from round to round.
    fn round(&mut self, round: u32) -> anyhow::Result<()> {
        let flip = round.is_multiple_of(2);
        self.connections(flip)?;
        self.rotation(SHORT_WAIT)?;
        self.established(flip)?;
        self.rotation(SHORT_WAIT)?;
        self.latency(flip)?;
        self.bystanders(flip)?;
        self.rotation(SHORT_WAIT)?;
        self.hammering()?;
        self.rotation(SHORT_WAIT)?;
        self.flood(flip)?;
        self.strangers.meet(&mut self.results)?;
        self.rotation(if self.extent.quick { SHORT_WAIT } else { rotation_interval() })
    }

    fn connections(&mut self, flip: bool) -> anyhow::Result<()> {
        let time = self.extent.time;
        let before = self.fast.punts();
        let [bare, fast] = both(flip, || self.crr(&self.bare), || self.crr(&self.fast))?;
        let connections = fast * time.as_secs_f64();
        let punts = (self.fast.punts() - before) / connections;
        let many = self.crr(&self.many)?;
        let punt = self.crr(&self.punt)?;
        self.results.variant("crr-fast-path", "ipv4", "connections/s", [bare, fast]);
        self.results.compare(("crr-many", None), "connections/s", "crr-fast-path", fast, many);
        self.results.pair("crr-punt", "connections/s", bare, punt);
        self.results.value("punts-per-connection", "segments", punts);
        let crr = |bed: &Bed| rate(load::connections(bed.way(Family::V6), CLIENTS, time));
        let pair = both(flip, || crr(&self.bare), || crr(&self.fast))?;
        self.results.variant("crr-fast-path", "ipv6", "connections/s", pair);
        Ok(())
    }

    fn crr(&self, bed: &Bed) -> anyhow::Result<f64> {
        rate(load::connections(bed.way(Family::V4), CLIENTS, self.extent.time))
    }

    fn established(&mut self, flip: bool) -> anyhow::Result<()> {
        let time = self.extent.time;
        for (family, variant) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
            let bulk = |bed: &Bed| load::bulk(bed.way(family), time);
            let pair = both(flip, || bulk(&self.bare), || bulk(&self.fast))?;
            self.results.variant("bulk", variant, "bytes/s", pair);
            let trips = |bed: &Bed| load::round_trips(bed.way(family), time);
            let pair = both(flip, || trips(&self.bare), || trips(&self.fast))?;
            self.results.variant("rr-established", variant, "round trips/s", pair);
        }
        Ok(())
    }

    fn latency(&mut self, flip: bool) -> anyhow::Result<()> {
        let time = self.extent.time;
        let latency = |bed: &Bed| load::connect_latency(bed.way(Family::V4), time);
        let [bare, fast] = both(flip, || latency(&self.bare), || latency(&self.fast))?;
        self.results.pair("connect-known-p50", "us", bare.p50, fast.p50);
        self.results.pair("connect-known-p99", "us", bare.p99, fast.p99);
        Ok(())
    }

    fn bystanders(&mut self, flip: bool) -> anyhow::Result<()> {
        let time = self.extent.time;
        let crr = |bed: &Bed| rate(load::connections(bed.way_of_bystanders(), CLIENTS, time));
        let pair = both(flip, || crr(&self.bare), || crr(&self.fast))?;
        self.results.variant("non-pu", "crr", "connections/s", pair);
        let bulk = |bed: &Bed| load::bulk(bed.way_of_bystanders(), time);
        let pair = both(flip, || bulk(&self.bare), || bulk(&self.fast))?;
        self.results.variant("non-pu", "bulk", "bytes/s", pair);
        Ok(())
    }

    fn hammering(&mut self) -> anyhow::Result<()> {
        let cases = [("refused-hammering", &self.fast), ("refused-hammering-no-hooks", &self.bare)];
        for (case, bed) in cases {
            let alone = self.crr(bed)?;
            let (hammered, attempts) = flood::during_refusals(bed, HAMMERING, || self.crr(bed))?;
            self.results.compare((case, None), "connections/s", "alone", alone, hammered);
            if std::ptr::eq(bed, &raw const self.fast) {
                self.results.value("refused-hammering-attempts", "attempts/s", attempts);
            }
        }
        Ok(())
    }

    fn flood(&mut self, flip: bool) -> anyhow::Result<()> {
        let under_flood = |bed: &Bed| {
            let before = agents_cpu(bed)?;
            let began = Instant::now();
            let (rate, syns) = flood::during_syns(bed, &self.syns, FLOOD, || self.crr(bed))?;
            let cores = (agents_cpu(bed)? - before) / began.elapsed().as_secs_f64();
            Ok((rate, syns, cores))
        };
        let [bare, fast] = both(flip, || under_flood(&self.bare), || under_flood(&self.fast))?;
        self.results.pair("syn-flood", "connections/s", bare.0, fast.0);
        self.results.value("syn-flood-syns", "SYNs/s", fast.1);
        self.results.value("syn-flood-agent-cpu", "cores", fast.2);
        Ok(())
    }

    /// Measures a rotation of tokens if one comes within `patience`.
    fn rotation(&mut self, patience: Duration) -> anyhow::Result<()> {
        /// Longer than the agents' starts lie apart.
        const WINDOW: Duration = Duration::from_millis(2400);
        let crr = |bed: &Bed| rate(load::connections(bed.way(Family::V4), CLIENTS, WINDOW));
        let now = Instant::now();
        while self.rotation < now + WINDOW * 2 {
            self.rotation += rotation_interval();
        }
        if self.rotation > now + WINDOW * 2 + patience {
            return Ok(());
        }
        let bare = crr(&self.bare)?;
        let maps = Maps::of(&self.rotating, Side::A)?;
        let before = maps.newest_tokens()?;
        let wait = self.rotation.saturating_duration_since(Instant::now()).saturating_sub(WINDOW / 2);
        std::thread::sleep(wait);
        let rotating = crr(&self.rotating)?;
        if maps.newest_tokens()? == before {
            eprintln!("no token was rotated when one was expected");
        } else {
            self.results.variant("crr-fast-path", "during rotation", "connections/s", [bare, rotating]);
        }
        Ok(())
    }

    /// What is measured at the end only.
    fn once(&mut self, program: &Path) -> anyhow::Result<()> {
        let changes = if self.extent.quick { 4 } else { 20 };
        let cut = cut::times(&self.fast, changes).context("measuring how fast a change cuts")?;
        self.results.value("policy-cut-p50", "ms", cut.p50 / 1e3);
        self.results.value("policy-cut-p99", "ms", cut.p99 / 1e3);
        self.results.value("policy-cut-connections", "connections", load::approximate(cut.count as u64));
        self.results.value("agent-rss", "MiB", largest_mib(&[&self.fast, &self.many])?);
        self.results.value("map-memory", "MiB", map_mib(&self.many)?);
        if !self.extent.quick {
            self.million(program)?;
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
        let bare = self.crr(&self.bare)?;
        let full = self.crr(&bed)?;
        self.results.pair("crr-million", "connections/s", bare, full);
        Ok(())
    }
}

/// Base and case, in this order or the other.
fn both<T>(
    flip: bool,
    base: impl FnOnce() -> anyhow::Result<T>,
    case: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<[T; 2]> {
    if flip {
        let case = case().context("on the enforced bed")?;
        Ok([base().context("on the bed without hooks")?, case])
    } else {
        let base = base().context("on the bed without hooks")?;
        Ok([base, case().context("on the enforced bed")?])
    }
}

/// A rate, with a word about connections that failed.
fn rate(rate: anyhow::Result<Rate>) -> anyhow::Result<f64> {
    let Rate { per_second, failed } = rate?;
    if failed > 0 {
        eprintln!("{failed} connections failed");
    }
    Ok(per_second)
}

const fn rotation_interval() -> Duration {
    Duration::from_secs(SHORT_LIFE_SECS / 2)
}

/// Seconds of processor time of the busier agent.
fn agents_cpu(bed: &Bed) -> anyhow::Result<f64> {
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
