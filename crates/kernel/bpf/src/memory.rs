//! How much memory maps take.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use crate::{PlaneError, sys};

/// Bytes of all maps that are pinned in a directory.
pub(crate) fn of_pins(maps: &Path) -> Result<u64, PlaneError> {
    let failed = |source: io::Error| PlaneError::Map { map: "sizes", source: source.into() };
    let mut sum = 0;
    for entry in fs::read_dir(maps).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        let map = sys::open(&entry.path()).map_err(failed)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).map_err(failed)?;
        sum += memlock(&info).unwrap_or(0);
    }
    Ok(sum)
}

fn memlock(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_from_the_kernels_account() {
        let info = "pos:\t0\nflags:\t02000002\nmap_type:\t1\nmemlock:\t8704\nmap_id:\t7\n";

        assert_eq!(memlock(info), Some(8704));
        assert_eq!(memlock("pos:\t0\n"), None);
    }
}
