//! The quick look: connections per second over no hooks, and where the time goes in the programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use trireme_testkit::lab::Family;

use crate::bed::{Bed, Enforcement};
use crate::load;
use crate::profile::{self, Table, Usage};

/// What is asked of each build.
pub(crate) struct Load {
    /// How many interleaved rounds.
    pub(crate) rounds: u32,
    /// Of each load.
    pub(crate) time: Duration,
    /// How many clients at once.
    pub(crate) clients: u16,
    /// By which addresses.
    pub(crate) family: Family,
}

/// A build and what came of it so far.
struct Candidate<'a> {
    program: &'a Path,
    bed: Bed,
    ratios: Vec<f64>,
    /// To the first build.
    gains: Vec<f64>,
    punts: f64,
    connections: f64,
}

/// Prints the ratios of each round, then nanoseconds per call of each program under the same load and on one
/// established connection.
pub(crate) fn run(programs: &[PathBuf], load: &Load) -> anyhow::Result<()> {
    let bare = Bed::bare(programs.first().context("no program to measure")?)?;
    let mut candidates = Vec::new();
    for program in programs {
        let bed = Bed::enforced(program, &Enforcement::default())?;
        load::connections(bed.way(load.family), load.clients, Duration::from_millis(100))?;
        let (ratios, gains) = (Vec::new(), Vec::new());
        candidates.push(Candidate { program, bed, ratios, gains, punts: 0.0, connections: 0.0 });
    }
    for round in 1..=load.rounds {
        self::round(round, &bare, &mut candidates, load)?;
    }
    for candidate in &mut candidates {
        let name = candidate.program.display();
        let (ratio, gain) = (median(&mut candidate.ratios), median(&mut candidate.gains));
        println!("{name}: median ratio {ratio:.3}, over the first {gain:.3}");
        println!("segments to user space per connection: {:.2}", candidate.punts / candidate.connections);
        show(&candidate.bed, load)?;
    }
    Ok(())
}

fn round(number: u32, bare: &Bed, candidates: &mut [Candidate<'_>], load: &Load) -> anyhow::Result<()> {
    let Load { time, clients, family, .. } = *load;
    let without = load::connections(bare.way(family), clients, time)?;
    print!("round {number}: no hooks {:.0}/s, failed {}", without.per_second, without.failed);
    let mut first = None;
    for candidate in candidates {
        let before = candidate.bed.punts();
        let with = load::connections(candidate.bed.way(family), clients, time)?;
        candidate.punts += candidate.bed.punts() - before;
        candidate.connections += with.per_second * time.as_secs_f64();
        let ratio = with.per_second / without.per_second;
        candidate.ratios.push(ratio);
        candidate.gains.push(with.per_second / *first.get_or_insert(with.per_second));
        print!("; enforced {:.0}/s, ratio {ratio:.3}, failed {}", with.per_second, with.failed);
    }
    println!();
    Ok(())
}

fn show(bed: &Bed, load: &Load) -> anyhow::Result<()> {
    let Load { time, clients, family, .. } = *load;
    for Table { load, per_second, usages } in profile::tables(bed, family, clients, time)? {
        println!("{load}, {per_second:.0}/s:");
        for Usage { program, calls_per_operation, ns_per_call } in usages {
            let sum = calls_per_operation * ns_per_call;
            println!("  {program:16} {calls_per_operation:6.2} calls of {ns_per_call:5.0} ns: {sum:6.0} ns");
        }
    }
    Ok(())
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
