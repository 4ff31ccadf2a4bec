//! How a socket is bound to a queue: requests, each with its answer.

use std::io;
use std::os::fd::AsFd as _;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use crate::codec::{ACKNOWLEDGE, CONFIG, ERROR, Writer, error_number, messages};
use crate::{Buffers, QueueConfig, QueueError, statistics};

const COMMAND: u16 = 1;
const PARAMETERS: u16 = 2;
const LENGTH: u16 = 3;
const MASK: u16 = 4;
const FLAGS: u16 = 5;

const BIND: u8 = 1;
const UNBIND: u8 = 2;
const COPY_PACKET: u8 = 2;

const FAIL_OPEN: u32 = 1;
/// Packets of several segments come as one.
const LARGE: u32 = 4;

/// A socket on its way to its queue.
pub(crate) struct Opening<'a> {
    queue: u16,
    socket: Socket,
    buffers: &'a mut Buffers,
    /// Datagrams that came before the answer to the last step.
    early: Vec<Vec<u8>>,
}

impl<'a> Opening<'a> {
    /// The whole way: the socket, and datagrams that it has brought already.
    pub(crate) fn run(
        config: QueueConfig,
        buffers: &'a mut Buffers,
    ) -> Result<(Socket, Vec<Vec<u8>>), QueueError> {
        let mut opening = Self { queue: config.number, socket: socket(config)?, buffers, early: Vec::new() };
        opening.ask(1, "bind", &[(COMMAND, &[BIND, 0, 0, 0])])?;
        opening.ask(
            2,
            "set its length and flags",
            &[
                (LENGTH, &config.length.to_be_bytes()),
                (MASK, &(FAIL_OPEN | LARGE).to_be_bytes()),
                (FLAGS, &LARGE.to_be_bytes()),
            ],
        )?;
        // The last step: packets come from here on.
        opening.ask(3, "ask for whole packets", &[(PARAMETERS, &[0, 0, 0xff, 0xff, COPY_PACKET])])?;
        Ok((opening.socket, opening.early))
    }

    /// One request, and its answer.
    fn ask(
        &mut self,
        sequence: u32,
        step: &'static str,
        attributes: &[(u16, &[u8])],
    ) -> Result<(), QueueError> {
        let queue = self.queue;
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
            self.buffers.receive(self.socket.as_fd()).map_err(failed)?;
            let mut answer = None;
            for datagram in self.buffers.datagrams().flatten() {
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

/// Gives the queue up. Closing the socket does so with its last copy only, and a program that was just being started has
/// one until it is.
pub(crate) fn unbind(socket: &Socket, queue: u16) -> io::Result<()> {
    let mut request = Vec::new();
    let mut writer = Writer::begin(&mut request, CONFIG, 0, 0, queue);
    let written = writer.attribute(COMMAND, &[UNBIND, 0, 0, 0]);
    debug_assert!(written, "a command is short");
    writer.end();
    socket.send(&request, 0).map(drop)
}

fn socket(config: QueueConfig) -> Result<Socket, QueueError> {
    let failed = |step| move |source| QueueError::Open { queue: config.number, step, source };
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open a netlink socket"))?;
    socket.bind_auto().map_err(failed("name the socket"))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect to the kernel"))?;
    // A refusal does not repeat its verdict, which may hold a packet: many of them fit into the buffer.
    socket.set_cap_ack(true).map_err(failed("keep its refusals short"))?;
    set_socket_recv_buffer_size_force(&socket, config.receive_buffer)
        // Without the privilege, within the limit of the system.
        .or_else(|_| set_socket_recv_buffer_size(&socket, config.receive_buffer))
        .map_err(|error| failed("size the socket's buffer")(error.into()))?;
    Ok(socket)
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
