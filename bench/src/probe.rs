//! The quick look: connections per second over no hooks, and where the time goes in the programs.

use std::path::Path;
use std::time::Duration;

use trireme_testkit::lab::Family;

use crate::bed::{Bed, Enforcement};
use crate::load;
use crate::profile::Profile;

/// Prints the ratio of each round, then nanoseconds per call of each program under the same load and on one
/// established connection.
pub(crate) fn run(
    program: &Path,
    rounds: u32,
    time: Duration,
    clients: u16,
    family: Family,
) -> anyhow::Result<()> {
    let bare = Bed::bare(program)?;
    let enforced = Bed::enforced(program, &Enforcement::default())?;
    load::connections(enforced.way(family), clients, Duration::from_millis(100))?;
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let without = load::connections(bare.way(family), clients, time)?;
        let with = load::connections(enforced.way(family), clients, time)?;
        ratios.push(with.per_second / without.per_second);
        println!(
            "round {round}: no hooks {:.0}/s, enforced {:.0}/s, ratio {:.3}, failed {} and {}",
            without.per_second,
            with.per_second,
            with.per_second / without.per_second,
            without.failed,
            with.failed
        );
    }
    ratios.sort_unstable_by(f64::total_cmp);
    println!("median ratio {:.3}", ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN));

    let profile = Profile::start(&enforced)?;
    let rate = load::connections(enforced.way(family), clients, time)?;
    println!("under {:.0} connections/s:", rate.per_second);
    print(profile, rate.per_second * time.as_secs_f64())?;
    let profile = Profile::start(&enforced)?;
    let rate = load::round_trips(enforced.way(family), time)?;
    println!("under {rate:.0} round trips/s on one connection:");
    print(profile, rate * time.as_secs_f64())
}

fn print(profile: Profile, operations: f64) -> anyhow::Result<()> {
    for usage in profile.finish()? {
        let share = usage.ns_per_call * profile_calls(usage.calls) / operations;
        println!(
            "  {:16} {:>10} calls, {:>6.0} ns each, {:>7.0} ns per operation",
            usage.program, usage.calls, usage.ns_per_call, share
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay far below 2^52")]
const fn profile_calls(count: u64) -> f64 {
    count as f64
}
