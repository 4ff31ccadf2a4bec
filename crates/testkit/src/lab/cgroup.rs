//! Cgroups (version 2) of the laboratory, which threads of this process enter.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Lab, LabError};

/// Where cgroups of version 2 are mounted, beside those of version 1 or alone.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// How long the last thread may take to leave a cgroup that is removed.
const EMPTY: Duration = Duration::from_secs(2);

/// A cgroup of the test's own, right below the root or in another one; dropping it removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup right below the root, with the laboratory's id in its name.
    ///
    /// # Errors
    /// [`LabError::Io`] without cgroups of version 2, or without the privilege to.
    pub fn create(lab: &Lab, name: &str) -> Result<Self, LabError> {
        let root = ROOTS.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists());
        let root = root.unwrap_or_else(|| Path::new("/sys/fs/cgroup"));
        Self::make(root.join(format!("trireme-lab-{}-{name}", lab.id())))
    }

    /// Makes a cgroup inside this one.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn child(&self, name: &str) -> Result<Self, LabError> {
        Self::make(self.path.join(name))
    }

    /// Makes the cgroup again, after [`Cgroup::remove`].
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn again(&self) -> Result<Self, LabError> {
        Self::make(self.path.clone())
    }

    fn make(path: PathBuf) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("making cgroup {}", path.display()));
        fs::create_dir(&path).map_err(failed())?;
        let made = Self { path: path.clone() };
        // Threads enter it one by one.
        fs::write(path.join("cgroup.type"), "threaded").map_err(failed())?;
        Ok(made)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs code on a thread inside the cgroup: sockets it opens, and threads and programs it starts belong there.
    ///
    /// # Errors
    /// [`LabError`] if the cgroup cannot be entered or the code panics.
    pub fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let name = self.path.display().to_string();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let id = rustix::thread::gettid().as_raw_nonzero().to_string();
                fs::write(self.path.join("cgroup.threads"), id)
                    .map_err(LabError::io(format!("entering cgroup {name}")))?;
                Ok(code())
            });
            inside.join().map_err(|_| LabError::Panicked(name.clone()))?
        })
    }

    /// Removes it; sockets that were opened in it live on.
    ///
    /// # Errors
    /// [`LabError::Io`] while a thread is in it.
    pub fn remove(&self) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            match fs::remove_dir(&self.path) {
                // A thread that was joined has not always left.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error())
                        && start.elapsed() < EMPTY =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => {
                    return done.map_err(LabError::io(format!("removing cgroup {}", self.path.display())));
                }
            }
        }
    }
}

fn remove_inner(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.metadata().is_ok_and(|found| found.is_dir()) {
            remove_inner(&entry.path());
            drop(fs::remove_dir(entry.path()));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left is at worst named after its laboratory. Those inside may outlive this value.
        remove_inner(&self.path);
        drop(self.remove());
    }
}
