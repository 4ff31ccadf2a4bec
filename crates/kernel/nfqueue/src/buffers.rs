//! Room for many datagrams, filled in one call of the kernel.

#![expect(unsafe_code, reason = "recvmmsg() has no safe form")]

use std::array;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Datagrams of one call.
const DATAGRAMS: usize = 16;

/// The longest packet, and its attributes.
const SIZE: usize = 65_536 + 2048;

/// Room for what one call of [`Queue::receive`](crate::Queue::receive) brings: sixteen packets, about a megabyte.
///
/// One for each thread, lent to every queue that the thread serves.
pub struct Buffers {
    rooms: [Box<[u8]>; DATAGRAMS],
    /// Length of each datagram; none where it was longer than its room.
    lengths: Vec<Option<usize>>,
}

impl Buffers {
    /// Takes the memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            rooms: array::from_fn(|_| vec![0; SIZE].into_boxed_slice()),
            lengths: Vec::with_capacity(DATAGRAMS),
        }
    }

    /// Takes what is there, without waiting; what was there before is forgotten, also when it fails.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.lengths.clear();
        let mut places = self.rooms.each_mut().map(|room| place(room));
        let mut headers = places.each_mut().map(header);
        let count = libc::c_uint::try_from(headers.len()).map_err(io::Error::other)?;
        // SAFETY: `headers` has `count` elements. Each points to one element of `places`, which lives until the end of
        // this function and is not moved, and that to the whole of one room of `self.rooms`, a heap block of its own
        // that is borrowed mutably through `self` for as long; the kernel writes within these and nobody else touches
        // them during the call. No header has a name or control data, and no time-out is given.
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
        self.lengths.extend(headers.iter().take(received).map(length));
        Ok(())
    }

    /// The datagrams of the last call; none stands for one that was too long.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.rooms
            .iter()
            .zip(&self.lengths)
            .map(|(room, length)| length.and_then(|length| room.get(..length)))
    }

    /// Whether more may be there.
    pub(crate) fn is_full(&self) -> bool {
        self.lengths.len() == DATAGRAMS
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

fn place(room: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() }
}

fn header(place: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all fields are integers and pointers, for which zero is a value: no name, no control data.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = std::ptr::from_mut(place);
    header.msg_hdr.msg_iovlen = 1;
    header
}

fn length(header: &libc::mmsghdr) -> Option<usize> {
    let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
    usize::try_from(header.msg_len).ok().filter(|_| whole)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn datagrams_come_in_order_sixteen_at_a_time_and_one_that_is_too_long_leaves_its_place() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let mut buffers = Buffers::new();
        // The system lets few datagrams wait in such a socket.
        for number in 0..10_u8 {
            sender.send(&vec![number; if number == 3 { SIZE + 1 } else { usize::from(number) }]).unwrap();
        }

        buffers.receive(receiver.as_fd()).unwrap();

        let lengths: Vec<_> = buffers.datagrams().map(|datagram| datagram.map(<[u8]>::len)).collect();
        assert_eq!(lengths, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|length| (length != 3).then_some(length)));
        assert!(
            buffers
                .datagrams()
                .flatten()
                .all(|datagram| datagram.iter().all(|byte| usize::from(*byte) == datagram.len()))
        );
        assert!(!buffers.is_full());
    }

    #[test]
    fn nothing_is_left_of_the_last_call_when_there_is_nothing() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let mut buffers = Buffers::new();
        sender.send(b"x").unwrap();
        buffers.receive(receiver.as_fd()).unwrap();
        assert_eq!(buffers.datagrams().count(), 1);

        assert_eq!(buffers.receive(receiver.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        assert_eq!(buffers.datagrams().count(), 0);
    }
}
