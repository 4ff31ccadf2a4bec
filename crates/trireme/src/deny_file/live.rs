//! A deny-list file that is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trireme_identity::time::WallTime;
use trireme_token::DenyList;

use super::{DenyFileError, load};
use crate::controller::{chain, wall_time};
use crate::watch::{Stamp, Watch};

/// Reads the file as soon as whoever changes it has closed or replaced it. A version that is wrong, or gone, is
/// reported and the last good one stays in force.
#[derive(Debug)]
pub struct DenyListFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    list: Arc<DenyList>,
    stamp: Option<Stamp>,
    loaded_at: WallTime,
    error: Option<String>,
}

/// What is denied and where that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyListStatus {
    /// The file.
    pub path: PathBuf,
    /// How many keys, tokens and nodes it names.
    pub entries: usize,
    /// When the version in force was read.
    pub loaded_at: WallTime,
    /// Why a newer version is not in force, if there is one.
    pub error: Option<String>,
}

impl DenyListFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`DenyFileError`] with file and line.
    pub fn open(path: &Path) -> Result<Self, DenyFileError> {
        let stamp = Stamp::of(path);
        let list = Arc::new(load(path)?);
        let state = State { list, stamp, loaded_at: wall_time(), error: None };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// What is denied now.
    #[must_use]
    pub fn list(&self) -> Arc<DenyList> {
        Arc::clone(&self.lock().list)
    }

    /// What is denied and whether the file is in force as it is.
    #[must_use]
    pub fn status(&self) -> DenyListStatus {
        let state = self.lock();
        DenyListStatus {
            path: self.path.clone(),
            entries: state.list.keys.len() + state.list.tokens.len() + state.list.nodes.len(),
            loaded_at: state.loaded_at,
            error: state.error.clone(),
        }
    }

    /// Reads the file now; true if the list in force is another one.
    ///
    /// # Errors
    /// [`DenyFileError`]; the last good list stays in force.
    pub fn reload(&self) -> Result<bool, DenyFileError> {
        let stamp = Stamp::of(&self.path);
        let outcome = load(&self.path);
        let mut state = self.lock();
        state.stamp = stamp;
        match outcome {
            Ok(list) => {
                let changed = *state.list != list;
                state.list = Arc::new(list);
                state.loaded_at = wall_time();
                state.error = None;
                Ok(changed)
            }
            Err(error) => {
                state.error = Some(chain(&error));
                Err(error)
            }
        }
    }

    /// Announces every other list until `stop` is cancelled.
    pub(crate) async fn run(&self, changes: mpsc::Sender<()>, stop: CancellationToken) {
        let known = self.lock().stamp;
        let mut watch = Watch::new(&self.path, known);
        while watch.changed_before(&stop).await {
            match self.reload() {
                Ok(true) => {
                    info!(file = %self.path.display(), entries = self.status().entries, "deny list read");
                    if changes.send(()).await.is_err() {
                        // The controller stops.
                        return;
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    warn!(error = chain(&error), "deny list refused, the last good one stays in force")
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, so a poisoned lock holds good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
