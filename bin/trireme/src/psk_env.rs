//! The pre-shared key from the environment, wiped after reading.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::Context;
use zeroize::Zeroizing;

/// The variable that holds the key.
pub(crate) const VARIABLE: &str = "TRIREME_PSK";

/// Tells the second process image that the key waits on its standard input.
const HANDED_OVER: &str = "TRIREME_PSK_ON_STDIN";

/// More than the longest key.
const MAX_LEN: u64 = 4096;

/// Takes the key out of the environment, if it is there.
///
/// Removing a variable leaves its text in the memory that `/proc/<pid>/environ` shows, so the process replaces its
/// own image by one started without it (same process id) and hands the key over through a pipe. Called before any
/// thread exists.
///
/// # Errors
/// If the variable is not text or the image cannot be replaced.
pub(crate) fn take() -> anyhow::Result<Option<Zeroizing<String>>> {
    if std::env::var_os(HANDED_OVER).is_some() {
        let mut key = Zeroizing::new(String::new());
        let mut input = std::io::stdin().lock().take(MAX_LEN);
        input.read_to_string(&mut key).with_context(|| format!("cannot read {VARIABLE}"))?;
        return Ok(Some(key));
    }
    let Some(key) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let key = Zeroizing::new(key.into_encoded_bytes());
    let (reader, mut writer) = std::io::pipe().context("cannot make a pipe")?;
    // Fits the pipe's buffer, so nobody has to read at the other end yet.
    let part = key.get(..usize::try_from(MAX_LEN)?).unwrap_or(&key);
    writer.write_all(part).with_context(|| format!("cannot hand {VARIABLE} over"))?;
    drop(writer);
    let error = Command::new("/proc/self/exe")
        .arg0(std::env::args_os().next().unwrap_or_else(|| "trireme".into()))
        .args(std::env::args_os().skip(1))
        .env_remove(VARIABLE)
        .env(HANDED_OVER, "1")
        .stdin(Stdio::from(reader))
        .exec();
    Err(error).with_context(|| format!("cannot start again without {VARIABLE} in the environment"))
}
