//! Deleting entries of the kernel's connection tracking by tuple, and clearing their marks, over ctnetlink.
//!
//! Start from [`Conntrack`] (a netlink socket into the namespace of the calling thread) and [`Tuple`] (the
//! addresses and ports of a connection's first packet).
//!
//! This crate must not show the table to anybody, and of a mark it changes nothing but the bits that it is told.

mod marks;

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple as Attribute,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

pub use marks::Marks;

/// Addresses and ports of a TCP connection, as its first packet carried them where it was tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The end that opened the connection.
    pub source: SocketAddr,
    /// The other end, before any translation.
    pub destination: SocketAddr,
}

/// What became of a request to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forgotten {
    /// There was an entry, and it is gone.
    Removed,
    /// There was none.
    Absent,
}

/// A netlink socket into one namespace's connection tracking.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl Conntrack {
    /// Connects to the namespace of the calling thread.
    ///
    /// # Errors
    /// [`ConntrackError::Connect`] if the kernel refuses the socket.
    pub fn connect() -> Result<Self, ConntrackError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(ConntrackError::Connect)?;
        socket.bind_auto().map_err(ConntrackError::Connect)?;
        socket.connect(&NetlinkAddr::new(0, 0)).map_err(ConntrackError::Connect)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Deletes the entry of a connection; either direction's tuple names it.
    ///
    /// # Errors
    /// [`ConntrackError::Families`] if the ends are of different families, [`ConntrackError::Refused`] without
    /// the privilege to, or without connection tracking in the kernel.
    pub fn forget(&mut self, tuple: &Tuple) -> Result<Forgotten, ConntrackError> {
        let family = match (tuple.source.ip(), tuple.destination.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => NetfilterProtoFamily::IPv4,
            (IpAddr::V6(_), IpAddr::V6(_)) => NetfilterProtoFamily::IPv6,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(ConntrackError::Families(*tuple));
            }
        };
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode(tuple, family, self.sequence);
        let refused = |source| ConntrackError::Refused { tuple: *tuple, source };
        self.socket.send(&request, 0).map_err(refused)?;
        match self.acknowledgement().map_err(refused)? {
            Ok(()) => Ok(Forgotten::Removed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Forgotten::Absent),
            Err(error) => Err(refused(error)),
        }
    }

    /// Deletes every entry of the namespace, with its marks and translations: for namespaces of one unit only, whose
    /// live connections are picked up again with their next segments.
    ///
    /// # Errors
    /// [`ConntrackError::AllRefused`] without the privilege to, or without connection tracking in the kernel.
    pub fn forget_all(&mut self) -> Result<(), ConntrackError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = deletion(NetfilterProtoFamily::Unspec, self.sequence, Vec::new());
        self.socket.send(&request, 0).map_err(ConntrackError::AllRefused)?;
        self.acknowledgement().and_then(|answer| answer).map_err(ConntrackError::AllRefused)
    }

    /// Waits for the answer to the last request: the outer error is ours, the inner one the kernel's.
    fn acknowledgement(&self) -> io::Result<io::Result<()>> {
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let message =
                NetlinkMessage::<NetfilterMessage>::deserialize(&answer).map_err(io::Error::other)?;
            if message.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = message.payload {
                return Ok(error.code.map_or(Ok(()), |_| Err(error.to_io())));
            }
        }
    }
}

/// Why an entry could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// No netlink socket.
    #[error("cannot open a netlink socket for connection tracking")]
    Connect(#[source] io::Error),
    /// The ends cannot belong to one connection.
    #[error("{} and {} are of different address families", .0.source, .0.destination)]
    Families(Tuple),
    /// The kernel refused to forget all.
    #[error("cannot delete the tracked connections of a network namespace")]
    AllRefused(#[source] io::Error),
    /// The kernel refused to list connections or to change their marks.
    #[error("cannot clear marks of the tracked connections of a network namespace")]
    Marks(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot delete the tracked connection {} to {}", tuple.source, tuple.destination)]
    Refused {
        /// The connection.
        tuple: Tuple,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn encode(tuple: &Tuple, family: NetfilterProtoFamily, sequence: u32) -> Vec<u8> {
    let ends = Attribute::Ip(vec![
        IPTuple::SourceAddress(tuple.source.ip()),
        IPTuple::DestinationAddress(tuple.destination.ip()),
    ]);
    let ports = Attribute::Proto(vec![
        ProtoTuple::Protocol(Protocol::Tcp),
        ProtoTuple::SourcePort(tuple.source.port()),
        ProtoTuple::DestinationPort(tuple.destination.port()),
    ]);
    deletion(family, sequence, vec![ConntrackAttribute::CtaTupleOrig(vec![ends, ports])])
}

fn deletion(family: NetfilterProtoFamily, sequence: u32, attributes: Vec<ConntrackAttribute>) -> Vec<u8> {
    message(family, (NLM_F_REQUEST | NLM_F_ACK, sequence), ConntrackMessage::Delete(attributes))
}

fn message(family: NetfilterProtoFamily, (flags, sequence): (u16, u32), body: ConntrackMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), body);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
