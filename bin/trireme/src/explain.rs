//! `trireme explain`: would a connection be allowed, and why?

use std::path::Path;

use anyhow::Context;
use trireme::{FilePolicyResolver, Question};
use trireme_api::Client;
use trireme_api::types::{EndReply, ExplainReply, ExplainRequest};
use trireme_identity::{Direction, Protocol};

use crate::cli::{ExplainArgs, ExplainFormat};
use crate::exit::{Answer, Blame, Failure, Outcome};
use crate::output;

/// Runs the verb.
pub(crate) fn run(arguments: &ExplainArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().runtime()?;
    let request = ExplainRequest {
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        port: arguments.port.port,
        protocol: arguments.port.protocol.0,
    };
    let reply = runtime.block_on(async {
        match &arguments.policy {
            Some(file) => ask_file(file, &request).await,
            None => Client::new(&arguments.agent.socket).explain(&request).await.runtime(),
        }
    })?;
    let text = match arguments.output {
        ExplainFormat::Json => format!("{}\n", serde_json::to_string_pretty(&reply).runtime()?),
        ExplainFormat::Text => page(&reply, arguments),
    };
    output::print(&text).runtime()?;
    Ok(if reply.allowed { Answer::Yes } else { Answer::No })
}

async fn ask_file(file: &Path, request: &ExplainRequest) -> Result<ExplainReply, Failure> {
    let resolver = FilePolicyResolver::open(file, Default::default(), Default::default()).usage()?;
    let opinions = trireme::explain(&resolver, &question(request))
        .await
        .with_context(|| format!("{} has no answer", file.display()))
        .usage()?;
    Ok(reply(opinions.to_vec()))
}

/// The library's question.
pub(crate) fn question(request: &ExplainRequest) -> Question {
    Question {
        from: request.from.clone(),
        to: request.to.clone(),
        port: request.port,
        protocol: Protocol(request.protocol),
    }
}

/// The API's answer.
pub(crate) fn reply(opinions: Vec<trireme::Opinion>) -> ExplainReply {
    let ends: Vec<EndReply> = opinions
        .into_iter()
        .map(|opinion| EndReply {
            direction: opinion.direction,
            accepts: opinion.accepts,
            text: opinion.explanation.to_string(),
            explanation: opinion.explanation,
        })
        .collect();
    ExplainReply { allowed: ends.iter().all(|end| end.accepts), ends }
}

fn page(reply: &ExplainReply, arguments: &ExplainArgs) -> String {
    let verdict = if reply.allowed { "allowed" } else { "refused" };
    let service = arguments.port;
    let mut text = format!(
        "{verdict}: {} -> {} port {}/{}\n",
        arguments.from, arguments.to, service.port, service.protocol
    );
    for end in &reply.ends {
        let who = match end.direction {
            Direction::Egress => "initiator, egress",
            Direction::Ingress => "responder, ingress",
        };
        let says = if end.accepts { "accepts" } else { "refuses" };
        let indented = end.text.trim_end().replace('\n', "\n  ");
        text.push_str(&format!("\n{who}: {says}\n  {indented}\n"));
    }
    text
}
