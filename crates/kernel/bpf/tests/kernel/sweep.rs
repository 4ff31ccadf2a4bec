//! Dead connections are removed slice by slice.

use std::time::{Duration, Instant};

use trireme_bpf::{FlowKey, Plane, SweepLimits, SweepReport};

use crate::lab::{Lab, PU, entry};

fn fill(plane: &mut Plane, count: u32) {
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let key = FlowKey { slot: PU, local: ([10, a, b, c].into(), 1), remote: ([10, 0, 0, 1].into(), 2) };
        plane.connection_insert(&key, &entry(1)).unwrap();
    }
}

/// All slices of one round, and the longest of them.
fn round(plane: &mut Plane, limits: &SweepLimits) -> (Vec<SweepReport>, Duration) {
    let (mut slices, mut longest) = (Vec::new(), Duration::ZERO);
    loop {
        let start = Instant::now();
        let report = plane.sweep(limits).unwrap();
        longest = longest.max(start.elapsed());
        let complete = report.round_complete;
        slices.push(report);
        if complete {
            return (slices, longest);
        }
    }
}

#[test]
fn round_takes_many_slices_counts_what_is_alive_and_hands_over_what_is_not() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    fill(&mut plane, 20_000);
    assert_eq!(plane.connection_count(), 0);

    let (slices, longest) = round(&mut plane, &SweepLimits::default());
    assert!(slices.len() > 3, "{}", slices.len());
    assert!(longest < Duration::from_millis(100), "{longest:?}");
    assert_eq!(plane.connection_count(), 20_000);
    assert!(slices.iter().all(|slice| slice.removed == 0));

    std::thread::sleep(Duration::from_millis(20));
    let dead = SweepLimits { idle: Duration::from_millis(10) };
    let (slices, _) = round(&mut plane, &dead);
    assert_eq!(slices.iter().map(|slice| slice.removed).sum::<usize>(), 20_000);
    let ended: std::collections::BTreeSet<_> =
        slices.iter().flat_map(|slice| slice.ended.iter().map(|(key, ..)| *key)).collect();
    assert_eq!(ended.len(), 20_000);
    assert_eq!(plane.connection_count(), 0);
    assert_eq!(plane.count_connections().unwrap(), 0);
}

#[test]
fn next_agent_knows_the_numbers_at_once_and_memory_is_told() {
    let lab = Lab::new();
    let mut plane = lab.attached();
    fill(&mut plane, 1000);
    let memory = plane.memory().unwrap();
    assert!((40 << 20..400 << 20).contains(&memory), "{memory}");
    drop(plane);

    let plane = lab.open();

    assert_eq!(plane.connection_count(), 1000);
}

#[test]
#[ignore = "measures; start it by hand on a quiet machine"]
#[expect(clippy::print_stderr, reason = "shows what it measured")]
fn slices_of_a_million() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.sizes.connections = 1 << 20;
    let mut plane = lab.attached_with(config);
    for count in [0, 1000, 100_000, 1_000_000] {
        fill(&mut plane, count);
        let start = Instant::now();
        let (slices, longest) = round(&mut plane, &SweepLimits::default());
        let all = start.elapsed();
        eprintln!("{count}: {} slices, longest {longest:?}, together {all:?}", slices.len());
    }
    eprintln!("memory {}", plane.memory().unwrap());
}
