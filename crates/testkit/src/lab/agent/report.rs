//! What an agent says about itself: flow records and counters.

use std::time::Duration;

use serde_json::Value;
use trireme_flow::{Action, FlowRecord, Reason};

use super::Agent;
use crate::lab::{LabError, eventually};

impl Agent {
    /// The flow records it keeps, oldest first.
    ///
    /// # Errors
    /// [`LabError`] if it does not answer or the answer is not understood.
    pub fn flows(&self) -> Result<Vec<FlowRecord>, LabError> {
        let text = self.ask(&["flows", "--format", "json", "--limit", "100000"])?;
        text.lines().filter(|line| !line.trim().is_empty()).map(parse_flow).collect()
    }

    /// Waits until a record of this kind is there and returns the first.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] with all records if none comes.
    pub fn await_flow(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&FlowRecord) -> bool,
    ) -> Result<FlowRecord, LabError> {
        let mut found = None;
        let outcome = eventually(
            what,
            limit,
            || {
                found = self.flows()?.into_iter().find(|record| wanted(record));
                Ok(found.is_some())
            },
            || self.flows().map_or_else(|error| error.to_string(), |flows| summary(&flows)),
        );
        outcome?;
        found.ok_or_else(|| LabError::Output { what: what.to_owned(), output: String::new() })
    }

    /// Waits for a refusal with this reason.
    ///
    /// # Errors
    /// As [`Agent::await_flow`].
    pub fn await_refusal(&self, reason: Reason) -> Result<FlowRecord, LabError> {
        let what = format!("a record of {} on node {}", reason.name(), self.side());
        self.await_flow(&what, Duration::from_secs(5), |record| {
            record.action == Action::Reject && record.reason == reason
        })
    }

    /// Its status, as JSON.
    ///
    /// # Errors
    /// [`LabError`] if it does not answer or the answer is not JSON.
    pub fn status(&self) -> Result<Value, LabError> {
        let output = self.ask(&["status", "--output", "json"])?;
        serde_json::from_str(&output)
            .map_err(|_| LabError::Output { what: "the agent's status".into(), output })
    }

    /// How often a reason decided, over all workloads.
    ///
    /// # Errors
    /// As [`Agent::status`].
    pub fn count(&self, reason: Reason) -> Result<u64, LabError> {
        self.counter(reason.name())
    }

    /// How often the programs in the kernel counted something, over all workloads, by the counter's name.
    ///
    /// # Errors
    /// As [`Agent::status`].
    pub fn kernel_count(&self, name: &str) -> Result<u64, LabError> {
        self.counter(&format!("kernel/{name}"))
    }

    /// A size or a count of the whole node, by its name; absent if there is none of that name.
    ///
    /// # Errors
    /// As [`Agent::status`].
    pub fn gauge(&self, name: &str) -> Result<Option<u64>, LabError> {
        let status = self.status()?;
        let gauges = status.pointer("/datapath/gauges");
        Ok(gauges.and_then(|gauges| gauges.get(name)).and_then(Value::as_u64))
    }

    fn counter(&self, name: &str) -> Result<u64, LabError> {
        let status = self.status()?;
        let counters = status.pointer("/datapath/counters").and_then(Value::as_array);
        let matching = counters
            .into_iter()
            .flatten()
            .filter(|counter| counter.get("reason").and_then(Value::as_str) == Some(name));
        Ok(matching.filter_map(|counter| counter.get("count").and_then(Value::as_u64)).sum())
    }
}

/// The newest records, one a line.
fn summary(flows: &[FlowRecord]) -> String {
    let newest = flows.iter().rev().take(20).map(|record| {
        let FlowRecord { pu, direction, source, destination, action, reason, count, .. } = record;
        format!(
            "{count} x {action:?} {} at {pu} ({direction:?}): {}:{} -> {}:{}\n",
            reason.name(),
            source.address,
            source.port,
            destination.address,
            destination.port
        )
    });
    format!("of {} records the newest are\n{}", flows.len(), newest.collect::<String>())
}

/// A line is a record, bare or as the API sends it.
fn parse_flow(line: &str) -> Result<FlowRecord, LabError> {
    let misunderstood = || LabError::Output { what: "a flow record".into(), output: line.to_owned() };
    let mut value: Value = serde_json::from_str(line).map_err(|_| misunderstood())?;
    let record = match value.pointer_mut("/flow/record") {
        Some(record) => record.take(),
        None => value,
    };
    serde_json::from_value(record).map_err(|_| misunderstood())
}
