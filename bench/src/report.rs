//! Results: medians of ratios and single numbers, in the order in which they were first measured.

mod markdown;

use std::time::Duration;

use serde::Serialize;

pub(crate) use markdown::markdown;

/// Quantiles of a set of times, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// Half are faster.
    pub(crate) p50: f64,
    /// One in a hundred is slower.
    pub(crate) p99: f64,
    /// How many times there are.
    pub(crate) count: usize,
}

impl Latency {
    /// Sorts the times; an empty set has quantiles of zero.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { p50: at(50), p99: at(99), count: times.len() }
    }
}

/// One case, compared: median of the ratios of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The case's name.
    pub(crate) case: &'static str,
    /// Which form of it, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<&'static str>,
    /// Median ratio of `measured` to `base`.
    pub(crate) ratio: f64,
    /// Smallest ratio of a round.
    pub(crate) min: f64,
    /// Largest ratio of a round.
    pub(crate) max: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
    /// Unit of the two medians.
    pub(crate) unit: &'static str,
    /// What it is compared with.
    pub(crate) against: &'static str,
    /// Median of what it is compared with.
    pub(crate) base: f64,
    /// Median of the case itself.
    pub(crate) measured: f64,
    /// Median of the differences, for times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) added: Option<f64>,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<&'static str>,
}

/// A number that is compared with nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Value {
    /// The case's name.
    pub(crate) case: &'static str,
    /// Median of the rounds.
    pub(crate) value: f64,
    /// Smallest of a round.
    pub(crate) min: f64,
    /// Largest of a round.
    pub(crate) max: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<&'static str>,
}

/// A case before its rounds are summed up.
#[derive(Debug)]
struct Pairs {
    case: &'static str,
    variant: Option<&'static str>,
    unit: &'static str,
    against: &'static str,
    rounds: Vec<(f64, f64)>,
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pairs: Vec<Pairs>,
    values: Vec<(&'static str, &'static str, Vec<f64>)>,
}

impl Results {
    /// Adds one round of a case that is compared with no hooks.
    pub(crate) fn pair(&mut self, case: &'static str, unit: &'static str, base: f64, measured: f64) {
        self.compare((case, None), unit, "no hooks", base, measured);
    }

    /// Adds one round of one form of a case that is compared with no hooks.
    pub(crate) fn variant(
        &mut self,
        case: &'static str,
        variant: &'static str,
        unit: &'static str,
        [base, measured]: [f64; 2],
    ) {
        self.compare((case, Some(variant)), unit, "no hooks", base, measured);
    }

    /// Adds one round of a case.
    pub(crate) fn compare(
        &mut self,
        (case, variant): (&'static str, Option<&'static str>),
        unit: &'static str,
        against: &'static str,
        base: f64,
        measured: f64,
    ) {
        let known = self.pairs.iter_mut().find(|pairs| pairs.case == case && pairs.variant == variant);
        match known {
            Some(pairs) => pairs.rounds.push((base, measured)),
            None => {
                self.pairs.push(Pairs { case, variant, unit, against, rounds: vec![(base, measured)] });
            }
        }
    }

    /// Whether a form of a case has been measured already.
    pub(crate) fn has(&self, case: &str, variant: &str) -> bool {
        self.pairs.iter().any(|pairs| pairs.case == case && pairs.variant == Some(variant))
    }

    /// Adds one round of a number that is no comparison.
    pub(crate) fn value(&mut self, case: &'static str, unit: &'static str, value: f64) {
        match self.values.iter_mut().find(|(known, ..)| *known == case) {
            Some((.., rounds)) => rounds.push(value),
            None => self.values.push((case, unit, vec![value])),
        }
    }

    /// One row for each case and form.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.pairs.iter().map(Row::of).collect()
    }

    /// One row for each case: of several forms, the worst.
    pub(crate) fn worst(&self) -> Vec<Row> {
        let mut worst: Vec<Row> = Vec::new();
        for row in self.rows() {
            match worst.iter_mut().find(|known| known.case == row.case) {
                Some(known) if row.ratio < known.ratio => *known = row,
                Some(_) => {}
                None => worst.push(row),
            }
        }
        worst
    }

    /// The numbers that are compared with nothing.
    pub(crate) fn values(&self) -> Vec<Value> {
        let value = |(case, unit, rounds): &(&'static str, &'static str, Vec<f64>)| Value {
            case,
            value: median(rounds),
            min: smallest(rounds),
            max: largest(rounds),
            rounds: rounds.len(),
            unit,
            target: target(case),
        };
        self.values.iter().map(value).collect()
    }
}

impl Row {
    /// The same with the digits that mean something.
    pub(crate) fn rounded(&self) -> Self {
        let [ratio, min, max] = [self.ratio, self.min, self.max].map(|ratio| digits(ratio, 1e4));
        let [base, measured] = [self.base, self.measured].map(|number| digits(number, 1e2));
        let added = self.added.map(|added| digits(added, 1e2));
        Self { ratio, min, max, base, measured, added, ..self.clone() }
    }

    fn of(pairs: &Pairs) -> Self {
        let Pairs { case, variant, unit, against, rounds } = pairs;
        let ratios: Vec<_> = rounds.iter().map(|(base, measured)| measured / base).collect();
        let differences: Vec<_> = rounds.iter().map(|(base, measured)| measured - base).collect();
        Self {
            case,
            variant: *variant,
            ratio: median(&ratios),
            min: smallest(&ratios),
            max: largest(&ratios),
            rounds: rounds.len(),
            unit,
            against,
            base: median(&rounds.iter().map(|(base, _)| *base).collect::<Vec<_>>()),
            measured: median(&rounds.iter().map(|(_, measured)| *measured).collect::<Vec<_>>()),
            added: (*unit == "us").then(|| median(&differences)),
            target: target(case),
        }
    }
}

impl Value {
    /// The same with the digits that mean something.
    pub(crate) fn rounded(&self) -> Self {
        let [value, min, max] = [self.value, self.min, self.max].map(|number| digits(number, 1e4));
        Self { value, min, max, ..self.clone() }
    }
}

fn digits(number: f64, scale: f64) -> f64 {
    (number * scale).round() / scale
}

/// What issue and design ask for.
fn target(case: &str) -> Option<&'static str> {
    Some(match case {
        "crr-fast-path" => ">= 0.95",
        "crr-many" => ">= 0.97",
        "nfqueue-crr" => ">= 0.45",
        "nfqueue-connect-p50" => "adds <= 30 us",
        "nfqueue-bulk" | "nfqueue-rr-established" => ">= 0.97",
        "nfqueue-drops" => "0",
        "nfqueue-rules-p99" => "<= 20",
        "connect-known-p50" => "adds <= 2 us",
        "connect-known-p99" => "adds <= 10 us",
        "first-contact-known-node" => "adds <= 250 us",
        "first-contact-unknown-node" => "adds <= 500 us",
        "bulk" | "non-pu" => ">= 0.99",
        "rr-established" => ">= 0.97",
        "refused-hammering" => ">= 0.90",
        "syn-flood" => ">= 0.85",
        "syn-flood-agent-cpu" => "<= 1",
        "agent-rss" | "agent-rss-million" => "<= 30",
        "decide-10000-rules" => "<= 200",
        "policy-cut-p99" => "<= 100",
        _ => return None,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (below, above) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(below), sorted.get(above)) {
        (Some(below), Some(above)) => f64::midpoint(*below, *above),
        _ => f64::NAN,
    }
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_medians_of_its_rounds() {
        let mut results = Results::default();
        for (base, measured) in [(100.0, 90.0), (200.0, 190.0), (100.0, 80.0)] {
            results.pair("bulk", "bytes/s", base, measured);
        }

        let [row] = results.rows().try_into().unwrap();
        assert_eq!((row.ratio, row.min, row.max, row.rounds), (0.9, 0.8, 0.95, 3));
        assert_eq!((row.base, row.measured, row.added), (100.0, 90.0, None));
    }

    #[test]
    fn of_several_forms_the_worst_is_reported() {
        let mut results = Results::default();
        results.variant("bulk", "ipv4", "bytes/s", [10.0, 9.0]);
        results.variant("bulk", "ipv6", "bytes/s", [10.0, 8.0]);
        results.pair("rr-established", "round trips/s", 10.0, 10.0);

        let rows: Vec<_> = results.worst().iter().map(|row| (row.case, row.variant)).collect();
        assert_eq!(rows, [("bulk", Some("ipv6")), ("rr-established", None)]);
    }

    #[test]
    fn times_say_what_was_added() {
        let mut results = Results::default();
        results.pair("connect-known-p50", "us", 40.0, 41.5);

        let [row] = results.rows().try_into().unwrap();
        assert_eq!(row.added, Some(1.5));
        let line = serde_json::to_string(&row).unwrap();
        assert!(line.starts_with(
            r#"{"case":"connect-known-p50","ratio":1.0375,"min":1.0375,"max":1.0375,"rounds":1,"#
        ));
    }
}
