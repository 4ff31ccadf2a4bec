//! The directory in which token keys and epochs outlive a restart.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::finding::Finding;

const CHECK: &str = "state";

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    NoDirectory,
    Directory { owner: u32, mode: u32 },
}

/// Looks at the directory; neither makes nor locks it.
pub(super) fn look(path: &Path) -> Finding {
    let found = match std::fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => Found::NoDirectory,
        Ok(meta) => Found::Directory { owner: meta.uid(), mode: meta.permissions().mode() & 0o7777 },
        Err(error) if error.kind() == ErrorKind::NotFound => Found::Nothing,
        Err(error) => {
            let found = format!("cannot look at {}: {error}", path.display());
            return Finding::problem(
                CHECK,
                found,
                "run it as the agent's user, or choose another node.state_dir",
            );
        }
    };
    judge(path, found, rustix::process::geteuid().as_raw())
}

/// As an agent judges it that takes the directory.
fn judge(path: &Path, found: Found, user: u32) -> Finding {
    let shown = path.display();
    match found {
        Found::Nothing => Finding::ok(CHECK, format!("{shown} is made at the first start")),
        Found::NoDirectory => Finding::problem(
            CHECK,
            format!("{shown} is no directory"),
            "remove it, or choose another node.state_dir",
        ),
        Found::Directory { owner, .. } if owner != user => Finding::problem(
            CHECK,
            format!("{shown} belongs to user {owner}, not to user {user}"),
            format!("run it as the agent's user, or chown {user} {shown}"),
        ),
        Found::Directory { mode, .. } if mode & 0o077 != 0 => Finding::problem(
            CHECK,
            format!("{shown} is open to other users (mode {mode:o})"),
            format!("chmod 700 {shown}"),
        ),
        Found::Directory { .. } => Finding::ok(CHECK, format!("{shown} is closed to other users")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_directory_is_closed_and_the_agents_own() {
        let at = |found| judge(Path::new("/var/lib/t"), found, 0);
        assert_eq!(at(Found::Nothing).level, Level::Ok);
        assert_eq!(at(Found::Directory { owner: 0, mode: 0o700 }).level, Level::Ok);
        let exposed = at(Found::Directory { owner: 0, mode: 0o755 });
        assert_eq!(
            exposed,
            Finding::problem("state", "/var/lib/t is open to other users (mode 755)", "chmod 700 /var/lib/t")
        );
        assert_eq!(at(Found::Directory { owner: 7, mode: 0o700 }).level, Level::Problem);
        assert_eq!(at(Found::NoDirectory).level, Level::Problem);
    }
}
