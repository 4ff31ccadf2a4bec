//! How long connects take, as a small client inside the workloads sees it.

use std::time::Duration;

use serde::Serialize;
use trireme_testkit::lab::{Family, Pu, Side, connect_times};

use super::report::Check;
use super::stage::Stage;
use super::tier::{Access, Tier, expected};

/// Connects per pair where the identities are known already, and without enforcement.
const REPEATED: usize = 250;
/// Times both nodes begin anew for first contacts.
const ROUNDS: usize = 4;

/// Times of single connects between nodes, by what the nodes knew of each other.
#[derive(Default)]
pub(super) struct Samples {
    bare: Vec<Duration>,
    first_contact: Vec<Duration>,
    known: Vec<Duration>,
}

/// Half and all but a hundredth of the connects took at most this many microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Percentiles {
    samples: usize,
    p50: f64,
    p99: f64,
}

/// The `latency_us` of the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    bare: Percentiles,
    first_contact: Percentiles,
    known: Percentiles,
}

impl Samples {
    /// Measures before anything is enforced; also fills the neighbour tables, which are not the subject.
    pub(super) fn bare(&mut self, stage: &Stage) -> anyhow::Result<()> {
        for (client, server, tier) in pairs(stage)? {
            connect_times(&client.namespace, server.at(Family::V4, tier.port()), 2)?;
            connect_times(&client.namespace, server.at(Family::V6, tier.port()), 2)?;
        }
        repeat(stage, &mut self.bare)
    }

    /// Measures the first connect of each pair between nodes that have not met.
    pub(super) fn first_contact(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let mut seen = Vec::new();
        for (client, server, tier) in pairs(stage)? {
            // Only a client's first call to a node shows that node a new identity.
            if seen.contains(&&client.name) {
                continue;
            }
            seen.push(&client.name);
            self.first_contact.extend(connect_times(
                &client.namespace,
                server.at(Family::V4, tier.port()),
                1,
            )?);
        }
        Ok(())
    }

    /// Measures first contacts again.
    pub(super) fn more_first_contacts(&mut self, stage: &mut Stage) -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            stage.begin_anew()?;
            self.first_contact(stage)?;
        }
        Ok(())
    }

    /// Measures connects between identities that both nodes have verified.
    pub(super) fn known(&mut self, stage: &Stage) -> anyhow::Result<()> {
        repeat(stage, &mut self.known)
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            bare: percentiles(&self.bare),
            first_contact: percentiles(&self.first_contact),
            known: percentiles(&self.known),
        }
    }

    /// The numbers in words; measuring them is the check.
    pub(super) fn check(&self) -> Check {
        let Summary { bare, first_contact, known } = self.summary();
        let words = |name, of: &Percentiles| format!("{name} {:.0}/{:.0} us", of.p50, of.p99);
        Check {
            name: "latency",
            ok: bare.samples > 0 && first_contact.samples > 0 && known.samples > 0,
            detail: format!(
                "connect p50/p99: {}, {}, {}",
                words("without trireme", &bare),
                words("first contact", &first_contact),
                words("known", &known)
            ),
        }
    }
}

/// Allowed calls across nodes, in both directions.
fn pairs(stage: &Stage) -> anyhow::Result<Vec<(&Pu, &Pu, Tier)>> {
    let mut pairs = Vec::new();
    for side in Side::BOTH {
        for from in Tier::ALL {
            for to in Tier::ALL {
                if expected(from, to) == Access::Allow {
                    pairs.push((stage.replica(side, from)?, stage.replica(side.other(), to)?, to));
                }
            }
        }
    }
    Ok(pairs)
}

fn repeat(stage: &Stage, samples: &mut Vec<Duration>) -> anyhow::Result<()> {
    for (from, to) in [(Tier::Frontend, Tier::Backend), (Tier::Backend, Tier::Database)] {
        let client = stage.replica(Side::A, from)?;
        let server = stage.replica(Side::B, to)?;
        for family in Family::BOTH {
            samples.extend(connect_times(&client.namespace, server.at(family, to.port()), REPEATED)?);
        }
    }
    Ok(())
}

fn percentiles(samples: &[Duration]) -> Percentiles {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(0.0, |time| (time.as_secs_f64() * 1e7).round() / 10.0)
    };
    Percentiles { samples: sorted.len(), p50: at(50), p99: at(99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_samples() {
        let samples: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        let Percentiles { samples, p50, p99 } = percentiles(&samples);
        assert_eq!((samples, format!("{p50} {p99}")), (100, "51 100".to_owned()));
        assert_eq!(percentiles(&[]).samples, 0);
    }
}
