//! A program of the laboratory that is ended with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{LabError, Namespace};

/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A running program; dropping it sends SIGTERM, then SIGKILL, and waits.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program inside a namespace, its output appended to a log file.
    ///
    /// # Errors
    /// [`LabError::Io`] if the log cannot be written or the program not be started.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        command: &mut Command,
        log: &Path,
    ) -> Result<Self, LabError> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(LabError::io(format!("opening {}", log.display())))?;
        let copy = file.try_clone().map_err(LabError::io(format!("opening {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(Stdio::from(file)).stderr(Stdio::from(copy));
        let what = format!("starting {name}");
        let child = namespace.enter(|| command.spawn())?.map_err(LabError::io(what))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// [`LabError::Io`] if the system does not say.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::io(format!("waiting for {}", self.name)))
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be signalled.
    pub fn kill(mut self) -> Result<(), LabError> {
        self.child.kill().map_err(LabError::io(format!("killing {}", self.name)))?;
        self.child.wait().map(drop).map_err(LabError::io(format!("waiting for {}", self.name)))
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] if SIGTERM is not enough; it is killed then.
    pub fn stop(mut self) -> Result<ExitStatus, LabError> {
        self.terminate()
    }

    fn terminate(&mut self) -> Result<ExitStatus, LabError> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)
                .map_err(|errno| LabError::io(format!("ending {}", self.name))(errno.into()))?;
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().map_err(LabError::io(format!("killing {}", self.name)))?;
        self.child.wait().map_err(LabError::io(format!("waiting for {}", self.name)))?;
        Err(LabError::TimedOut {
            what: format!("the end of {}", self.name),
            limit: GRACE,
            detail: self.log(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Removal goes on whatever happens; a test that cares calls `stop`.
        drop(self.terminate());
    }
}
