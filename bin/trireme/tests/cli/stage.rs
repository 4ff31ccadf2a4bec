//! A folder with a configuration, and ways to run the program in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use tempfile::TempDir;

/// A key that no other text contains.
pub(crate) const PSK: &str = "5b1a0c0fffe0b4f0d3c2b1a09f8e7d6c";

pub(crate) const POLICY: &str = "apiVersion: trireme/v1
policies:
  - name: backend
    subject: {tier: backend}
    ingress:
      - name: web
        from: [{tier: frontend}]
        ports: [80/tcp]
";

pub(crate) struct Stage {
    folder: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let stage = Self { folder };
        stage.write("policy.yaml", POLICY);
        stage
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path().join(name)).unwrap().permissions().mode() & 0o777
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(cargo_bin("trireme"));
        command.current_dir(self.path()).env_remove("TRIREME_PSK").env_remove("TRIREME_LOG");
        command
    }

    /// Exit code, standard output, standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(self.command().args(arguments))
    }

    pub(crate) fn run_as(&self, uid: u32, arguments: &[&str]) -> (i32, String, String) {
        // The test's own folder of binaries may be closed to other users: hand over a copy. A child writes it, because
        // a test forking meanwhile would inherit our descriptor and keep the file busy.
        let copy = self.path().join("trireme");
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(cargo_bin("trireme")).arg(&copy);
        assert!(install.status().unwrap().success());
        outcome(Command::new(copy).current_dir(self.path()).uid(uid).gid(uid).args(arguments))
    }
}

pub(crate) fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A network namespace with the host side of a unit's veth in it, named after the test.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    pub(crate) fn new(name: &str) -> Self {
        let netns = Self { name: format!("trcli-{name}-{}", std::process::id()) };
        ip(&["netns", "add", &netns.name]);
        ip(&["-n", &netns.name, "link", "add", "veth-web", "type", "veth", "peer", "name", "eth0"]);
        netns
    }

    /// Deletes the unit's veth and makes it again.
    pub(crate) fn renew_veth(&self) {
        ip(&["-n", &self.name, "link", "del", "veth-web"]);
        ip(&["-n", &self.name, "link", "add", "veth-web", "type", "veth", "peer", "name", "eth0"]);
    }

    /// Lets the unit send datagrams, which nobody answers.
    pub(crate) fn send_datagrams(&self) {
        let name = &self.name;
        ip(&["-n", name, "link", "set", "veth-web", "up"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "addr", "add", "10.99.0.1/24", "dev", "eth0"]);
        ip(&["-n", name, "neigh", "add", "10.99.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0"]);
        let mut shell = Command::new("bash");
        shell.args(["-c", "for i in 1 2 3; do echo x > /dev/udp/10.99.0.2/9; done"]);
        assert!(self.wrap(&shell).status().unwrap().success());
    }

    /// The command, run inside. `ip netns exec` would hide the BPF file system behind a mount of its own.
    pub(crate) fn wrap(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(command.get_program());
        inside.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
