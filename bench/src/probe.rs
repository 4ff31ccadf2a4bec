//! The quick look: connections per second over no hooks, and where the time goes in the programs.

use std::path::Path;
use std::time::Duration;

use trireme_testkit::lab::Family;

use crate::bed::{Bed, Enforcement};
use crate::load;
use crate::profile::{self, Table, Usage};

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
    let (mut punts, mut connections) = (0.0, 0.0);
    for round in 1..=rounds {
        let without = load::connections(bare.way(family), clients, time)?;
        let before = enforced.punts();
        let with = load::connections(enforced.way(family), clients, time)?;
        punts += enforced.punts() - before;
        connections += with.per_second * time.as_secs_f64();
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

    println!("segments to user space per connection: {:.2}", punts / connections);
    for Table { load, per_second, usages } in profile::tables(&enforced, family, clients, time)? {
        println!("{load}, {per_second:.0}/s:");
        for Usage { program, calls_per_operation, ns_per_call } in usages {
            let sum = calls_per_operation * ns_per_call;
            println!("  {program:16} {calls_per_operation:6.2} calls of {ns_per_call:5.0} ns: {sum:6.0} ns");
        }
    }
    Ok(())
}
