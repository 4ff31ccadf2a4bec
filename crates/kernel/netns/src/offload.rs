//! What a device does to packets before the kernel sees them.

#![expect(unsafe_code, reason = "the ioctl has no safe form")]

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketType, socket};

/// `ETHTOOL_GFLAGS` and the flag of it that is looked for (linux/ethtool.h).
const GET_FLAGS: u32 = 0x25;
const LRO: u32 = 1 << 15;

#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// True if the device `name` of the calling thread's namespace merges received segments (LRO): what it makes of them
/// cannot be taken apart again when it is forwarded.
///
/// # Errors
/// What the kernel says; a device that does not know the question has no such thing.
pub fn merges_received(name: &str) -> io::Result<bool> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut value = Value { command: GET_FLAGS, data: 0 };
    // SAFETY: the structure is plain numbers and one pointer, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: it ends the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads the request, whose name ends with a zero, and writes the eight bytes of the value that
    // it points to; both outlive the call. JUSTIFICATION: no safe form of this ioctl exists.
    let result = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        return Ok(value.data & LRO != 0);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn loopback_merges_nothing_and_an_absent_device_is_an_error() {
        assert!(!merges_received("lo").unwrap());
        assert_eq!(merges_received("trireme-none").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
