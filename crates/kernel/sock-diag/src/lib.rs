//! Listing the live TCP connections of a network namespace, over sock_diag.
//!
//! Start from [`tcp_connections`].
//!
//! This crate must not change a socket, and must not say whose it is.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};

/// A TCP connection as its own socket sees it; IPv4 addresses are IPv4 even on a socket of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpConnection {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// Returns the connections of the calling thread's namespace that have finished their handshake and are not over,
/// those inside the namespace left out.
///
/// # Errors
/// [`SockDiagError::Connect`] if the kernel refuses the socket, [`SockDiagError::Refused`] without TCP diagnostics
/// in the kernel (`CONFIG_INET_DIAG`).
pub fn tcp_connections() -> Result<Vec<TcpConnection>, SockDiagError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(SockDiagError::Connect)?;
    socket.bind_auto().map_err(SockDiagError::Connect)?;
    socket.connect(&NetlinkAddr::new(0, 0)).map_err(SockDiagError::Connect)?;
    let mut found = Vec::new();
    for (sequence, family) in [(1, AF_INET), (2, AF_INET6)] {
        socket.send(&request(family, sequence), 0).map_err(SockDiagError::Refused)?;
        while read(&socket, sequence, &mut found).map_err(SockDiagError::Refused)? == Dump::GoesOn {}
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Why connections could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// No netlink socket.
    #[error("cannot open a netlink socket for TCP diagnostics")]
    Connect(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot list TCP connections")]
    Refused(#[source] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    GoesOn,
    Over,
}

fn request(family: u8, sequence: u32) -> Vec<u8> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let extensions = ExtensionFlags::empty();
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads one datagram of an answer, which holds several messages.
fn read(socket: &Socket, sequence: u32, found: &mut Vec<TcpConnection>) -> io::Result<Dump> {
    let (datagram, _) = socket.recv_from_full()?;
    let mut rest = datagram.as_slice();
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
        // Messages stand at multiples of four bytes.
        let length = usize::try_from(message.header.length).map_err(io::Error::other)?.next_multiple_of(4);
        rest = rest.get(length.max(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        if let NetlinkPayload::Done(_) = message.payload {
            return Ok(Dump::Over);
        } else if let NetlinkPayload::Error(error) = message.payload {
            return Err(error.to_io());
        } else if let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) = message.payload
        {
            found.extend(connection(&response.header.socket_id));
        }
    }
    Ok(Dump::GoesOn)
}

/// None for a connection of the namespace with itself.
fn connection(id: &SocketId) -> Option<TcpConnection> {
    let local = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
    let remote = SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
    (!local.ip().is_loopback() && !remote.ip().is_loopback()).then_some(TcpConnection { local, remote })
}
