//! Policy from a file, read again when it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trireme_identity::time::WallTime;
use trireme_identity::{PuId, PuRuntime, TagSet};
use trireme_policy::Mode;

use super::{PolicyResolver, PolicyUpdate, ResolveError, Resolved, ResolverStatus, Updates};
use crate::controller::{chain, wall_time};
use crate::policy_file::{PolicyFile, PolicyFileError};
use crate::watch::{Stamp, Watch};
use crate::{BoxFuture, UnitSettings};

/// What one unit has otherwise than the file and the defaults say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitOverride {
    /// In place of the policy's mode.
    pub mode: Option<Mode>,
    /// In place of the default settings.
    pub settings: Option<UnitSettings>,
}

/// Resolves units by a policy file.
///
/// The file is read as soon as whoever changes it has closed or replaced it. A new version that does not parse is
/// reported and the old one stays in force.
#[derive(Debug)]
pub struct FilePolicyResolver {
    path: PathBuf,
    defaults: UnitSettings,
    overrides: BTreeMap<PuId, UnitOverride>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Arc<PolicyFile>,
    revision: u64,
    loaded_at: WallTime,
    /// What the last version that was read looked like from outside, good or bad.
    stamp: Option<Stamp>,
    error: Option<String>,
}

impl FilePolicyResolver {
    /// Reads the file.
    ///
    /// # Errors
    /// [`PolicyFileError`] with file, line and column.
    pub fn open(
        path: &Path,
        defaults: UnitSettings,
        overrides: BTreeMap<PuId, UnitOverride>,
    ) -> Result<Self, PolicyFileError> {
        let stamp = Stamp::of(path);
        let file = Arc::new(PolicyFile::load(path)?);
        let state = State { file, revision: 1, loaded_at: wall_time(), stamp, error: None };
        Ok(Self { path: path.to_owned(), defaults, overrides, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, so a poisoned lock holds good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file now; the old version stays in force if the new one is bad.
    fn read(&self) -> Result<(), PolicyFileError> {
        let stamp = Stamp::of(&self.path);
        let outcome = PolicyFile::load(&self.path);
        let mut state = self.lock();
        state.stamp = stamp;
        match outcome {
            Ok(file) => {
                state.file = Arc::new(file);
                state.revision = state.revision.saturating_add(1);
                state.loaded_at = wall_time();
                state.error = None;
                info!(file = %self.path.display(), revision = state.revision, "policy read");
                Ok(())
            }
            Err(error) => {
                let text = chain(&error);
                warn!(file = %self.path.display(), error = text, "policy refused, the old one stays in force");
                state.error = Some(text);
                Err(error)
            }
        }
    }

    fn resolve_now(&self, id: &PuId, runtime: &PuRuntime) -> Resolved {
        let file = Arc::clone(&self.lock().file);
        let mut policy = file.policy_for(&runtime.tags);
        let known = self.overrides.get(id);
        if let Some(mode) = known.and_then(|known| known.mode) {
            policy.mode = mode;
        }
        let settings = known.and_then(|known| known.settings.clone());
        Resolved {
            policy,
            identity: runtime.tags.clone(),
            annotations: TagSet::new(),
            settings: settings.unwrap_or_else(|| self.defaults.clone()),
        }
    }

    async fn watch(&self, updates: Updates, stop: CancellationToken) {
        let known = self.lock().stamp;
        let mut watch = Watch::new(&self.path, known);
        while watch.changed_before(&stop).await {
            if self.read().is_ok() {
                updates.send(PolicyUpdate::All).await;
            }
        }
    }
}

impl PolicyResolver for FilePolicyResolver {
    fn name(&self) -> &'static str {
        "file"
    }

    fn resolve<'a>(
        &'a self,
        id: &'a PuId,
        runtime: &'a PuRuntime,
    ) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(std::future::ready(Ok(self.resolve_now(id, runtime))))
    }

    fn reload(&self) -> BoxFuture<'_, Result<(), ResolveError>> {
        let outcome = self
            .read()
            .map_err(|error| ResolveError { resolver: self.name().to_owned(), source: Box::new(error) });
        Box::pin(std::future::ready(outcome))
    }

    fn run<'a>(
        &'a self,
        updates: Updates,
        stop: CancellationToken,
    ) -> BoxFuture<'a, Result<(), ResolveError>> {
        Box::pin(async move {
            self.watch(updates, stop).await;
            Ok(())
        })
    }

    fn status(&self) -> ResolverStatus {
        let state = self.lock();
        ResolverStatus {
            source: self.path.display().to_string(),
            revision: state.revision,
            loaded_at: state.loaded_at,
            error: state.error.clone(),
            warnings: state.file.warnings().iter().map(ToString::to_string).collect(),
        }
    }
}
