//! Seasons, one after the other, until there were packets enough.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::bed::Bed;
use crate::season::Season;
use crate::secrets::TRUSTS;
use crate::tally::Tally;
use crate::targets::OPEN;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Everything follows from it.
    pub seed: u64,
    /// How many packets at least.
    pub packets: u64,
}

/// Handshakes in one part of a season.
const ROUNDS: u32 = 250;

impl Campaign {
    /// One with this many packets, and the seed from `TRIREME_SEED` or the clock.
    ///
    /// # Panics
    /// If `TRIREME_SEED` is no number.
    #[must_use]
    pub fn new(packets: u64) -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
        let seed = std::env::var("TRIREME_SEED").map_or_else(|_| clock(), |seed| seed.parse().unwrap());
        Self { seed, packets }
    }

    /// Runs it.
    ///
    /// # Panics
    /// Without root, and if the kernel refuses.
    #[must_use]
    pub fn run(self) -> Tally {
        let start = Instant::now();
        let tally = Bed::run(|bed| {
            let mut tally = Tally::default();
            let mut rng = StdRng::seed_from_u64(self.seed);
            for number in 0.. {
                let trust = TRUSTS[usize::try_from(number).unwrap() % TRUSTS.len()];
                Season::begin(bed, &mut tally, rng.random(), number, trust).run();
                if tally.packets >= self.packets {
                    break;
                }
            }
            tally
        });
        eprintln!("seed {}, {:?}\n{tally}", self.seed, start.elapsed());
        tally
    }
}

impl Season<'_> {
    /// Handshakes; a change of policy; one that takes a port away; new keys; no valid ones.
    fn run(mut self) {
        self.round();
        self.change_policy(&OPEN);
        self.talk_on_all();
        self.meet_everybody();
        self.round();
        self.change_policy(&OPEN[..1]);
        self.meet_everybody();
        self.talk_on_all();
        self.round();
        // Our new tokens: known peers get to see the old ones until one of them has seen the new.
        self.renewing = true;
        self.wait(Duration::from_secs(301));
        self.round();
        self.renewing = false;
        // Everybody's. The clock of the programs has not moved: on tokens that have run out for the engine alone nothing
        // can be compared.
        self.begin_anew();
        self.wait(Duration::from_secs(1801));
        self.meet_everybody();
        self.round();
        self.outlive_tokens();
        let counters = self.bed.counters();
        self.tally.add(&counters);
    }

    fn round(&mut self) {
        for _ in 0..ROUNDS {
            let established = if self.rng.random_bool(0.5) { self.call() } else { self.be_called() };
            if established.is_some() {
                self.talk();
            }
            self.them.forget();
        }
    }
}
