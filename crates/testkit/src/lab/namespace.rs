//! One network namespace: made with `ip netns`, entered by threads.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::LabError;

/// A handle to a named network namespace; dropping it leaves the namespace alone (the lab removes it).
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes the namespace, with its loopback up and addresses usable at once (no duplicate detection).
    pub(super) fn create(name: &str) -> Result<Self, LabError> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned(), path: Path::new("/run/netns").join(name) };
        for key in ["net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad"] {
            namespace.sysctl(key, "0")?;
        }
        namespace.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        namespace.sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    pub(super) fn remove(&self) -> Result<(), LabError> {
        run(Command::new("ip").args(["netns", "del", &self.name])).map(drop)
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file under `/run/netns`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs code on a thread inside the namespace: sockets it opens and programs it starts belong there.
    ///
    /// # Errors
    /// [`LabError`] if the namespace cannot be entered or the code panics.
    pub fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let file =
            File::open(&self.path).map_err(LabError::io(format!("opening namespace {}", self.name)))?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                        |errno| LabError::io(format!("entering namespace {}", self.name))(errno.into()),
                    )?;
                    Ok(code())
                })
                .join()
                .map_err(|_| LabError::Panicked(self.name.clone()))?
        })
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be started; a failing program is not an error.
    pub fn output(&self, command: &mut Command) -> Result<Output, LabError> {
        let what = format!("starting {command:?}");
        self.enter(|| command.stdin(Stdio::null()).output())?.map_err(LabError::io(what))
    }

    /// Runs a program inside and returns its standard output.
    ///
    /// # Errors
    /// [`LabError`] if it cannot be started or ends with an error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.enter(|| run(&mut command))?
    }

    /// Runs `ip` commands, one a line.
    ///
    /// # Errors
    /// [`LabError::Command`] with the first line refused.
    pub fn ip(&self, batch: &str) -> Result<(), LabError> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        feed(&mut command, batch).map(drop)
    }

    /// Applies a piece of nftables rule set as one transaction.
    ///
    /// # Errors
    /// [`LabError::Command`] if nft refuses it.
    pub fn nft(&self, ruleset: &str) -> Result<(), LabError> {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]);
        self.enter(|| feed(&mut command, ruleset).map(drop))?
    }

    /// Sets a network sysctl of this namespace, written as the path below `/proc/sys`.
    ///
    /// # Errors
    /// [`LabError::Io`] if there is no such key or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| fs::write(&path, value))?
            .map_err(LabError::io(format!("setting {key} in {}", self.name)))
    }
}

/// Runs a program to its end and returns its standard output.
pub(super) fn run(command: &mut Command) -> Result<String, LabError> {
    let output =
        command.stdin(Stdio::null()).output().map_err(LabError::io(format!("starting {command:?}")))?;
    succeed(command, &output)
}

fn feed(command: &mut Command, input: &str) -> Result<String, LabError> {
    let context = format!("running {command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::io(context.clone()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes its input; its own error says more.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(LabError::io(context))?;
    succeed(command, &output)
}

fn succeed(command: &Command, output: &Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(LabError::Command {
        command: format!("{command:?}"),
        output: String::from_utf8_lossy(said).trim().to_owned(),
    })
}
