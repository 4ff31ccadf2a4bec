//! Detaching a pinned link at once: the end of its last reference alone acts some time later.

#![expect(unsafe_code, reason = "the loader has no way to detach a link")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::error::Cause;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Detaches the link and removes its pin; that there is none is no error.
pub(crate) fn detach_link(pin: &Path) -> Result<(), Cause> {
    if !fs::exists(pin)? {
        return Ok(());
    }
    let link = open(pin)?;
    let detached = detach(&link);
    fs::remove_file(pin)?;
    match detached {
        // The interface is gone, and the attachment with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        other => Ok(other?),
    }
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes =
        Attributes { path: path.as_ptr().addr().try_into().unwrap_or(0), descriptor: 0, flags: 0 };
    let size = size_of::<Attributes>();
    // The address travels as a number; the kernel turns it into a pointer again.
    let _exposed = path.as_ptr().expose_provenance();
    // SAFETY: BPF_OBJ_GET reads the 16 bytes of `attributes`, laid out as the kernel lays them out, and the
    // NUL-terminated string whose address is in them; both live through the call and are only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size) };
    let descriptor = i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn detach(link: &OwnedFd) -> io::Result<()> {
    let descriptor: i32 = link.as_raw_fd();
    let size = size_of::<i32>();
    // SAFETY: BPF_LINK_DETACH reads the 4 bytes of one descriptor, which live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const descriptor, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
