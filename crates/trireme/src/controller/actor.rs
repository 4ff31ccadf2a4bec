//! The one task that owns units and data path and carries out events, updates and commands in turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};
use trireme_identity::time::WallTime;
use trireme_identity::{NodeId, PuId, PuRuntime};
use trireme_token::Encoding;

use super::PuError;
use super::units::{self, Unit, Units, chain, resolve};
use crate::monitor::Report;
use crate::{
    Collector, Datapath, DatapathError, DenyListFile, NodeSecrets, PolicyResolver, PolicyUpdate, Pu,
    PuChange, PuEvent, SecretsKind, Status, UnitState, warnings,
};

/// What the owner of a running controller asks.
pub(super) enum Command {
    Status(oneshot::Sender<Status>),
    /// Resolve every unit again and give the units that could not be.
    Resolve(oneshot::Sender<Vec<PuError>>),
    Secrets(Box<NodeSecrets>, oneshot::Sender<Result<(), DatapathError>>),
    Stop(Duration),
}

pub(super) struct Channels {
    pub(super) events: mpsc::Receiver<Report>,
    pub(super) updates: mpsc::Receiver<PolicyUpdate>,
    /// The deny list is another one.
    pub(super) denials: mpsc::Receiver<()>,
    pub(super) commands: mpsc::Receiver<Command>,
}

pub(super) struct Actor {
    pub(super) node: NodeId,
    pub(super) started_at: WallTime,
    pub(super) secrets: SecretsKind,
    pub(super) encoding: Encoding,
    pub(super) resolver: Arc<dyn PolicyResolver>,
    pub(super) datapath: Box<dyn Datapath>,
    pub(super) deny_list: Option<Arc<DenyListFile>>,
    pub(super) collector: Arc<dyn Collector>,
    pub(super) units: Units,
}

impl Actor {
    /// Ends with [`Command::Stop`], or when the data path breaks.
    pub(super) async fn run(mut self, mut channels: Channels) -> Result<(), DatapathError> {
        loop {
            tokio::select! {
                broken = self.datapath.broken() => {
                    error!(error = chain(&broken), "the data path broke");
                    return Err(broken);
                }
                Some((event, reply)) = channels.events.recv() => {
                    let outcome = self.handle_event(event).await;
                    // A monitor that did not wait does not want the answer.
                    drop(reply.send(outcome.map_err(Into::into)));
                }
                Some(update) = channels.updates.recv() => {
                    for failure in self.handle_update(update).await {
                        warn!(error = chain(&failure), "policy not applied");
                    }
                }
                Some(()) = channels.denials.recv() => self.deny().await,
                command = channels.commands.recv() => match command {
                    Some(Command::Stop(deadline)) => return self.datapath.stop(deadline).await,
                    None => return self.datapath.stop(DROP_DEADLINE).await,
                    Some(command) => self.handle_command(command).await,
                }
            }
        }
    }

    async fn handle_command(&mut self, command: Command) {
        // Whoever dropped the other end no longer wants the answer.
        match command {
            Command::Status(reply) => {
                let status = self.status().await;
                drop(reply.send(status));
            }
            Command::Resolve(reply) => {
                let failures = self.handle_update(PolicyUpdate::All).await;
                drop(reply.send(failures));
            }
            Command::Secrets(secrets, reply) => {
                if let Some(file) = &self.deny_list {
                    secrets.verifier.set_deny_list((*file.list()).clone());
                }
                let (kind, encoding) = (secrets.kind, secrets.encoding);
                let outcome = self.datapath.set_secrets(*secrets).await;
                if outcome.is_ok() {
                    (self.secrets, self.encoding) = (kind, encoding);
                    for failure in self.handle_update(PolicyUpdate::All).await {
                        warn!(error = chain(&failure), "unit not renewed with the new secrets");
                    }
                }
                drop(reply.send(outcome));
            }
            Command::Stop(_) => {}
        }
    }

    async fn deny(&mut self) {
        let Some(file) = &self.deny_list else { return };
        let list = (*file.list()).clone();
        match self.datapath.set_deny_list(list).await {
            Ok(epochs) => {
                for (id, enforced) in epochs {
                    if let Some(unit) = self.units.get_mut(&id) {
                        unit.epoch = enforced.epoch;
                    }
                }
            }
            Err(error) => error!(error = chain(&error), "deny list not in force"),
        }
    }

    async fn handle_event(&mut self, event: PuEvent) -> Result<(), PuError> {
        match event {
            PuEvent::Create(id, runtime) => self.create(id, runtime),
            PuEvent::Start(pu) => self.start(pu).await,
            PuEvent::Update(id, runtime) => {
                self.known(&id)?.runtime = runtime;
                self.renew(&id).await
            }
            PuEvent::Stop(id) => {
                self.known(&id)?;
                self.release(&id, UnitState::Stopped).await
            }
            PuEvent::Destroy(id) => {
                self.known(&id)?;
                let outcome = self.release(&id, UnitState::Stopped).await;
                if let Some(unit) = self.units.remove(&id) {
                    units::record(&self.collector, &id, PuChange::Destroyed, unit.identity(), None);
                }
                outcome
            }
        }
    }

    fn known(&mut self, id: &PuId) -> Result<&mut Unit, PuError> {
        self.units.get_mut(id).ok_or_else(|| PuError::Unknown(id.clone()))
    }

    fn create(&mut self, id: PuId, runtime: PuRuntime) -> Result<(), PuError> {
        if self.units.get(&id).is_some_and(|unit| unit.state == UnitState::Enforced) {
            return Err(PuError::Duplicate(id));
        }
        units::record(&self.collector, &id, PuChange::Created, runtime.tags.clone(), None);
        self.units.insert(id, Unit::created(runtime));
        Ok(())
    }

    async fn start(&mut self, pu: Pu) -> Result<(), PuError> {
        let id = pu.id.clone();
        let mut unit = Unit::created(pu.runtime);
        unit.edge = Some(pu.edge);
        self.units.insert(id.clone(), unit);
        self.renew(&id).await
    }

    async fn release(&mut self, id: &PuId, state: UnitState) -> Result<(), PuError> {
        let outcome = self.datapath.release(id).await;
        if let Some(unit) = self.units.get_mut(id) {
            unit.state = state;
            unit.error = outcome.as_ref().err().map(|error| chain(error));
            units::record(&self.collector, id, PuChange::Stopped, unit.identity(), unit.error.clone());
        }
        Ok(outcome?)
    }

    async fn handle_update(&mut self, update: PolicyUpdate) -> Vec<PuError> {
        let ids = match update {
            PolicyUpdate::All => self.units.keys().cloned().collect(),
            PolicyUpdate::Pu(id) => vec![id],
        };
        let mut failures = Vec::new();
        for id in ids {
            failures.extend(self.renew(&id).await.err());
        }
        failures
    }

    /// Resolves a unit and enforces the answer if it has a network. A failure leaves what was in force.
    async fn renew(&mut self, id: &PuId) -> Result<(), PuError> {
        let Some(unit) = self.units.get(id) else { return Err(PuError::Unknown(id.clone())) };
        let Some(edge) = unit.edge.clone() else { return Ok(()) };
        if unit.state == UnitState::Stopped {
            return Ok(());
        }
        let (before, old_epoch) = (unit.state, unit.epoch);
        let pu = Pu { id: id.clone(), runtime: unit.runtime.clone(), edge };
        let outcome = match resolve(&*self.resolver, pu).await {
            Ok(enforcement) => match self.datapath.supervise(&enforcement).await {
                Ok(enforced) => Ok((enforcement, enforced.epoch)),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok((enforcement, epoch)) => {
                let change =
                    if before == UnitState::Enforced { PuChange::Updated } else { PuChange::Started };
                if epoch != old_epoch || before != UnitState::Enforced {
                    info!(workload = %id, epoch, "enforced");
                    units::record(&self.collector, id, change, enforcement.identity.clone(), None);
                }
                self.units.insert(id.clone(), Unit::enforced(enforcement, epoch));
                Ok(())
            }
            Err(error) => {
                self.fail(id, before, &error);
                Err(error)
            }
        }
    }

    fn fail(&mut self, id: &PuId, before: UnitState, error: &PuError) {
        let text = chain(error);
        let Some(unit) = self.units.get_mut(id) else { return };
        unit.state = if before == UnitState::Enforced { before } else { UnitState::Failed };
        unit.error = Some(text.clone());
        units::record(&self.collector, id, PuChange::Failed, unit.identity(), Some(text));
    }

    async fn status(&mut self) -> Status {
        let report = self.datapath.report().await;
        let policy = self.resolver.status();
        let enforced = self.units.values().filter_map(|unit| unit.enforcement.as_ref());
        let warnings = warnings::about(self.secrets, enforced, &policy.warnings);
        let mut units: Vec<_> = self.units.iter().map(|(id, unit)| unit.status(id)).collect();
        if let Ok(report) = &report {
            for unit in &mut units {
                unit.error = unit.error.take().or_else(|| report.impaired.get(&unit.id).cloned());
                unit.datapath = report.units.get(&unit.id).cloned();
            }
        }
        Status {
            node: self.node.clone(),
            started_at: self.started_at,
            datapath: self.datapath.kind().to_owned(),
            report: report.map_err(|error| chain(&error)),
            policy,
            deny_list: self.deny_list.as_ref().map(|file| file.status()),
            secrets: self.secrets,
            encoding: self.encoding,
            warnings,
            units,
        }
    }
}

/// Used when the owner of the controller is gone without a word.
const DROP_DEADLINE: Duration = Duration::from_secs(2);
