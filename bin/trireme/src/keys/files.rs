//! Key files: mode 0600, never overwritten, all of a set or none.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use trireme_token::authority::Authority;
use zeroize::Zeroizing;

/// A file to be made.
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) text: Zeroizing<String>,
}

impl NewFile {
    /// `<stem>.<ending>`.
    pub(super) fn beside(stem: &Path, ending: &str, text: Zeroizing<String>) -> Self {
        Self { path: with_ending(stem, ending), text }
    }
}

fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// Makes every file, or none and says why.
pub(super) fn write_all(files: &[NewFile]) -> anyhow::Result<()> {
    if let Some(taken) = files.iter().find(|file| file.path.symlink_metadata().is_ok()) {
        bail!(
            "{} exists: keys are never overwritten, remove it or choose another path",
            taken.path.display()
        );
    }
    for (count, file) in files.iter().enumerate() {
        if let Err(error) = write(file) {
            for made in files.iter().take(count + 1) {
                // What could not be made need not be removed.
                drop(fs::remove_file(&made.path));
            }
            return Err(error).with_context(|| format!("cannot write {}", file.path.display()));
        }
    }
    Ok(())
}

fn write(file: &NewFile) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path)?;
    out.write_all(file.text.as_bytes())?;
    out.sync_all()
}

/// Reads an authority from the files that `trireme keys ca` made.
pub(super) fn authority(stem: &Path) -> anyhow::Result<Authority> {
    let key = with_ending(stem, "key.pem");
    let certificate = with_ending(stem, "cert.pem");
    let key_text = Zeroizing::new(read(&key)?);
    Authority::from_pem(&key_text, &read(&certificate)?)
        .with_context(|| format!("{} and {} are no authority", key.display(), certificate.display()))
}

/// Reads a text file.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
