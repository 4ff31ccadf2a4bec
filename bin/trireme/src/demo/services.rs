//! The programs of the tiers, and the clients that call them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use trireme_testkit::lab::{Namespace, Process, Pu, Reach, eventually, probe};

use super::tier::{Access, Tier};

/// How long a client waits: longer than one lost SYN costs, and all that a refusal costs.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Starts the tier's program inside a workload and waits until it listens.
pub(super) fn start(pu: &Pu, tier: Tier, dir: &Path) -> anyhow::Result<Process> {
    let dir = dir.join(&pu.name);
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut command = match tier {
        Tier::External | Tier::Frontend | Tier::Backend => nginx(pu, &dir)?,
        Tier::Database => redis(&dir),
    };
    let process = Process::start(&pu.namespace, &pu.name, &mut command, &dir.join("log"))?;
    let own = SocketAddr::from(([127, 0, 0, 1], tier.port()));
    eventually(
        &format!("the start of {}", pu.name),
        Duration::from_secs(10),
        || Ok(probe(&pu.namespace, own, Duration::from_millis(5))? != Reach::Refused),
        || process.log(),
    )?;
    Ok(process)
}

/// A web server that says who it is.
fn nginx(pu: &Pu, dir: &Path) -> anyhow::Result<Command> {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", dir.display()))
        .collect();
    let dir = dir.display();
    let configuration = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n{temporary}  server {{\n    \
         listen 80; listen [::]:80; listen 8080; listen [::]:8080;\n    \
         location / {{ return 200 \"{}\\n\"; }}\n  }}\n}}\n",
        pu.name
    );
    let path = format!("{dir}/nginx.conf");
    fs::write(&path, configuration).with_context(|| format!("cannot write {path}"))?;
    let mut command = Command::new("nginx");
    command.args(["-c", &path, "-e", "stderr"]);
    Ok(command)
}

/// A database without persistence.
fn redis(dir: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", "6379", "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""]);
    command.args(["--appendonly", "no", "--daemonize", "no", "--dir"]).arg(dir);
    command
}

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The right answer, or silence.
    Access(Access),
    /// Anything else.
    Odd(String),
}

impl Seen {
    pub(super) fn is(&self, access: Access) -> bool {
        *self == Self::Access(access)
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Access(Access::Allow) => "allow".to_owned(),
            Self::Access(Access::Deny) => "deny".to_owned(),
            Self::Odd(what) => format!("error: {what}"),
        }
    }
}

/// Calls a tier's program from inside a namespace with the client that fits it; `server` is who must answer.
pub(super) fn call(from: &Namespace, to: SocketAddr, tier: Tier, server: &str, source: Option<&str>) -> Seen {
    let mut command = match tier {
        Tier::External | Tier::Frontend | Tier::Backend => curl(to, source),
        Tier::Database => redis_cli(to),
    };
    let wanted = match tier {
        Tier::External | Tier::Frontend | Tier::Backend => server,
        Tier::Database => "PONG",
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = match from.enter(|| command.spawn()) {
        Ok(Ok(child)) => child,
        Ok(Err(error)) => return Seen::Odd(error.to_string()),
        Err(error) => return Seen::Odd(error.to_string()),
    };
    judge(child, wanted)
}

fn curl(to: SocketAddr, source: Option<&str>) -> Command {
    let patience = format!("{:.1}", PATIENCE.as_secs_f32());
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", &patience]);
    if let Some(address) = source {
        command.args(["--interface", address]);
    }
    command.arg(format!("http://{to}/"));
    command
}

fn redis_cli(to: SocketAddr) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "PING"]);
    command
}

/// Waits for a client; silence until patience ends is a refusal.
fn judge(mut child: Child, wanted: &str) -> Seen {
    /// The exit code of curl for a timeout.
    const TIMED_OUT: i32 = 28;
    let deadline = Instant::now() + PATIENCE + Duration::from_millis(500);
    let ended = loop {
        match child.try_wait() {
            Ok(Some(_)) => break true,
            Ok(None) if Instant::now() > deadline => break false,
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Seen::Odd(error.to_string()),
        }
    };
    if !ended && let Err(error) = child.kill() {
        return Seen::Odd(error.to_string());
    }
    let output = match child.wait_with_output() {
        Ok(output) => output,
        Err(error) => return Seen::Odd(error.to_string()),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if ended && output.status.success() && said.trim() == wanted {
        Seen::Access(Access::Allow)
    } else if !ended || output.status.code() == Some(TIMED_OUT) {
        Seen::Access(Access::Deny)
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Seen::Odd(format!("{} {}", said.trim(), error.trim()).trim().to_owned())
    }
}
