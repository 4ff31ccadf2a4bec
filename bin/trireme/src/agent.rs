//! `trireme agent`: enforces the processing units of a configuration file.

mod api;
mod assemble;
pub(crate) mod choice;
mod secrets;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{error, info, warn};
use trireme::datapath::nfqueue;
use trireme::{FlowStore, Handle, Running, StartError};
use trireme_api::Server;
use trireme_runtime::{CancellationToken, LogConfig, Signal, Signals, Tasks, logging, notify};

use crate::cli::AgentArgs;
use crate::config::{Config, DatapathKind};
use crate::exit::{Answer, Blame, Failure, Outcome, one_line};
use crate::output;
use crate::psk_env;

use api::ApiAgent;

pub(crate) use secrets::exposed;

/// How long the parts have to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the verb.
pub(crate) fn run(arguments: &AgentArgs) -> Outcome {
    let psk = psk_env::take().usage()?;
    let mut config = Config::load(&arguments.config).usage()?;
    overlay(&mut config, arguments);
    let log = LogConfig { level: config.log.level.into(), format: config.log.format.into() };
    logging::init(log).usage()?;
    if arguments.cleanup {
        return cleanup(&config);
    }
    let secrets = secrets::load(&config, psk).usage()?;
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().runtime()?;
    runtime.block_on(async {
        let flows = Arc::new(FlowStore::new(assemble::size(config.limits.flow_records.0)));
        let trireme = assemble::controller(&config, secrets, Arc::clone(&flows))?;
        if arguments.check { check(trireme, &config).await } else { serve(trireme, &config, flows).await }
    })
}

/// A unit takes some descriptors: many units take more than the usual limit, which programs of another time need.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files stays");
    }
}

/// Flags win over the file.
fn overlay(config: &mut Config, arguments: &AgentArgs) {
    if let Some(socket) = &arguments.socket {
        config.node.socket.clone_from(socket);
    }
    if let Some(level) = arguments.log_level {
        config.log.level = level;
    }
    if let Some(format) = arguments.log_format {
        config.log.format = format;
    }
}

fn cleanup(config: &Config) -> Outcome {
    trireme_api::probe(&config.node.socket).context("stop the agent before cleaning up behind it").usage()?;
    let edges: Vec<_> = config.pu.iter().map(|unit| unit.edge.clone()).collect();
    let queues = || nfqueue::cleanup(&config.node.state_dir, &edges);
    let bpf = || trireme::datapath::bpf::cleanup(&assemble::bpf(config));
    let removed = match config.datapath.kind {
        DatapathKind::Bpf => bpf(),
        DatapathKind::Nfqueue => queues(),
        // Whatever was chosen at the last start.
        DatapathKind::Auto => bpf().and_then(|bpf| Ok(format!("{bpf}, {}", queues()?))),
    };
    let removed = removed.runtime()?;
    let state = config.node.state_dir.display();
    output::print(&format!(
        "removed the kernel state of instance {} ({removed}); keys and epochs stay in {state}\n",
        config.datapath.instance.as_str()
    ))
    .runtime()?;
    Ok(Answer::Yes)
}

async fn check(trireme: trireme::Trireme, config: &Config) -> Outcome {
    trireme_api::probe(&config.node.socket).usage()?;
    let warnings = trireme.check().await.map_err(blame)?;
    let mut text = effective(config);
    for warning in warnings {
        text.push_str(&format!("warning: {}\n", warning.text));
    }
    text.push_str("everything a start needs is there\n");
    output::print(&text).runtime()?;
    Ok(Answer::Yes)
}

async fn serve(trireme: trireme::Trireme, config: &Config, flows: Arc<FlowStore>) -> Outcome {
    let mut signals = Signals::listen().runtime()?;
    // A second agent is turned away before the first one's kernel state is touched.
    let server = Server::bind(&config.node.socket).usage()?;
    output::print(&effective(config)).runtime()?;
    let mut running = trireme.start().await.map_err(blame)?;
    let agent = Arc::new(ApiAgent::new(running.handle(), flows, config));
    let mut tasks = Tasks::new(CancellationToken::new());
    tasks.spawn("api", |stop| server.serve(agent, stop));
    info!(node = %config.node.id, socket = %config.node.socket.display(), "ready");
    notify::ready("enforcing");
    let outcome = supervise(&mut running, &mut tasks, &mut signals).await;
    notify::stopping();
    info!("stopping: the kernel goes on with what it knows, everything else is up to the fail modes");
    stop(running, tasks).await;
    outcome
}

async fn supervise(running: &mut Running, tasks: &mut Tasks, signals: &mut Signals) -> Outcome {
    let handle = running.handle();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => return Ok(Answer::Yes),
                Signal::Reload => reload(&handle).await,
            },
            failure = running.failed() => return Err(Failure::Runtime(failure.into())),
            Some(ended) = tasks.next() => {
                let error = match ended {
                    Ok(name) => anyhow!("task {name} ended early"),
                    Err(error) => error.into(),
                };
                return Err(Failure::Runtime(error));
            }
        }
    }
}

async fn reload(handle: &Handle) {
    notify::reloading();
    match handle.reload().await {
        Ok(()) => notify::ready("enforcing"),
        Err(error) => {
            let text = one_line(&error.into());
            warn!(error = text, "reload");
            notify::ready(&format!("enforcing; {text}"));
        }
    }
}

async fn stop(running: Running, tasks: Tasks) {
    for failure in tasks.stop(STOP_DEADLINE).await {
        error!(error = one_line(&failure.into()), "not stopped cleanly");
    }
    if let Err(error) = running.stop(STOP_DEADLINE).await {
        for failure in error.0 {
            error!(error = one_line(&failure.into()), "not stopped cleanly");
        }
    }
}

/// What the operator wrote is their mistake; what the kernel refuses is the machine's.
fn blame(error: StartError) -> Failure {
    use trireme::{DatapathError, PuError};
    let usage = match &error {
        StartError::Monitor(_) => false,
        StartError::Pu(PuError::Datapath(inner)) | StartError::Datapath(inner) => match inner {
            DatapathError::Unit { .. } | DatapathError::Secrets(_) | DatapathError::State(_) => true,
            DatapathError::Unsupported(_) | DatapathError::Kernel { .. } | DatapathError::Stopped => false,
        },
        StartError::Pu(
            PuError::Resolve { .. } | PuError::Compile { .. } | PuError::Unknown(_) | PuError::Duplicate(_),
        ) => true,
    };
    if usage { Failure::Usage(error.into()) } else { Failure::Runtime(error.into()) }
}

fn effective(config: &Config) -> String {
    let rule = "#".repeat(24);
    format!("{rule} effective configuration {rule}\n{}{rule} end {rule}\n", config.redacted())
}

/// Reads a file the configuration names.
fn read(path: &Path, what: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {what} {}", path.display()))
}
