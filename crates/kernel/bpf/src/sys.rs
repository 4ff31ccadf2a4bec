//! Calls of bpf() for which the loader has no form.

#![expect(unsafe_code, reason = "bpf() has no safe form")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// Attributes of a call: the kernel's layout, without padding.
pub(crate) trait Attributes: IntoBytes + FromBytes + Immutable + KnownLayout {}

/// Calls bpf(); the kernel may write to `attributes`.
///
/// # Safety
/// `attributes` are laid out as `command` has them, and every address and descriptor in them is valid for what
/// `command` does with it until the call returns.
pub(crate) unsafe fn bpf<T: Attributes>(command: libc::c_long, attributes: &mut T) -> io::Result<i64> {
    let size = size_of::<T>();
    // SAFETY: `attributes` is writable for `size` bytes; the caller vouches for what is in them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The address of memory that the kernel reads.
pub(crate) fn address<T>(memory: &[T]) -> u64 {
    u64::try_from(memory.as_ptr().expose_provenance()).unwrap_or(0)
}

/// The address of memory that the kernel writes to.
pub(crate) fn address_mut<T>(memory: &mut [T]) -> u64 {
    u64::try_from(memory.as_mut_ptr().expose_provenance()).unwrap_or(0)
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Number of the link.
    pub(crate) id: u32,
    /// Number of the program on it.
    pub(crate) program: u32,
    /// Interface index in the interface's own namespace; 0 if it is detached, or is no tcx link.
    pub(crate) ifindex: u32,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ObjectAttributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

impl Attributes for ObjectAttributes {}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct InfoAttributes {
    descriptor: u32,
    length: u32,
    info: u64,
}

impl Attributes for InfoAttributes {}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

impl Attributes for UpdateAttributes {}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct QueryAttributes {
    ifindex: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

impl Attributes for QueryAttributes {}

impl Attributes for i32 {}

/// Opens what is pinned at `pin`.
pub(crate) fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attributes =
        ObjectAttributes { path: address(path.as_bytes_with_nul()), descriptor: 0, flags: 0 };
    // SAFETY: BPF_OBJ_GET reads the NUL-terminated string, which lives through the call.
    let descriptor = unsafe { bpf(OBJ_GET, &mut attributes) }?;
    let descriptor = i32::try_from(descriptor).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins a link, map or program at `path`; it may be pinned elsewhere too.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        path: address(path.as_bytes_with_nul()),
        descriptor: u32::try_from(object.as_raw_fd()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: BPF_OBJ_PIN reads the NUL-terminated string, which lives through the call, and borrows the
    // descriptor, which is open.
    unsafe { bpf(OBJ_PIN, &mut attributes) }.map(drop)
}

/// Puts another program on a link, in one step.
pub(crate) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX);
    let mut attributes = UpdateAttributes { link: number(link), program: number(program), flags: 0, old: 0 };
    // SAFETY: BPF_LINK_UPDATE borrows two descriptors, which are open.
    unsafe { bpf(LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Detaches a link from its interface; it stays pinned.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut descriptor: i32 = link.as_raw_fd();
    // SAFETY: BPF_LINK_DETACH reads one descriptor, which is open.
    unsafe { bpf(LINK_DETACH, &mut descriptor) }.map(drop)
}

/// Asks about a link; an error for whatever is no link.
pub(crate) fn link_state(link: BorrowedFd<'_>) -> io::Result<LinkState> {
    const TCX: u32 = 11;
    // Longer than any kernel's answer; the rest stays zero.
    let mut info = [0_u32; 64];
    let mut attributes = InfoAttributes {
        descriptor: u32::try_from(link.as_raw_fd()).unwrap_or(u32::MAX),
        length: u32::try_from(size_of_val(&info)).unwrap_or(0),
        info: address_mut(&mut info),
    };
    // SAFETY: BPF_OBJ_GET_INFO_BY_FD writes at most `length` bytes to `info`, which has that many and outlives the
    // call; any bytes are a value of it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let [kind, id, program, _, ifindex, ..] = info;
    Ok(LinkState { id, program, ifindex: if kind == TCX { ifindex } else { 0 } })
}

/// Returns the numbers of the tcx links on both hooks of an interface of the calling thread's namespace.
pub(crate) fn links_on(ifindex: u32) -> io::Result<Vec<u32>> {
    const TCX: [u32; 2] = [46, 47];
    /// More programs than the kernel takes on one hook.
    const ROOM: usize = 64;
    let mut all = Vec::new();
    for kind in TCX {
        let (mut programs, mut links) = ([0_u32; ROOM], [0_u32; ROOM]);
        let mut attributes = QueryAttributes {
            ifindex,
            kind,
            query_flags: 0,
            attach_flags: 0,
            programs: address_mut(&mut programs),
            count: u32::try_from(ROOM).unwrap_or(0),
            pad: 0,
            program_flags: 0,
            links: address_mut(&mut links),
            link_flags: 0,
            revision: 0,
        };
        // SAFETY: BPF_PROG_QUERY writes at most `count` numbers to `programs` and `links`, which have that many and
        // outlive the call.
        unsafe { bpf(PROG_QUERY, &mut attributes) }?;
        all.extend(links.into_iter().filter(|link| *link != 0));
    }
    Ok(all)
}
