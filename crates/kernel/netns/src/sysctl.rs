//! Settings of a link below `/proc/sys/net`.

use std::fs;
use std::io;

/// Turns IPv6 off on the link `name` of the calling thread's namespace, so that the kernel never speaks on it.
///
/// # Errors
/// Whatever writing the setting says; a kernel without IPv6 is not an error.
pub fn disable_ipv6(name: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
