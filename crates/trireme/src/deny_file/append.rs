//! Adds an entry to a deny-list file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::{DenyFileError, Entry, parse};
use crate::state::replace;
use crate::watch::folder;

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
    let lock = File::open(folder(&target)).map_err(unwritable)?;
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
    let mode = fs::metadata(&target).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    replace(&target, mode, &text).and_then(|()| lock.sync_all()).map_err(unwritable)?;
    Ok(Appended::Added)
}
