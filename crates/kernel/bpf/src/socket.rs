//! A packet socket that sends whole frames past the queueing discipline, many in one call.

#![expect(unsafe_code, reason = "sendmmsg to link-layer addresses has no safe form here")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Most frames in one call.
pub(crate) const BATCH: usize = 64;

/// A frame in three parts, so that nothing is copied together.
pub(crate) struct Frame<'a> {
    pub(crate) ifindex: u32,
    pub(crate) ethernet: [u8; 14],
    pub(crate) packet: &'a [u8],
    pub(crate) trailer: &'a [u8],
}

/// A packet socket in the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket that receives nothing.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 16 << 20)?;
        Ok(Self { fd })
    }

    /// True if the namespace still has the interface.
    pub(crate) fn has_interface(&self, ifindex: u32) -> bool {
        rustix::net::netdevice::index_to_name_inlined(&self.fd, ifindex).is_ok()
    }

    /// Sends the frames in order; returns how many left. A frame that the kernel refuses is skipped.
    pub(crate) fn send(&self, frames: &[Frame<'_>]) -> usize {
        frames.chunks(BATCH).map(|chunk| self.send_chunk(chunk)).sum()
    }

    fn send_chunk(&self, mut frames: &[Frame<'_>]) -> usize {
        let mut sent = 0;
        while !frames.is_empty() {
            // An error concerns the first frame only.
            let step = self.send_some(frames).map_or(0, |count| {
                sent += count;
                count
            });
            frames = frames.get(step.max(1)..).unwrap_or_default();
        }
        sent
    }

    fn send_some(&self, frames: &[Frame<'_>]) -> io::Result<usize> {
        let mut addresses: Vec<libc::sockaddr_ll> = frames.iter().map(|f| address(f.ifindex)).collect();
        let mut parts: Vec<[libc::iovec; 3]> = frames.iter().map(parts).collect();
        let mut messages: Vec<libc::mmsghdr> = addresses
            .iter_mut()
            .zip(parts.iter_mut())
            .map(|(address, parts)| message(address, parts))
            .collect();
        let count = u32::try_from(messages.len()).unwrap_or(0);
        // SAFETY: `messages` has `count` headers; each points to one element of `addresses` and of `parts`, which
        // live to the end of this function and are not moved; each part points into a borrowed frame, which the
        // kernel only reads.
        let sent = unsafe { libc::sendmmsg(self.fd.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn address(ifindex: u32) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll consists of integers and an array of bytes; all zeros is a value of each.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = i32::try_from(ifindex).unwrap_or(0);
    address
}

fn parts(frame: &Frame<'_>) -> [libc::iovec; 3] {
    [frame.ethernet.as_slice(), frame.packet, frame.trailer]
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
}

fn message(address: &mut libc::sockaddr_ll, parts: &mut [libc::iovec; 3]) -> libc::mmsghdr {
    // SAFETY: mmsghdr consists of integers and raw pointers; all zeros is a value of each.
    let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
    message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
    message.msg_hdr.msg_namelen = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    message.msg_hdr.msg_iov = parts.as_mut_ptr();
    message.msg_hdr.msg_iovlen = parts.len();
    message
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = u32::try_from(size_of::<i32>()).unwrap_or(0);
    // SAFETY: the option value is an i32 that lives through the call, and `length` is its size.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(&value).cast(), length) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
