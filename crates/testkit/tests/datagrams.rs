//! Thousands of seeded runs of flows over UDP.
//!
//! `TRIREME_SIM_SCHEDULES` sets how many, `TRIREME_SIM_BASE` where to begin, `TRIREME_SIM_SEED` replays one run and prints
//! everything that happened in it.
#![expect(clippy::print_stdout, clippy::panic, reason = "tests fail by panicking and say what they ran")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use trireme_testkit::sim::{Detail, Outcomes, Plan, run_datagrams};

const SCHEDULES: u64 = 4000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn admitted_flows_are_answered_denied_ones_stay_silent_and_nothing_is_left() {
    if let Some(seed) = number("TRIREME_SIM_SEED") {
        let Outcomes { violations, lines, .. } = run_datagrams(seed, Detail::Lines);
        println!("{:#?}\n{}", Plan::generate(seed), lines.join("\n"));
        assert_eq!(violations, Vec::<String>::new());
        return;
    }
    let first = number("TRIREME_SIM_BASE").unwrap_or(0);
    let end = first + number("TRIREME_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(first);
    let broken = Mutex::new(Vec::new());
    let total = Mutex::new([0_u64; 4]);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let Outcomes { violations, sent, delivered, exchanges, forged, .. } =
                        run_datagrams(seed, Detail::Hash);
                    if let Ok(mut total) = total.lock() {
                        for (sum, add) in total.iter_mut().zip([sent, delivered, exchanges, forged]) {
                            *sum += add;
                        }
                    }
                    if !violations.is_empty()
                        && let Ok(mut broken) = broken.lock()
                    {
                        broken.push((seed, violations));
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_default();
    let [sent, delivered, exchanges, forged] = total;
    println!("{sent} datagrams sent, {delivered} delivered, {exchanges} exchanges, {forged} forged messages");
    let broken = broken.into_inner().unwrap_or_default();
    if let Some((seed, violations)) = broken.iter().min() {
        let plan = Plan::generate(*seed);
        panic!("{} of {} seeds fail; {seed}: {violations:#?}\n{plan:#?}", broken.len(), end - first);
    }
    assert!(total.iter().all(|count| *count > 1000 || end - first < SCHEDULES), "{total:?}");
}

#[test]
fn the_same_seed_goes_the_same_way_twice() {
    for seed in (1..200).filter(|seed| seed % 16 != 0) {
        let runs = [(); 2].map(|()| run_datagrams(seed, Detail::Hash));
        let [first, second] = runs.map(|run| (run.trace, run.sent, run.delivered, run.forged));
        assert_eq!(first, second, "seed {seed}");
    }
}
