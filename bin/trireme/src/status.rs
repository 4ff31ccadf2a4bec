//! `trireme status`: what the agent is and does.

mod units;

use trireme_api::Client;
use trireme_api::types::Status;

use crate::cli::{StatusArgs, StatusFormat};
use crate::exit::{Answer, Blame, Outcome};
use crate::output;

/// Runs the verb.
pub(crate) fn run(arguments: &StatusArgs) -> Outcome {
    let client = Client::new(&arguments.agent.socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().runtime()?;
    let status = runtime.block_on(client.status()).runtime()?;
    if let Some(wanted) = &arguments.pu {
        output::print(&units::text(&status, wanted.as_ref(), arguments.output)?).runtime()?;
        return Ok(Answer::Yes);
    }
    let text = match arguments.output {
        StatusFormat::Json => format!("{}\n", serde_json::to_string_pretty(&status).runtime()?),
        StatusFormat::Yaml => serde_saphyr::to_string(&status).runtime()?,
        StatusFormat::Table => page(&status, Detail::Essential),
        StatusFormat::Wide => page(&status, Detail::Everything),
    };
    output::print(&text).runtime()?;
    Ok(Answer::Yes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Essential,
    Everything,
}

fn page(status: &Status, detail: Detail) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        text.push_str(&format!("{key:14} {value}\n"));
    };
    line("node", status.node.as_str());
    line(
        "agent",
        &format!("{}, pid {}, since {}", status.version, status.pid, output::time(status.started_at)),
    );
    line("datapath", &format!("{}: {}", status.datapath.kind, status.datapath.detail));
    line("secrets", &format!("{}, tokens as {}", status.secrets, status.encoding));
    line("authorization", &status.authorization);
    let policy = &status.policy;
    let loaded = output::time(policy.loaded_at);
    line("policy", &format!("{}, revision {}, loaded {loaded}", policy.source, policy.revision));
    if let Some(error) = &policy.error {
        line("policy error", &format!("{error} (the version above stays in force)"));
    }
    if let Some(list) = &status.deny_list {
        let loaded = output::time(list.loaded_at);
        line("deny list", &format!("{}, {} entries, loaded {loaded}", list.source, list.entries));
        if let Some(error) = &list.error {
            line("deny list error", &format!("{error} (the version above stays in force)"));
        }
    }
    line("flow records", &status.flow_records.to_string());
    for warning in &status.warnings {
        line("WARNING", &warning.text);
    }
    text.push('\n');
    text.push_str(&table(status, detail));
    if detail == Detail::Everything {
        text.push_str(&numbers(status));
    }
    text
}

fn table(status: &Status, detail: Detail) -> String {
    if status.pus.is_empty() {
        return "no processing units\n".to_owned();
    }
    let essential = ["PU", "STATE", "MODE", "INGRESS", "EGRESS", "EDGE"];
    let mut table = match detail {
        Detail::Essential => output::table(&essential),
        Detail::Everything => output::table(&[essential.as_slice(), &["EPOCH", "TAGS", "ERROR"]].concat()),
    };
    for unit in &status.pus {
        let mut row = vec![
            unit.id.to_string(),
            units::state(unit.state).to_owned(),
            unit.mode.clone(),
            unit.ingress.clone(),
            unit.egress.clone(),
            unit.edge.clone(),
        ];
        if detail == Detail::Everything {
            row.push(unit.epoch.to_string());
            row.push(unit.tags.to_string());
            row.push(unit.error.clone().unwrap_or_else(|| "-".to_owned()));
        }
        table.add_row(row);
    }
    let mut text = output::render(&table);
    for unit in &status.pus {
        if let (Detail::Essential, Some(error)) = (detail, &unit.error) {
            text.push_str(&format!("{}: {error}\n", unit.id));
        }
        if let Some(repair) = unit.datapath.as_ref().and_then(|datapath| datapath.last_repair.as_ref()) {
            text.push_str(&format!(
                "{}: repaired at {}: {}\n",
                unit.id,
                output::time(repair.at),
                repair.text
            ));
        }
    }
    text
}

fn numbers(status: &Status) -> String {
    let mut table = output::table(&["PU", "REASON", "COUNT"]);
    for counter in &status.datapath.counters {
        let unit = counter.pu.as_ref().map_or("-", |id| id.as_str());
        table.add_row([unit, &counter.reason, &counter.count.to_string()]);
    }
    let mut gauges = output::table(&["TABLE", "ENTRIES"]);
    for (name, value) in &status.datapath.gauges {
        gauges.add_row([name, &value.to_string()]);
    }
    format!("\n{}\n{}", output::render(&table), output::render(&gauges))
}
