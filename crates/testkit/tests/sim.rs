//! Thousands of seeded runs over a bad network, with engines and without.
//!
//! `TRIREME_SIM_SCHEDULES` sets how many, `TRIREME_SIM_BASE` where to begin, `TRIREME_SIM_SEED` replays one run
//! and prints everything that happened in it.
#![expect(clippy::panic, clippy::print_stdout, reason = "tests fail by panicking and say what they ran")]

use trireme_testkit::sim::{self, Campaign, Detail, Guard, Scenario, Trust};

#[test]
fn without_engines_every_conversation_completes_over_the_bad_network() {
    check(Campaign {
        guard: Guard::Bare,
        schedules: 2000,
        test: "without_engines_every_conversation_completes_over_the_bad_network",
    });
}

#[test]
fn allowed_conversations_complete_denied_ones_stay_silent_and_nothing_is_left() {
    check(Campaign {
        guard: Guard::Engines,
        schedules: 10_000,
        test: "allowed_conversations_complete_denied_ones_stay_silent_and_nothing_is_left",
    });
}

#[test]
fn the_same_seed_goes_the_same_way_twice() {
    let seeds = (0..).filter(|seed| Scenario::generate(*seed, Guard::Engines).trust == Trust::Psk).take(100);
    for seed in seeds {
        let first = sim::run(seed, Guard::Engines, Detail::Hash);
        let second = sim::run(seed, Guard::Engines, Detail::Hash);
        assert_eq!(
            (first.trace_hash, first.events, first.virtual_time),
            (second.trace_hash, second.events, second.virtual_time),
            "seed {seed}"
        );
    }
}

fn check(campaign: Campaign) {
    match campaign.run() {
        Ok(summary) => println!("{summary:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
