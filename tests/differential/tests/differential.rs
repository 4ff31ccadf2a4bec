//! The programs of the kernel decide as the engine does, byte by byte.

use trireme_bpf::Counter;
use trireme_tests_differential::{Campaign, Tally};

/// In one run of the push tier.
const PACKETS: u64 = 100_000;

/// What the programs decide by themselves.
const DECIDED: [Counter; 8] = [
    Counter::FastSynFrom,
    Counter::FastSynTo,
    Counter::FastSynAckFrom,
    Counter::FastSynAckTo,
    Counter::FastProofFrom,
    Counter::FastProofTo,
    Counter::Refused,
    Counter::Rejudged,
];

/// Limits and fail modes: none of them may have decided anything here.
const LIMITS: [Counter; 8] = [
    Counter::RingFull,
    Counter::RateLimited,
    Counter::UnknownLimited,
    Counter::Oversize,
    Counter::NoOwner,
    Counter::AgentDown,
    Counter::FailedOpen,
    Counter::FlowLost,
];

#[test]
fn programs_and_engine_agree_about_every_packet_that_the_programs_decide() {
    let tally = Campaign::new(PACKETS).run();

    let (diverged, accounts) = tally.divergences();
    assert_eq!(diverged, 0, "{accounts}");
    assert!(tally.valid > PACKETS / 20, "hardly a handshake was left alone");
    assert_counters(&tally);
}

fn assert_counters(tally: &Tally) {
    for counter in DECIDED {
        assert!(tally.kernel(counter) > 100, "{counter:?}");
    }
    for counter in LIMITS {
        assert_eq!(tally.kernel(counter), 0, "{counter:?}");
    }
    assert_eq!(tally.kernel(Counter::PuntedFrom) + tally.kernel(Counter::PuntedTo), tally.punted());
}
