//! Adds an entry to a deny-list file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{DenyFileError, Entry, parse};

/// Whether the file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The entry was added.
    Added,
    /// It was there already.
    Present,
}

/// Adds an entry. Whoever reads the file meanwhile, or after a crash, finds it whole: without the entry or with it.
///
/// A file that does not exist is made (0600); comments and permissions of one that does are kept.
///
/// # Errors
/// [`DenyFileError`]; a file with a wrong line is refused, since its reader refuses it too.
pub fn append(path: &Path, entry: &Entry) -> Result<Appended, DenyFileError> {
    let unwritable = |source| DenyFileError::Unwritable { path: path.to_owned(), source };
    // A link is followed: replacing it would leave its target unchanged.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let lock = File::open(&folder).map_err(unwritable)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| unwritable(error.into()))?;
    let mut text = match fs::read(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(DenyFileError::Unreadable { path: path.to_owned(), source }),
    };
    let list = parse(path, &text)?;
    let present = match entry {
        Entry::Key(id) => list.keys.contains(id),
        Entry::Token(id) => list.tokens.contains(id),
        Entry::Node(id) => list.nodes.contains(id),
    };
    if present {
        return Ok(Appended::Present);
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(format!("{entry}\n").as_bytes());
    replace(&target, &text).and_then(|()| lock.sync_all()).map_err(unwritable)?;
    Ok(Appended::Added)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mode = fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
