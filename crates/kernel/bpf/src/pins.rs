//! The directory of pins: `<bpffs>/trireme/<instance>/v<ABI version>/`, links in `links/` below it.

#![expect(unsafe_code, reason = "mount has no safe form here")]

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};
use trireme_bpf_abi::ABI_VERSION;

use crate::{Hook, OpenError, Slot};

const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of one instance, locked against other processes while this lives.
pub(crate) struct Pins {
    maps: PathBuf,
    others: Vec<(u32, PathBuf)>,
    _lock: File,
}

/// Why the lock is not ours.
pub(crate) enum LockError {
    /// Another process has it.
    Busy,
    /// The directory cannot be opened.
    Io(io::Error),
}

impl Pins {
    /// Creates what is missing and takes the lock.
    pub(crate) fn open(bpffs: &Path, instance: &str) -> Result<Self, OpenError> {
        if !is_valid_instance(instance) {
            return Err(OpenError::Instance(instance.to_owned()));
        }
        ensure_mounted(bpffs).map_err(|source| OpenError::BpfFs { path: bpffs.to_path_buf(), source })?;
        let instance_directory = directory(bpffs, instance);
        let maps = instance_directory.join(format!("v{ABI_VERSION}"));
        let failed = |source| OpenError::Pins { path: instance_directory.clone(), source };
        fs::create_dir_all(&instance_directory).map_err(failed)?;
        let lock = lock(&instance_directory).map_err(|error| match error {
            LockError::Busy => OpenError::InUse(instance.to_owned()),
            LockError::Io(source) => failed(source),
        })?;
        let others = other_versions(&instance_directory).map_err(failed)?;
        fs::create_dir_all(maps.join("links")).map_err(failed)?;
        Ok(Self { maps, others, _lock: lock })
    }

    /// Versions and directories of pins that another version of the program left.
    pub(crate) fn others(&self) -> &[(u32, PathBuf)] {
        &self.others
    }

    /// Directory in which the maps are pinned.
    pub(crate) fn maps(&self) -> &Path {
        &self.maps
    }

    /// Path of a link's pin.
    pub(crate) fn link(&self, slot: Slot, hook: Hook) -> PathBuf {
        link_path(&self.maps, slot, hook)
    }
}

/// Path of a link's pin below a version's directory.
pub(crate) fn link_path(maps: &Path, slot: Slot, hook: Hook) -> PathBuf {
    let hook = match hook {
        Hook::FromPu => "from",
        Hook::ToPu => "to",
    };
    maps.join("links").join(format!("{slot}-{hook}"))
}

/// Directory of an instance.
pub(crate) fn directory(bpffs: &Path, instance: &str) -> PathBuf {
    bpffs.join("trireme").join(instance)
}

/// True if the name can stand in a path.
pub(crate) fn is_valid_instance(instance: &str) -> bool {
    (1..=32).contains(&instance.len())
        && instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Takes the lock of an instance.
pub(crate) fn lock(instance_directory: &Path) -> Result<File, LockError> {
    let lock = File::open(instance_directory).map_err(LockError::Io)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Busy),
        Err(error) => Err(LockError::Io(error.into())),
    }
}

/// True if `path` lies on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|magic| magic == BPFFS_MAGIC))
}

fn ensure_mounted(path: &Path) -> io::Result<()> {
    if is_bpffs(path) {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    let target = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: source, target and type are NUL-terminated strings that outlive the call, and a null pointer is a
    // valid absence of mount data; the call keeps none of them.
    let result =
        unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn other_versions(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let version = name.strip_prefix('v').and_then(|version| version.parse().ok());
        found
            .extend(version.filter(|version| *version != ABI_VERSION).map(|version| (version, entry.path())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_name_that_could_leave_the_directory_is_refused() {
        for name in ["", ".", "..", "a/b", "a.b", "ä", &"x".repeat(33)] {
            assert!(!is_valid_instance(name), "{name:?}");
        }
        assert!(is_valid_instance("node-1_A"));
    }
}
