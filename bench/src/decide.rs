//! What criterion measured about decide(), for the same report.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::report::Results;

const CASES: [(&str, &str); 3] =
    [("decide-10-rules", "10"), ("decide-1000-rules", "1000"), ("decide-10000-rules", "10000")];

/// Adds the medians, in nanoseconds.
pub(crate) fn report(criterion: &Path, results: &mut Results) -> anyhow::Result<()> {
    for (case, rules) in CASES {
        let path = criterion.join("decide").join(rules).join("new/estimates.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let estimates: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let median = estimates.pointer("/median/point_estimate").and_then(Value::as_f64);
        results.value(case, "ns", median.with_context(|| format!("no median in {}", path.display()))?);
    }
    Ok(())
}
