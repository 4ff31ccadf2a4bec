//! The units the controller knows, and the steps they share at start and later.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use trireme_identity::time::WallTime;
use trireme_identity::{PuId, PuRuntime, TagSet};

use super::PuError;
use crate::unit::describe;
use crate::{Collector, Edge, Enforcement, PolicyResolver, Pu, PuChange, PuRecord, UnitState, UnitStatus};

/// One unit.
pub(super) struct Unit {
    pub(super) runtime: PuRuntime,
    pub(super) edge: Option<Edge>,
    pub(super) state: UnitState,
    pub(super) enforcement: Option<Enforcement>,
    pub(super) epoch: u32,
    pub(super) error: Option<String>,
}

impl Unit {
    pub(super) const fn created(runtime: PuRuntime) -> Self {
        Self { runtime, edge: None, state: UnitState::Created, enforcement: None, epoch: 0, error: None }
    }

    pub(super) fn status(&self, id: &PuId) -> UnitStatus {
        let policy = self.enforcement.as_ref().map(|enforcement| enforcement.policy.source());
        UnitStatus {
            id: id.clone(),
            state: self.state,
            edge: self.edge.as_ref().map(ToString::to_string),
            mode: policy.map(|policy| policy.mode),
            epoch: self.epoch,
            identity: self.identity(),
            ingress: policy.map_or_else(String::new, |policy| describe(&policy.ingress)),
            egress: policy.map_or_else(String::new, |policy| describe(&policy.egress)),
            error: self.error.clone(),
            datapath: None,
        }
    }

    pub(super) fn identity(&self) -> TagSet {
        self.enforcement
            .as_ref()
            .map_or_else(|| self.runtime.tags.clone(), |enforcement| enforcement.identity.clone())
    }
}

pub(super) type Units = BTreeMap<PuId, Unit>;

/// Asks the resolver about a unit and compiles the answer.
pub(super) async fn resolve(resolver: &dyn PolicyResolver, pu: Pu) -> Result<Enforcement, PuError> {
    let id = pu.id.clone();
    let resolved = resolver
        .resolve(&id, &pu.runtime)
        .await
        .map_err(|source| PuError::Resolve { id: id.clone(), source })?;
    Enforcement::new(pu, resolved).map_err(|source| PuError::Compile { id, source })
}

pub(super) fn record(
    collector: &Arc<dyn Collector>,
    id: &PuId,
    change: PuChange,
    tags: TagSet,
    error: Option<String>,
) {
    collector.pu(&PuRecord { pu: id.clone(), change, at: wall_time(), tags, error });
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Transparent errors repeat their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

pub(crate) fn wall_time() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallTime(since.map_or(0, |since| since.as_secs()))
}
