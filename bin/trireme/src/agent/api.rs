//! Answers the local API from the running controller.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use trireme::{FlowStore, Handle, StoredFlow, UnitState};
use trireme_api::types::{
    Counter, DatapathStatus, DenyListStatus, EdgeState, ErrorBody, ExplainReply, ExplainRequest, FlowLine,
    PolicyStatus, PuDatapath, PuState, PuStatus, Repair, Status, Warning,
};
use trireme_api::{Agent, FlowStream};
use trireme_policy::Mode;
use trireme_token::Encoding;

use crate::config::{Authorization, Config};
use crate::exit::one_line;

/// The agent as the API server sees it.
pub(super) struct ApiAgent {
    handle: Handle,
    flows: Arc<FlowStore>,
    authorization: &'static str,
}

impl ApiAgent {
    pub(super) const fn new(handle: Handle, flows: Arc<FlowStore>, config: &Config) -> Self {
        let authorization = match config.enforcement.authorization {
            Authorization::Mutual => "mutual",
            Authorization::ReceiverOnly => "receiver-only",
        };
        Self { handle, flows, authorization }
    }
}

impl Agent for ApiAgent {
    async fn status(&self) -> Result<Status, ErrorBody> {
        let status = self.handle.status().await;
        let status = status.ok_or_else(|| ErrorBody { error: "the agent is stopping".to_owned() })?;
        Ok(self.convert(status))
    }

    fn flows(&self, limit: usize) -> Vec<FlowLine> {
        self.flows.newest(limit).iter().map(line).collect()
    }

    fn follow(&self, limit: usize) -> FlowStream {
        let (stored, live) = self.flows.follow(limit);
        let stored: Vec<FlowLine> = stored.iter().map(line).collect();
        let live = BroadcastStream::new(live).map(|item| match item {
            Ok(flow) => line(&flow),
            Err(BroadcastStreamRecvError::Lagged(count)) => FlowLine::Missed(count),
        });
        futures_util::stream::iter(stored).chain(live).boxed()
    }

    async fn explain(&self, request: ExplainRequest) -> Result<ExplainReply, ErrorBody> {
        match self.handle.explain(&crate::explain::question(&request)).await {
            Ok(opinions) => Ok(crate::explain::reply(opinions.to_vec())),
            Err(error) => Err(ErrorBody { error: one_line(&error.into()) }),
        }
    }

    async fn reload(&self) -> Result<(), ErrorBody> {
        self.handle.reload().await.map_err(|error| ErrorBody { error: one_line(&error.into()) })
    }
}

fn line(flow: &StoredFlow) -> FlowLine {
    FlowLine::Flow { sequence: flow.sequence, record: Box::new((*flow.record).clone()) }
}

impl ApiAgent {
    fn convert(&self, status: trireme::Status) -> Status {
        let (report, failure) = match status.report {
            Ok(report) => (report, None),
            Err(error) => (trireme::DatapathReport::default(), Some(error)),
        };
        let counters = report.counters.into_iter().map(|((pu, reason), count)| Counter { pu, reason, count });
        let warnings = status
            .warnings
            .into_iter()
            .map(|warning| Warning { code: warning.code.to_owned(), text: warning.text });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: status.node,
            pid: std::process::id(),
            started_at: status.started_at,
            datapath: DatapathStatus {
                kind: status.datapath,
                detail: failure.unwrap_or(report.detail),
                gauges: report.gauges,
                counters: counters.collect(),
            },
            policy: PolicyStatus {
                source: status.policy.source,
                revision: status.policy.revision,
                loaded_at: status.policy.loaded_at,
                error: status.policy.error,
            },
            secrets: status.secrets.name().to_owned(),
            authorization: self.authorization.to_owned(),
            encoding: match status.encoding {
                Encoding::Jwt => "jwt",
                Encoding::Cwt => "cwt",
            }
            .to_owned(),
            warnings: warnings.collect(),
            pus: status.units.into_iter().map(unit).collect(),
            flow_records: self.flows.total(),
            deny_list: status.deny_list.map(|list| DenyListStatus {
                source: list.path.display().to_string(),
                entries: u64::try_from(list.entries).unwrap_or(u64::MAX),
                loaded_at: list.loaded_at,
                error: list.error,
            }),
        }
    }
}

fn unit(unit: trireme::UnitStatus) -> PuStatus {
    let mode = unit.mode.map_or("-", |mode| match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
        Mode::Off => "off",
    });
    PuStatus {
        id: unit.id,
        state: match unit.state {
            UnitState::Created => PuState::Created,
            UnitState::Enforced => PuState::Enforced,
            UnitState::Stopped => PuState::Stopped,
            UnitState::Failed => PuState::Failed,
        },
        edge: unit.edge.unwrap_or_else(|| "-".to_owned()),
        mode: mode.to_owned(),
        epoch: unit.epoch,
        tags: unit.identity,
        ingress: unit.ingress,
        egress: unit.egress,
        error: unit.error,
        datapath: unit.datapath.map(datapath),
    }
}

fn datapath(report: trireme::UnitReport) -> PuDatapath {
    PuDatapath {
        fast_path: report.fast_path,
        fail_mode: report.fail_mode.to_string(),
        edge: match report.edge {
            trireme::EdgeState::Attached => EdgeState::Attached,
            trireme::EdgeState::Advisory => EdgeState::Advisory,
            trireme::EdgeState::Vanished => EdgeState::Vanished,
            trireme::EdgeState::Damaged => EdgeState::Damaged,
        },
        adopted: report.adopted,
        adoption_error: report.adoption_error,
        repairs: report.repairs,
        last_repair: report.last_repair.map(|(at, text)| Repair { at, text }),
    }
}
