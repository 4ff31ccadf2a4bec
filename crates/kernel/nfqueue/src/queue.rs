//! A socket bound to one queue, and the verdicts that wait to be told.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;

use crate::open::{Opening, unbind};
use crate::packet::{Incoming, parse_datagram};
use crate::{Action, Buffers, Packet, QueueError, Verdicts};

/// How a queue is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Its number.
    pub number: u16,
    /// How many packets may wait for their verdict; the next ones are dropped and counted.
    pub length: u32,
    /// Bytes of the socket's buffer.
    pub receive_buffer: usize,
}

/// What one call brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Packets handed out.
    pub packets: usize,
    /// Verdicts that the kernel refused: their packet was gone.
    pub refused: usize,
    /// Datagrams that were longer than a packet can be, or none that this crate reads.
    pub unknown: usize,
    /// Whether packets were lost because the socket's buffer was full; the kernel counts how many.
    pub overrun: bool,
    /// Whether more may be there at once.
    pub more: bool,
}

/// A queue of the network namespace in which it was opened; it stays bound to it wherever it is used.
///
/// Packets that wait when it is dropped are dropped as well. The namespace lives at least as long as the queue: who
/// serves the namespace of a unit closes the queue when the unit ends, or its interfaces stay.
pub struct Queue {
    socket: Socket,
    verdicts: Verdicts,
    /// Datagrams that came before the queue was ready.
    early: Vec<Vec<u8>>,
}

impl Queue {
    /// Binds a queue of the calling thread's network namespace.
    ///
    /// Packets may have come before it returns without leaving the socket readable: the first
    /// [`receive`](Self::receive) does not wait for that.
    ///
    /// # Errors
    /// [`QueueError::Taken`] if another program holds it, [`QueueError::Open`] without the privilege to or without
    /// queues in the kernel, each with the step that failed.
    pub fn open(config: QueueConfig, buffers: &mut Buffers) -> Result<Self, QueueError> {
        let (socket, early) = Opening::run(config, buffers)?;
        Ok(Self { socket, verdicts: Verdicts::new(config.number), early })
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.verdicts.queue()
    }

    /// Hands out what is there, without waiting, and with it the place for its verdict: the socket is readable when
    /// something is.
    ///
    /// A packet may be decided later as well, by [`decide`](Self::decide); its bytes are lent for the call only.
    ///
    /// # Errors
    /// [`QueueError::Receive`] if the socket fails.
    pub fn receive(
        &mut self,
        buffers: &mut Buffers,
        mut take: impl FnMut(Packet<'_>, &mut Verdicts),
    ) -> Result<Received, QueueError> {
        let mut received = Received::default();
        let mut take = |packet: Packet<'_>| take(packet, &mut self.verdicts);
        for datagram in std::mem::take(&mut self.early) {
            received.read(&datagram, &mut take);
        }
        match buffers.receive(self.socket.as_fd()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(received),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Received { overrun: true, more: true, ..received });
            }
            Err(source) => return Err(QueueError::Receive { queue: self.number(), source }),
        }
        for datagram in buffers.datagrams() {
            match datagram {
                Some(datagram) => received.read(datagram, &mut take),
                None => received.unknown += 1,
            }
        }
        received.more = buffers.is_full();
        Ok(received)
    }

    /// Adds a verdict to those that the next [`flush`](Self::flush) tells; see [`Verdicts::decide`].
    #[must_use]
    pub fn decide(&mut self, id: u32, action: Action, mark: Option<u32>, bytes: Option<&[u8]>) -> bool {
        self.verdicts.decide(id, action, mark, bytes)
    }

    /// Tells the kernel the verdicts and forgets them. A packet that is gone by then makes a
    /// [`Received::refused`] of the next call.
    ///
    /// # Errors
    /// [`QueueError::Send`] if the kernel did not take them: those that it has not seen are kept.
    pub fn flush(&mut self) -> Result<(), QueueError> {
        while let Some(datagram) = self.verdicts.first() {
            self.socket
                .send(datagram, 0)
                .map_err(|source| QueueError::Send { queue: self.number(), source })?;
            self.verdicts.forget_first();
        }
        Ok(())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Refused, it is given up with the socket.
        drop(unbind(&self.socket, self.number()));
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Received {
    fn read(&mut self, datagram: &[u8], take: &mut impl FnMut(Packet<'_>)) {
        for found in parse_datagram(datagram) {
            match found {
                Incoming::Packet(packet) => {
                    self.packets += 1;
                    take(packet);
                }
                Incoming::Refused(_) => self.refused += 1,
                Incoming::Unknown => self.unknown += 1,
            }
        }
    }
}
