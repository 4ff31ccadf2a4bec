//! The programs of the kernel decide as the engine does, byte by byte.

use trireme_tests_differential::Campaign;

/// In one run of the push tier.
const PACKETS: u64 = 100_000;

#[test]
fn programs_and_engine_agree_about_every_packet_that_the_programs_decide() {
    let tally = Campaign::new(PACKETS).run();

    let (diverged, accounts) = tally.divergences();
    assert_eq!(diverged, 0, "{accounts}");
    assert!(tally.valid > PACKETS / 10, "most of the handshakes were disturbed");
}
