//! Agents of the laboratory: the real program, configured through its own files.

mod config;
mod report;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{Lab, LabError, Namespace, Process, Side};

pub use config::{AgentConfig, Credential, Root, Trust};

/// How long an agent may take until it enforces: the kernel verifies its programs, on a busy machine for long.
const START: Duration = Duration::from_secs(90);
/// How often the log is looked at while an agent starts.
const TICK: Duration = Duration::from_millis(50);

/// Hides the namespaces of other laboratories, which run at the same time, from a program: what cleans up goes into
/// every namespace that it can find.
const ALONE: &str = "for name in /run/netns/*; do case $name in */tl-$1-*) ;; *) umount -l $name ;; esac; done 2>&-; \
                     shift; exec \"$@\"";

/// The program under test.
#[derive(Clone, Debug)]
pub struct AgentProgram(PathBuf);

impl AgentProgram {
    /// Uses this executable.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Runs one of its commands to the end, outside of any namespace.
    ///
    /// # Errors
    /// [`LabError::Command`] if it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String, LabError> {
        super::namespace::run(Command::new(&self.0).args(arguments))
    }
}

/// A running agent of one node; dropping it ends the process and removes what it left in the kernel.
#[derive(Debug)]
pub struct Agent {
    program: AgentProgram,
    namespace: Namespace,
    side: Side,
    /// The id of its laboratory.
    lab: String,
    dir: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Writes the configuration, starts the agent in its node's namespace and waits until it enforces.
    ///
    /// # Errors
    /// [`LabError`] with the agent's log if it does not come up.
    pub fn start(
        lab: &Lab,
        side: Side,
        program: &AgentProgram,
        config: &AgentConfig,
    ) -> Result<Self, LabError> {
        let dir = lab.dir().join(format!("agent-{side}"));
        fs::create_dir_all(&dir).map_err(LabError::io(format!("creating {}", dir.display())))?;
        let instance = format!("lab-{}-{side}", lab.id());
        write(&dir.join("policy.yaml"), &config.policy)?;
        write(&dir.join("deny-list"), "")?;
        write(&dir.join("agent.toml"), &config.to_toml(&instance, &lab.bpffs()))?;
        let namespace = lab.node(side).namespace.clone();
        let mut agent =
            Self { program: program.clone(), namespace, side, lab: lab.id().to_owned(), dir, process: None };
        agent.launch(config)?;
        Ok(agent)
    }

    /// Writes the configuration and gives the command that runs `trireme agent` with it, to be run in the node's
    /// namespace: for agents that should not start.
    ///
    /// # Errors
    /// [`LabError::Io`] if the files cannot be written.
    pub fn command(
        lab: &Lab,
        side: Side,
        program: &AgentProgram,
        config: &AgentConfig,
        more: &[&str],
    ) -> Result<Command, LabError> {
        let dir = lab.dir().join(format!("agent-{side}"));
        fs::create_dir_all(&dir).map_err(LabError::io(format!("creating {}", dir.display())))?;
        write(&dir.join("policy.yaml"), &config.policy)?;
        write(&dir.join("agent.toml"), &config.to_toml(&format!("lab-{}-{side}", lab.id()), &lab.bpffs()))?;
        let mut command = Command::new(&program.0);
        command.arg("agent").arg("--config").arg(dir.join("agent.toml")).args(more);
        Ok(command)
    }

    /// Starts it again after [`Agent::kill`] or [`Agent::stop`], perhaps with other settings.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn restart(&mut self, lab: &Lab, config: &AgentConfig) -> Result<(), LabError> {
        let instance = format!("lab-{}-{}", lab.id(), self.side);
        write(&self.dir.join("policy.yaml"), &config.policy)?;
        write(&self.dir.join("agent.toml"), &config.to_toml(&instance, &lab.bpffs()))?;
        self.launch(config)
    }

    fn launch(&mut self, config: &AgentConfig) -> Result<(), LabError> {
        self.process = Some(self.spawn(config, "agent")?);
        Ok(())
    }

    /// Starts a second program with the same configuration, which should refuse to run.
    ///
    /// # Errors
    /// [`LabError::Command`] with what it says when it ends, as it should.
    pub fn start_second(&self, config: &AgentConfig) -> Result<Process, LabError> {
        self.spawn(config, "second")
    }

    /// Starts the program and waits until it says that it is ready.
    fn spawn(&self, config: &AgentConfig, role: &str) -> Result<Process, LabError> {
        let notices = self.dir.join(format!("{role}.notify"));
        drop(fs::remove_file(&notices));
        let socket = UnixDatagram::bind(&notices).map_err(LabError::io("binding the notice socket"))?;
        socket.set_read_timeout(Some(TICK)).map_err(LabError::io("preparing the notice socket"))?;
        let mut command = Command::new(&self.program.0);
        command.arg("agent").arg("--config").arg(self.dir.join("agent.toml"));
        command.env("NOTIFY_SOCKET", &notices).env_remove("TRIREME_PSK").env_remove("TRIREME_LOG");
        if let Trust::Psk(key) = &config.trust {
            command.env("TRIREME_PSK", key);
        }
        let name = format!("{role} of node {}", self.side);
        let log = self.dir.join(format!("{role}.log"));
        let mut process = Process::start(&self.namespace, &name, &mut command, &log)?;
        let deadline = Instant::now() + START;
        let mut notice = [0; 4096];
        loop {
            let len = socket.recv(&mut notice).unwrap_or(0);
            let text = String::from_utf8_lossy(notice.get(..len).unwrap_or_default()).into_owned();
            if text.lines().any(|line| line == "READY=1") {
                return Ok(process);
            }
            if let Some(status) = process.try_wait()? {
                return Err(LabError::Command {
                    command: format!("{name} ({status})"),
                    output: process.log(),
                });
            }
            if Instant::now() > deadline {
                let detail = process.log();
                return Err(LabError::TimedOut {
                    what: format!("the start of the {name}"),
                    limit: START,
                    detail,
                });
            }
        }
    }

    /// The agent's node.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// The agent's process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its policy file, read again whenever it changes.
    #[must_use]
    pub fn policy_file(&self) -> PathBuf {
        self.dir.join("policy.yaml")
    }

    /// Its deny list, read again whenever it changes, if [`AgentConfig::deny_list`] says so.
    #[must_use]
    pub fn deny_list(&self) -> PathBuf {
        self.dir.join("deny-list")
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// Ends it as a crash would; enforcement stays.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be signalled.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// Ends it with SIGTERM; enforcement stays.
    ///
    /// # Errors
    /// [`LabError`] if it does not end, or ends with an error.
    pub fn stop(&mut self) -> Result<(), LabError> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let status = process.stop()?;
        if status.success() {
            return Ok(());
        }
        Err(LabError::Command {
            command: format!("agent of node {} ({status})", self.side),
            output: self.log(),
        })
    }

    /// Removes everything an ended agent left in the kernel.
    ///
    /// # Errors
    /// [`LabError::Command`] if the program says it cannot.
    pub fn clean_up(&self) -> Result<String, LabError> {
        let config = self.dir.join("agent.toml");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", ALONE, "sh"])
            .arg(&self.lab)
            .arg(&self.program.0)
            .args(["agent", "--cleanup", "--config"])
            .arg(config)
            .env("TRIREME_PSK", "unused-but-long-enough-0123456789");
        self.namespace.enter(|| super::namespace::run(&mut command))?
    }

    /// Runs one of the program's commands against this agent's socket.
    ///
    /// # Errors
    /// [`LabError::Command`] if it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, LabError> {
        super::namespace::run(self.client(arguments).stdin(Stdio::null()))
    }

    /// As [`Agent::ask`], whatever the exit status.
    ///
    /// # Errors
    /// [`LabError::Io`] if the program cannot be started.
    pub fn try_ask(&self, arguments: &[&str]) -> Result<Output, LabError> {
        self.client(arguments).stdin(Stdio::null()).output().map_err(LabError::io("starting the program"))
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program.0);
        command.args(arguments).arg("--socket").arg(self.dir.join("agent.sock"));
        command
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.process.take());
        // What cannot be cleaned up goes with the lab's own bpffs and namespaces.
        drop(self.clean_up());
    }
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(LabError::io(format!("writing {}", path.display())))
}
