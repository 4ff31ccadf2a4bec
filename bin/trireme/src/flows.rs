//! `trireme flows`: what was decided about connections.

use std::ops::ControlFlow;

use trireme_api::types::FlowLine;
use trireme_api::{Client, ClientError};
use trireme_flow::{Action, FlowEvent, FlowRecord, Party, Traffic};
use trireme_identity::Direction;

use crate::cli::{FlowsArgs, FlowsFormat};
use crate::exit::{Answer, Blame, Failure, Outcome};
use crate::output;

/// Runs the verb.
pub(crate) fn run(arguments: &FlowsArgs) -> Outcome {
    let client = Client::new(&arguments.agent.socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().runtime()?;
    runtime.block_on(async {
        if arguments.follow { follow(&client, arguments).await } else { list(&client, arguments).await }
    })?;
    Ok(Answer::Yes)
}

async fn list(client: &Client, arguments: &FlowsArgs) -> Result<(), Failure> {
    let lines = client.flows(arguments.limit).await.runtime()?;
    let text = match arguments.format {
        FlowsFormat::Json => lines.iter().map(json).collect::<Result<String, _>>().runtime()?,
        FlowsFormat::Table => {
            let mut table = output::table(&HEADER);
            for line in &lines {
                table.add_row(row(line));
            }
            output::render(&table)
        }
    };
    output::print(&text).runtime()
}

async fn follow(client: &Client, arguments: &FlowsArgs) -> Result<(), Failure> {
    let mut failure = None;
    if arguments.format == FlowsFormat::Table && output::emit(&columns(&HEADER)).runtime()?.is_break() {
        return Ok(());
    }
    let outcome = client.follow(arguments.limit, |line| {
        let text = match arguments.format {
            FlowsFormat::Json => json(&line).map_err(anyhow::Error::from),
            FlowsFormat::Table => Ok(columns(&row(&line))),
        };
        match text.and_then(|text| Ok(output::emit(&text)?)) {
            Ok(flow) => flow,
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    // The agent's own end closes the stream in the middle of an answer.
    match outcome.await {
        Ok(()) | Err(ClientError::Http(_)) => {}
        Err(error) => return Err(Failure::Runtime(error.into())),
    }
    failure.map_or(Ok(()), |error| Err(Failure::Runtime(error)))
}

const HEADER: [&str; 10] =
    ["TIME", "PU", "DIRECTION", "FROM", "TO", "ACTION", "REASON", "RULE", "COUNT", "TRAFFIC"];

/// Widths of the columns when lines come one by one.
const WIDTHS: [usize; 10] = [20, 16, 9, 34, 34, 16, 24, 24, 8, 0];

fn columns<T: AsRef<str>>(cells: &[T]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        line.push_str(&format!("{:width$} ", cell.as_ref()));
    }
    format!("{}\n", line.trim_end())
}

fn json(line: &FlowLine) -> Result<String, serde_json::Error> {
    Ok(format!("{}\n", serde_json::to_string(line)?))
}

fn row(line: &FlowLine) -> [String; 10] {
    match line {
        FlowLine::Flow { record, .. } => record_row(record),
        FlowLine::Missed(count) => {
            let mut row: [String; 10] = Default::default();
            let [time, .., last, _] = &mut row;
            "(missed)".clone_into(time);
            *last = count.to_string();
            row
        }
    }
}

fn record_row(record: &FlowRecord) -> [String; 10] {
    let direction = match record.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let rule = match (&record.policy, &record.rule) {
        (Some(policy), Some(rule)) => format!("{policy}/{rule}"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        (None, None) => "-".to_owned(),
    };
    [
        output::time(record.last_seen),
        record.pu.to_string(),
        direction.to_owned(),
        party(&record.source, None),
        party(&record.destination, Some(record.protocol)),
        action(record),
        record.reason.name().to_owned(),
        rule,
        record.count.to_string(),
        record.traffic.as_ref().map_or_else(|| "-".to_owned(), traffic),
    ]
}

fn party(party: &Party, protocol: Option<trireme_identity::Protocol>) -> String {
    let address = std::net::SocketAddr::new(party.address, party.port);
    let name = party.id.as_ref().map_or("?", |id| id.as_str());
    protocol.map_or_else(
        // The source port says nothing about many equal decisions.
        || format!("{name} {}", party.address),
        |protocol| format!("{name} {address}/{protocol}"),
    )
}

/// Packets and bytes that the unit sent, and that went to it.
fn traffic(traffic: &Traffic) -> String {
    let Traffic { packets_from, bytes_from, packets_to, bytes_to } = traffic;
    format!("sent {packets_from} ({bytes_from} B), received {packets_to} ({bytes_to} B)")
}

fn action(record: &FlowRecord) -> String {
    if record.event == FlowEvent::End {
        return "end".to_owned();
    }
    let word = |action| match action {
        Action::Accept => "accept",
        Action::Reject => "reject",
    };
    match record.observed {
        Some(observed) => format!("{} (observed {})", word(record.action), word(observed)),
        None => word(record.action).to_owned(),
    }
}
