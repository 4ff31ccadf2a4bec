//! What the kernel and programs say about themselves, as text.

use std::fs;
use std::process::{Command, Stdio};

/// A setting below `/proc/sys`, of the calling thread's network namespace; none if the kernel has none.
pub(super) fn setting(name: &str) -> Option<u64> {
    text(&format!("/proc/sys/{name}"))?.trim().parse().ok()
}

/// A file of the kernel, if it is there.
pub(super) fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What a program prints, if it is installed and succeeds.
pub(super) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
