//! The applications on the hosts: small protocols that exercise every order of talking and closing.

use smoltcp::socket::tcp::{RecvError, Socket, State};

use super::stream::{Checker, Opening, Stream, Way};

/// Who talks first and how the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Request, then answer; the client closes.
    ClientFirst,
    /// Request, then answer; the server closes.
    ClientFirstServerCloses,
    /// Banner, then request; the client closes.
    ServerFirst,
    /// Both send at once and close when they have sent.
    Both,
    /// The client sends and closes its half; the server answers after the end of file.
    HalfClose,
    /// The client connects, sends what it has and closes at once.
    ConnectAndClose,
    /// Request, then answer; the client resets.
    ClientAborts,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 7] = [
        Self::ClientFirst,
        Self::ClientFirstServerCloses,
        Self::ServerFirst,
        Self::Both,
        Self::HalfClose,
        Self::ConnectAndClose,
        Self::ClientAborts,
    ];
}

/// What both ends of a connection agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialogue {
    /// Order of talking.
    pub protocol: Protocol,
    /// Bytes from client to server.
    pub to_server: usize,
    /// Bytes from server to client.
    pub to_client: usize,
    /// First bytes of both streams.
    pub opening: Opening,
}

/// One end of a connection, as its application sees it.
#[derive(Clone, Debug)]
pub struct App {
    dialogue: Dialogue,
    stream: Stream,
    checker: Checker,
    expected: usize,
    sent: usize,
    sending_closed: bool,
    progress: Progress,
}

/// What has happened on a connection so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The stack reported the connection as established at some time.
    pub established: bool,
    /// The peer's end of file arrived.
    pub eof: bool,
    /// The connection ended without an end of file.
    pub reset: bool,
    /// The peer has acknowledged everything, the end of file included.
    pub flushed: bool,
}

impl App {
    /// The client's or the server's end, sending as `id`.
    #[must_use]
    pub const fn new(dialogue: Dialogue, sends: Way, id: u32) -> Self {
        let (len, expected, arrives) = match sends {
            Way::ToServer => (dialogue.to_server, dialogue.to_client, Way::ToClient),
            Way::ToClient => (dialogue.to_client, dialogue.to_server, Way::ToServer),
        };
        Self {
            dialogue,
            stream: Stream { id, way: sends, opening: dialogue.opening, len },
            checker: Checker::new(arrives, dialogue.opening),
            expected,
            sent: 0,
            sending_closed: false,
            progress: Progress { established: false, eof: false, reset: false, flushed: false },
        }
    }

    /// Reads, writes and closes as far as the socket allows.
    pub fn step(&mut self, socket: &mut Socket<'_>) {
        if !is_established(socket.state()) {
            let is_over = self.progress.established && socket.state() == State::Closed;
            self.progress.reset |= is_over && !self.progress.eof;
            self.progress.flushed |= is_over && self.progress.eof && self.sending_closed;
            return;
        }
        self.progress.established = true;
        self.progress.flushed |= matches!(socket.state(), State::FinWait2 | State::TimeWait);
        self.read(socket);
        self.write(socket);
        if self.sent == self.stream.len && !self.sending_closed && self.may_close(socket) {
            self.sending_closed = true;
            if self.aborts() {
                socket.abort();
            } else {
                socket.close();
            }
        }
    }

    /// What has happened so far.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        self.progress
    }

    /// The arriving stream's checker.
    #[must_use]
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Id of the stream this end sends.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.stream.id
    }

    /// Whether every expected byte arrived, all were the right ones, and everything was sent and ended as agreed.
    ///
    /// Whether what was sent arrived is for the other end to say.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let ended = self.progress.eof || self.dialogue.protocol == Protocol::ClientAborts;
        self.has_talked() && self.checker.first_wrong().is_none() && ended
    }

    /// Whether nothing of this connection is left to be sent again, so that its port may be used anew.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.progress.flushed || (self.dialogue.protocol == Protocol::ClientAborts && self.sending_closed)
    }

    /// Whether the stack may forget the connection if the peer stays silent.
    #[must_use]
    pub fn is_spent(&self, socket: &Socket<'_>) -> bool {
        self.has_talked() && (self.sending_closed || socket.send_queue() == 0)
    }

    fn has_talked(&self) -> bool {
        self.progress.established && self.received_all() && self.sent == self.stream.len
    }

    fn read(&mut self, socket: &mut Socket<'_>) {
        loop {
            match socket.recv(|bytes| (bytes.len(), bytes.to_vec())) {
                Ok(bytes) if bytes.is_empty() => return,
                Ok(bytes) => self.checker.push(&bytes),
                Err(RecvError::Finished) => {
                    self.progress.eof = true;
                    return;
                }
                Err(RecvError::InvalidState) => return,
            }
        }
    }

    fn write(&mut self, socket: &mut Socket<'_>) {
        while self.may_talk() && self.sent < self.stream.len && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let Ok(written) = socket.send_slice(&self.stream.bytes(self.sent, room)) else { return };
            if written == 0 {
                return;
            }
            self.sent += written;
        }
    }

    fn received_all(&self) -> bool {
        self.checker.received() == self.expected
    }

    fn may_talk(&self) -> bool {
        let first = match (self.stream.way, self.dialogue.protocol) {
            (_, Protocol::Both) | (Way::ToClient, Protocol::ServerFirst) => true,
            (Way::ToServer, Protocol::ServerFirst) => self.received_all(),
            (Way::ToServer, _) => true,
            (Way::ToClient, Protocol::HalfClose | Protocol::ConnectAndClose) => self.progress.eof,
            (
                Way::ToClient,
                Protocol::ClientFirst | Protocol::ClientFirstServerCloses | Protocol::ClientAborts,
            ) => self.received_all(),
        };
        first || self.progress.eof
    }

    fn may_close(&self, socket: &Socket<'_>) -> bool {
        match (self.stream.way, self.dialogue.protocol) {
            (_, Protocol::Both) => true,
            (Way::ToServer, Protocol::ClientFirst | Protocol::ServerFirst) => self.received_all(),
            (Way::ToServer, Protocol::ClientFirstServerCloses) => self.progress.eof,
            (Way::ToServer, Protocol::HalfClose | Protocol::ConnectAndClose) => true,
            (Way::ToServer, Protocol::ClientAborts) => self.received_all() && socket.send_queue() == 0,
            (Way::ToClient, Protocol::ClientFirstServerCloses) => self.received_all(),
            (Way::ToClient, _) => self.progress.eof,
        }
    }

    fn aborts(&self) -> bool {
        self.dialogue.protocol == Protocol::ClientAborts && self.stream.way == Way::ToServer
    }
}

/// Whether the three-way handshake is over, as far as this end knows.
#[must_use]
pub const fn is_established(state: State) -> bool {
    match state {
        State::Closed | State::Listen | State::SynSent | State::SynReceived => false,
        State::Established
        | State::FinWait1
        | State::FinWait2
        | State::CloseWait
        | State::Closing
        | State::LastAck
        | State::TimeWait => true,
    }
}
