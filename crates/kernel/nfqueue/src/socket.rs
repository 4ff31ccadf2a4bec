//! Many datagrams in one call.

#![expect(unsafe_code, reason = "recvmmsg() has no safe form")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Datagrams of one call.
const DATAGRAMS: usize = 16;

/// The longest packet, and its attributes.
const SIZE: usize = 65_536 + 2048;

/// Room for what one call brings.
pub(crate) struct Batch {
    memory: Vec<u8>,
    /// Length of each datagram; none where it was longer than its room.
    lengths: Vec<Option<usize>>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { memory: vec![0; DATAGRAMS * SIZE], lengths: Vec::with_capacity(DATAGRAMS) }
    }

    /// Takes what is there, without waiting: at most sixteen datagrams.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.lengths.clear();
        let mut rooms: Vec<libc::iovec> = self
            .memory
            .chunks_exact_mut(SIZE)
            .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = rooms.iter_mut().map(header).collect();
        let count = libc::c_uint::try_from(headers.len()).map_err(io::Error::other)?;
        // SAFETY: every header points to one element of `rooms`, which lives until the end of this function, and that
        // to SIZE bytes of `self.memory`, borrowed for as long and touched by nobody else; `count` is their number.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.lengths.extend(headers.iter().take(received).map(|header| {
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            usize::try_from(header.msg_len).ok().filter(|length| whole && *length <= SIZE)
        }));
        Ok(())
    }

    /// The datagrams of the last call; none stands for one that was too long.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.memory
            .chunks_exact(SIZE)
            .zip(&self.lengths)
            .map(|(room, length)| length.and_then(|length| room.get(..length)))
    }

    /// Whether more may be there.
    pub(crate) fn is_full(&self) -> bool {
        self.lengths.len() == DATAGRAMS
    }
}

fn header(room: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all fields are integers and pointers, for which zero is a value: no name, no control data.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = std::ptr::from_mut(room);
    header.msg_hdr.msg_iovlen = 1;
    header
}
