//! The start in two phases: everything is checked before anything is changed in the kernel.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};
use trireme_identity::PuId;
use trireme_runtime::{CancellationToken, Tasks};

use super::actor::{Actor, Channels};
use super::running::Running;
use super::units::{self, Unit, Units, chain, resolve, wall_time};
use super::{PuError, StartError, Trireme};
use crate::monitor::Events;
use crate::{Datapath, Enforcement, Pu, PuChange, Startup, UnitState, Updates, Warning, warnings};

/// How many messages of each kind may wait for the controller; senders wait when it is full.
const QUEUE: usize = 64;

struct Checked {
    units: Vec<(Enforcement, Startup)>,
    failed: Vec<(Pu, PuError)>,
}

impl Trireme {
    /// Checks everything a start needs and changes nothing in the kernel; gives what the operator must know.
    ///
    /// # Errors
    /// [`StartError`] as [`Trireme::start`] would give it.
    ///
    /// # Cancel safety
    /// A drop changes nothing.
    pub async fn check(mut self) -> Result<Vec<Warning>, StartError> {
        let checked = self.check_all().await?;
        Ok(self.warnings(&checked))
    }

    /// Checks everything, then enforces every unit the monitors list, then lets them run.
    ///
    /// # Errors
    /// [`StartError`]. When the second phase fails, units that this start began to enforce are released again.
    ///
    /// # Cancel safety
    /// A drop in the second phase leaves units enforced: closed for new connections.
    ///
    /// Must be called in a runtime whose I/O and time are enabled.
    pub async fn start(mut self) -> Result<Running, StartError> {
        // Before anything verifies.
        if let Some(file) = &self.deny_list {
            self.secrets.verifier.set_deny_list((*file.list()).clone());
        }
        let checked = self.check_all().await?;
        for warning in self.warnings(&checked) {
            warn!(code = warning.code, "{}", warning.text);
        }
        self.datapath.start(self.secrets.clone(), Arc::clone(&self.collector)).await?;
        match self.enforce(checked).await {
            Ok(units) => Ok(self.run(units)),
            Err(error) => {
                // The start's own error is the one to report.
                drop(self.datapath.stop(std::time::Duration::from_secs(2)).await);
                Err(error)
            }
        }
    }

    async fn check_all(&mut self) -> Result<Checked, StartError> {
        self.datapath.check(&self.secrets).await?;
        let mut checked = Checked { units: Vec::new(), failed: Vec::new() };
        for monitor in &mut self.monitors {
            let startup = monitor.startup();
            for pu in monitor.existing().await? {
                let known = checked.units.iter().any(|(unit, _)| unit.id() == &pu.id);
                let outcome = if known {
                    Err(PuError::Duplicate(pu.id.clone()))
                } else {
                    check_unit(&*self.resolver, &mut *self.datapath, pu.clone()).await
                };
                match (outcome, startup) {
                    (Ok(unit), _) => checked.units.push((unit, startup)),
                    (Err(error), Startup::AllOrNothing) => return Err(error.into()),
                    (Err(error), Startup::EachAlone) => checked.failed.push((pu, error)),
                }
            }
        }
        Ok(checked)
    }

    fn warnings(&self, checked: &Checked) -> Vec<Warning> {
        let units = checked.units.iter().map(|(unit, _)| unit);
        warnings::about(self.secrets.kind, units, &self.resolver.status().warnings)
    }

    async fn enforce(&mut self, checked: Checked) -> Result<Units, StartError> {
        let mut units = Units::new();
        let mut begun: Vec<PuId> = Vec::new();
        for (pu, error) in checked.failed {
            units.insert(pu.id.clone(), self.failed(pu, &error));
        }
        for (enforcement, startup) in checked.units {
            let id = enforcement.id().clone();
            match self.datapath.supervise(&enforcement).await {
                Ok(enforced) => {
                    info!(workload = %id, edge = %enforcement.pu.edge, epoch = enforced.epoch, "enforced");
                    let tags = enforcement.identity.clone();
                    units::record(&self.collector, &id, PuChange::Started, tags, None);
                    begun.push(id.clone());
                    units.insert(id, Unit::enforced(enforcement, enforced.epoch));
                }
                Err(error) if startup == Startup::EachAlone => {
                    let pu = enforcement.pu;
                    units.insert(id, self.failed(pu, &error.into()));
                }
                Err(error) => {
                    for id in begun {
                        if let Err(error) = self.datapath.release(&id).await {
                            warn!(workload = %id, error = chain(&error), "not released");
                        }
                    }
                    return Err(PuError::from(error).into());
                }
            }
        }
        for id in self.datapath.release_strangers().await? {
            info!(workload = %id, "released: no longer listed");
        }
        Ok(units)
    }

    fn failed(&self, pu: Pu, error: &PuError) -> Unit {
        let text = chain(error);
        warn!(workload = %pu.id, error = text, "not enforced");
        let tags = pu.runtime.tags.clone();
        units::record(&self.collector, &pu.id, PuChange::Failed, tags, Some(text.clone()));
        let mut unit = Unit::created(pu.runtime);
        unit.edge = Some(pu.edge);
        unit.state = UnitState::Failed;
        unit.error = Some(text);
        unit
    }

    fn run(self, units: Units) -> Running {
        let Self { node, secrets, monitors, resolver, datapath, deny_list, collector } = self;
        let mut tasks = Tasks::new(CancellationToken::new());
        let (events, event_queue) = mpsc::channel(QUEUE);
        let (updates, update_queue) = mpsc::channel(QUEUE);
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (denials, denial_queue) = mpsc::channel(1);
        for monitor in monitors {
            let events = Events(events.clone());
            let name = format!("monitor {}", monitor.name());
            tasks.spawn(name, |stop| monitor.run(events, stop));
        }
        let watched = Arc::clone(&resolver);
        let updates = Updates(updates);
        let name = format!("resolver {}", resolver.name());
        tasks.spawn(name, |stop| async move { watched.run(updates, stop).await });
        if let Some(file) = deny_list.clone() {
            tasks.spawn("deny list", |stop| async move {
                file.run(denials, stop).await;
                Ok::<_, std::convert::Infallible>(())
            });
        }
        let actor = Actor {
            node,
            started_at: wall_time(),
            secrets: secrets.kind,
            encoding: secrets.encoding,
            resolver: Arc::clone(&resolver),
            datapath,
            deny_list,
            collector,
            units,
        };
        let channels = Channels {
            events: event_queue,
            updates: update_queue,
            denials: denial_queue,
            commands: command_queue,
        };
        tasks.spawn("controller", |_| actor.run(channels));
        Running::new(commands, resolver, tasks)
    }
}

async fn check_unit(
    resolver: &dyn crate::PolicyResolver,
    datapath: &mut dyn Datapath,
    pu: Pu,
) -> Result<Enforcement, PuError> {
    let unit = resolve(resolver, pu).await?;
    datapath.check_unit(&unit).await?;
    Ok(unit)
}

impl Unit {
    pub(super) fn enforced(enforcement: Enforcement, epoch: u32) -> Self {
        Self {
            runtime: enforcement.pu.runtime.clone(),
            edge: Some(enforcement.pu.edge.clone()),
            state: UnitState::Enforced,
            enforcement: Some(enforcement),
            epoch,
            error: None,
        }
    }
}
