//! The programs that write and list rules.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::NetfilterError;

/// Where programs of the administrator are when the service's search path lacks them.
const ADMINISTRATOR: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where `nft` and the programs of iptables are found; by default in the search path and the directories of the
/// administrator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Programs {
    directory: Option<PathBuf>,
}

impl Programs {
    /// Takes the programs from one directory only.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()) }
    }

    /// Runs a program in the calling thread's namespace and returns what it printed.
    pub(crate) fn run(&self, program: &str, words: &[&str], input: &str) -> Result<String, NetfilterError> {
        let cannot = |source| NetfilterError::Run { program: program.to_owned(), source };
        let mut child = Command::new(self.locate(program)?)
            .args(words)
            // What the programs say is read.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends early says why.
            drop(stdin.write_all(input.as_bytes()));
        }
        let output = child.wait_with_output().map_err(cannot)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let mut said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        said.truncate(4);
        let said = if said.is_empty() { output.status.to_string() } else { said.join("; ") };
        Err(NetfilterError::Failed { program: program.to_owned(), said })
    }

    /// True if the program is installed.
    pub(crate) fn has(&self, program: &str) -> bool {
        self.locate(program).is_ok()
    }

    fn locate(&self, program: &str) -> Result<PathBuf, NetfilterError> {
        let directories = match &self.directory {
            Some(directory) => vec![directory.clone()],
            None => env::var_os("PATH")
                .iter()
                .flat_map(env::split_paths)
                .chain(ADMINISTRATOR.map(PathBuf::from))
                .collect(),
        };
        let package = if program == "nft" { "nftables" } else { "iptables (1.8 or later)" };
        directories
            .iter()
            .map(|directory| directory.join(program))
            .find(|path| Path::is_file(path))
            .ok_or_else(|| NetfilterError::Missing { program: program.to_owned(), package })
    }
}
