//! A refusal has a reason, and both nodes know it.

use std::time::Duration;

use trireme_flow::{Action, FlowRecord};
use trireme_testkit::lab::{Agent, Family, LabError, Pu, Side, probe};

use super::super::report::Check;
use super::super::stage::Stage;
use super::super::tier::Tier;

/// Lets external call the backend across nodes and asks both agents why nothing came back.
pub(in super::super) fn explanation(stage: &Stage) -> anyhow::Result<Check> {
    const NAME: &str = "explanation";
    let client = stage.replica(Side::A, Tier::External)?;
    let server = stage.replica(Side::B, Tier::Backend)?;
    let to = server.at(Family::V4, Tier::Backend.port());
    probe(&client.namespace, to, Duration::from_millis(300))?;
    let receiver = find(stage.agent(Side::B)?, client, server);
    let initiator = find(stage.agent(Side::A)?, client, server);
    Ok(match (receiver, initiator) {
        (Ok(receiver), Ok(initiator)) => {
            let ok = receiver.explanation.is_some();
            let detail = format!("node b: {}; node a: {}", sentence(&receiver), sentence(&initiator));
            Check { name: NAME, ok, detail }
        }
        (Err(error), _) | (_, Err(error)) => Check { name: NAME, ok: false, detail: error.to_string() },
    })
}

fn find(agent: &Agent, client: &Pu, server: &Pu) -> Result<FlowRecord, LabError> {
    let what = format!("a record of the refused call on node {}", agent.side());
    agent.await_flow(&what, Duration::from_secs(10), |record| {
        record.action == Action::Reject
            && record.source.address == client.address(Family::V4)
            && record.destination.address == server.address(Family::V4)
    })
}

fn sentence(record: &FlowRecord) -> String {
    let FlowRecord { source, destination, reason, policy, rule, explanation, .. } = record;
    let mut text = format!("{} [{}] -> {}", source.address, source.tags, destination.address);
    text.push_str(&format!(": {}", reason.name()));
    for (word, part) in [("policy", policy), ("rule", rule)] {
        if let Some(part) = part {
            text.push_str(&format!(", {word} {part}"));
        }
    }
    if let Some(explanation) = explanation {
        text.push_str(&format!(" ({explanation})"));
    }
    text
}
