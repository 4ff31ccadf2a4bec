//! A socket bound to one queue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use crate::codec::{ACKNOWLEDGE, CONFIG, ERROR, Writer, error_number, messages};
use crate::packet::{Incoming, incoming};
use crate::socket::Batch;
use crate::{Packet, Verdicts, statistics};

const COMMAND: u16 = 1;
const PARAMETERS: u16 = 2;
const LENGTH: u16 = 3;
const MASK: u16 = 4;
const FLAGS: u16 = 5;

const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

const FAIL_OPEN: u32 = 1;
/// Packets of several segments come as one.
const LARGE: u32 = 4;

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
/// Packets that wait when it is dropped are dropped as well.
pub struct Queue {
    socket: Socket,
    number: u16,
    batch: Batch,
    /// Datagrams that came before the queue was ready.
    early: Vec<Vec<u8>>,
}

impl Queue {
    /// Binds a queue of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`QueueError::Taken`] if another program holds it, [`QueueError::Open`] without the privilege to or without
    /// queues in the kernel, each with the step that failed.
    pub fn open(config: QueueConfig) -> Result<Self, QueueError> {
        let failed = |step| move |source| QueueError::Open { queue: config.number, step, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open a netlink socket"))?;
        socket.bind_auto().map_err(failed("name the socket"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect to the kernel"))?;
        set_socket_recv_buffer_size_force(&socket, config.receive_buffer)
            // Without the privilege, within the limit of the system.
            .or_else(|_| set_socket_recv_buffer_size(&socket, config.receive_buffer))
            .map_err(|error| failed("size the socket's buffer")(error.into()))?;
        let mut queue = Self { socket, number: config.number, batch: Batch::new(), early: Vec::new() };
        queue.ask(1, "bind", &[(COMMAND, &[BIND, 0, 0, 0])])?;
        queue.ask(
            2,
            "set its length and flags",
            &[
                (LENGTH, &config.length.to_be_bytes()),
                (MASK, &(FAIL_OPEN | LARGE).to_be_bytes()),
                (FLAGS, &LARGE.to_be_bytes()),
            ],
        )?;
        // The last step: packets come from here on.
        queue.ask(3, "ask for whole packets", &[(PARAMETERS, &[0, 0, 0xff, 0xff, COPY_PACKET])])?;
        Ok(queue)
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Hands out what is there, without waiting: the socket is readable when something is.
    ///
    /// # Errors
    /// [`QueueError::Receive`] if the socket fails.
    pub fn receive(&mut self, mut take: impl FnMut(Packet<'_>)) -> Result<Received, QueueError> {
        let mut received = Received::default();
        for datagram in self.early.drain(..) {
            received.read(&datagram, &mut take);
        }
        match self.batch.receive(self.socket.as_fd()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(received),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                return Ok(Received { overrun: true, more: true, ..received });
            }
            Err(source) => return Err(QueueError::Receive { queue: self.number, source }),
        }
        for datagram in self.batch.datagrams() {
            match datagram {
                Some(datagram) => received.read(datagram, &mut take),
                None => received.unknown += 1,
            }
        }
        received.more = self.batch.is_full();
        Ok(received)
    }

    /// Tells the kernel the verdicts and forgets them. A packet that is gone by then makes the next
    /// [`Received::refused`].
    ///
    /// # Errors
    /// [`QueueError::Send`] if the kernel did not take them: those that it has not seen are kept.
    pub fn send(&mut self, verdicts: &mut Verdicts) -> Result<(), QueueError> {
        while let Some(datagram) = verdicts.first() {
            self.socket
                .send(datagram, 0)
                .map_err(|source| QueueError::Send { queue: self.number, source })?;
            verdicts.forget_first();
        }
        Ok(())
    }

    /// One request, and its answer.
    fn ask(
        &mut self,
        sequence: u32,
        step: &'static str,
        attributes: &[(u16, &[u8])],
    ) -> Result<(), QueueError> {
        let queue = self.number;
        let failed = |source: io::Error| match source.raw_os_error() {
            // The kernel says the same to a program without the privilege.
            Some(libc::EPERM) if is_held(queue) => QueueError::Taken(queue),
            _ => QueueError::Open { queue, step, source },
        };
        let mut request = Vec::new();
        let mut writer = Writer::begin(&mut request, CONFIG, ACKNOWLEDGE, sequence, queue);
        let written = attributes.iter().all(|(kind, value)| writer.attribute(*kind, value));
        debug_assert!(written, "every value of a request is short");
        writer.end();
        self.socket.send(&request, 0).map_err(failed)?;
        loop {
            // The kernel has answered before it returned from the call above.
            self.batch.receive(self.socket.as_fd()).map_err(failed)?;
            let mut answer = None;
            for datagram in self.batch.datagrams().flatten() {
                match acknowledgement(datagram, sequence) {
                    Some(error) => answer = Some(error),
                    None => self.early.push(datagram.to_vec()),
                }
            }
            match answer {
                Some(0) => return Ok(()),
                Some(error) => return Err(failed(io::Error::from_raw_os_error(error))),
                None => {}
            }
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Received {
    fn read(&mut self, datagram: &[u8], take: &mut impl FnMut(Packet<'_>)) {
        for found in incoming(datagram) {
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

fn is_held(queue: u16) -> bool {
    statistics().is_ok_and(|queues| queues.iter().any(|held| held.queue == queue))
}

/// The error number of the answer to this request, if the datagram is that.
fn acknowledgement(datagram: &[u8], sequence: u32) -> Option<i32> {
    messages(datagram)
        .find(|message| message.kind == ERROR && message.sequence == sequence)
        .and_then(|message| error_number(message.body))
}

/// Why a queue does not work.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another program is bound to it.
    #[error("queue {0} is held by another program: stop it, or use another number")]
    Taken(u16),
    /// The kernel refused a step of binding.
    #[error("cannot open queue {queue}: the kernel refused to {step}")]
    Open {
        /// Its number.
        queue: u16,
        /// What was refused.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("cannot read from queue {queue}")]
    Receive {
        /// Its number.
        queue: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not take verdicts.
    #[error("cannot send verdicts to queue {queue}")]
    Send {
        /// Its number.
        queue: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
