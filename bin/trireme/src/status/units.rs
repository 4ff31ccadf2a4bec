//! `trireme status --pu`: how units are enforced, and what was counted about each.

use std::collections::BTreeMap;

use anyhow::anyhow;
use serde::Serialize;
use trireme_api::types::{EdgeState, PuDatapath, PuState, PuStatus, Status};
use trireme_flow::Reason;
use trireme_identity::PuId;

use crate::cli::StatusFormat;
use crate::exit::{Blame, Failure};
use crate::output;

/// One unit with its counters.
#[derive(Debug, Serialize)]
struct UnitReport<'a> {
    #[serde(flatten)]
    unit: &'a PuStatus,
    /// Packets and decisions by reason; `kernel/…` is counted by the programs.
    counters: BTreeMap<&'a str, u64>,
}

/// What is printed: about one unit, or about all.
pub(super) fn text(status: &Status, wanted: Option<&PuId>, format: StatusFormat) -> Result<String, Failure> {
    let units = status.pus.iter().filter(|unit| wanted.is_none_or(|id| unit.id == *id));
    let reports: Vec<UnitReport<'_>> = units.map(|unit| report(status, unit)).collect();
    if let (Some(id), []) = (wanted, reports.as_slice()) {
        return Err(Failure::Usage(anyhow!("there is no processing unit {id} on node {}", status.node)));
    }
    Ok(match (format, reports.as_slice()) {
        (StatusFormat::Json, [one]) if wanted.is_some() => {
            format!("{}\n", serde_json::to_string_pretty(one).runtime()?)
        }
        (StatusFormat::Json, all) => format!("{}\n", serde_json::to_string_pretty(all).runtime()?),
        (StatusFormat::Yaml, [one]) if wanted.is_some() => serde_saphyr::to_string(one).runtime()?,
        (StatusFormat::Yaml, all) => serde_saphyr::to_string(&all).runtime()?,
        (StatusFormat::Table | StatusFormat::Wide, []) => "no processing units\n".to_owned(),
        (StatusFormat::Table | StatusFormat::Wide, all) => {
            let pages: Vec<String> = all.iter().map(|report| page(report, format)).collect();
            pages.join("\n")
        }
    })
}

fn report<'a>(status: &'a Status, unit: &'a PuStatus) -> UnitReport<'a> {
    let counters = status.datapath.counters.iter().filter(|counter| counter.pu.as_ref() == Some(&unit.id));
    let counters = counters.map(|counter| (counter.reason.as_str(), counter.count)).collect();
    UnitReport { unit, counters }
}

fn page(report: &UnitReport<'_>, format: StatusFormat) -> String {
    let UnitReport { unit, counters } = report;
    let mut text = format!("{}\n", unit.id);
    let mut line = |key: &str, value: &str| text.push_str(&format!("  {key:12} {value}\n"));
    line("state", &format!("{}, mode {}, epoch {}", state(unit.state), unit.mode, unit.epoch));
    line("policy", &format!("ingress {}, egress {}", unit.ingress, unit.egress));
    match &unit.datapath {
        Some(datapath) => about_datapath(unit, datapath, &mut line),
        None => line("edge", &unit.edge),
    }
    if format == StatusFormat::Wide {
        line("tags", &unit.tags.to_string());
    }
    if let Some(error) = &unit.error {
        line("PROBLEM", error);
    }
    text.push('\n');
    text.push_str(&numbers(counters, format));
    text
}

fn about_datapath(unit: &PuStatus, datapath: &PuDatapath, line: &mut impl FnMut(&str, &str)) {
    let edge = match datapath.edge {
        EdgeState::Attached => "attached",
        EdgeState::Advisory => "attached inside (advisory)",
        EdgeState::Vanished => "VANISHED",
        EdgeState::Damaged => "DAMAGED",
    };
    line("edge", &format!("{}: {edge}", unit.edge));
    line("fast path", if datapath.fast_path { "on" } else { "off" });
    line("fail mode", &datapath.fail_mode);
    line("adopted", &format!("{} connections older than the enforcement", datapath.adopted));
    if let Some(error) = &datapath.adoption_error {
        line("", &format!("older connections are dropped: {error}"));
    }
    if let Some(repair) = &datapath.last_repair {
        line(
            "repaired",
            &format!("{} times, last at {}: {}", datapath.repairs, output::time(repair.at), repair.text),
        );
    }
}

fn numbers(counters: &BTreeMap<&str, u64>, format: StatusFormat) -> String {
    if counters.is_empty() {
        return "nothing counted\n".to_owned();
    }
    let wide = format == StatusFormat::Wide;
    let mut table = if wide {
        output::table(&["REASON", "COUNT", "MEANING"])
    } else {
        output::table(&["REASON", "COUNT"])
    };
    for (name, count) in counters {
        let mut row = vec![(*name).to_owned(), count.to_string()];
        if wide {
            let known = Reason::ALL.iter().find(|reason| reason.name() == *name);
            row.push(known.map_or("", |reason| reason.meaning()).trim().to_owned());
        }
        table.add_row(row);
    }
    output::render(&table)
}

/// The word for a state.
pub(super) const fn state(state: PuState) -> &'static str {
    match state {
        PuState::Created => "created",
        PuState::Enforced => "enforced",
        PuState::Stopped => "stopped",
        PuState::Failed => "FAILED",
    }
}

#[cfg(test)]
mod tests;
