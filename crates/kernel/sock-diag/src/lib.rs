//! Listing the TCP sockets of a network namespace, over sock_diag.
//!
//! Start from [`tcp_connections`]; [`tcp_connections_of`] and [`tcp_listeners_of`] are about the sockets of some cgroups.
//!
//! This crate must not change a socket.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
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
    connections(|_| true)
}

/// As [`tcp_connections`], of sockets that were made by processes of these cgroups (version 2, by number).
///
/// # Errors
/// As there.
pub fn tcp_connections_of(cgroups: &HashSet<u64>) -> Result<Vec<TcpConnection>, SockDiagError> {
    connections(|response| is_of(response, cgroups))
}

/// Returns where sockets of these cgroups listen in the calling thread's namespace; an unspecified address is any.
///
/// # Errors
/// As [`tcp_connections`].
pub fn tcp_listeners_of(cgroups: &HashSet<u64>) -> Result<Vec<SocketAddr>, SockDiagError> {
    sockets(StateFlags::LISTEN, |response| is_of(response, cgroups).then(|| local(response)))
}

/// Returns the local ends of connections whose sockets are not whole, for they are not established yet or over.
///
/// # Errors
/// As [`tcp_connections`].
pub fn tcp_remains() -> Result<Vec<SocketAddr>, SockDiagError> {
    sockets(StateFlags::TIME_WAIT | StateFlags::SYN_RECV, |response| Some(local(response)))
}

fn connections(is_wanted: impl Fn(&InetResponse) -> bool) -> Result<Vec<TcpConnection>, SockDiagError> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
    sockets(states, |response| is_wanted(response).then(|| connection(&response.header.socket_id)).flatten())
}

/// What is found about sockets in these states.
fn sockets<T: Ord>(
    states: StateFlags,
    found: impl Fn(&InetResponse) -> Option<T>,
) -> Result<Vec<T>, SockDiagError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(SockDiagError::Connect)?;
    socket.bind_auto().map_err(SockDiagError::Connect)?;
    socket.connect(&NetlinkAddr::new(0, 0)).map_err(SockDiagError::Connect)?;
    let mut all = Vec::new();
    for (sequence, family) in [(1, AF_INET), (2, AF_INET6)] {
        socket.send(&request(family, states.clone(), sequence), 0).map_err(SockDiagError::Refused)?;
        while read(&socket, sequence, &mut |response| all.extend(found(response)))
            .map_err(SockDiagError::Refused)?
            == Dump::GoesOn
        {}
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Whether a socket was made in one of these cgroups.
fn is_of(response: &InetResponse, cgroups: &HashSet<u64>) -> bool {
    response.nlas.iter().filter_map(cgroup).any(|cgroup| cgroups.contains(&cgroup))
}

fn cgroup(attribute: &Nla) -> Option<u64> {
    let Nla::Other(other) = attribute else { return None };
    let mut value = [0; 8];
    if other.kind() != CGROUP_ID || other.value_len() != value.len() {
        return None;
    }
    other.emit_value(&mut value);
    Some(u64::from_ne_bytes(value))
}

/// The attribute with the number of a socket's cgroup (linux/inet_diag.h, `INET_DIAG_CGROUP_ID`).
const CGROUP_ID: u16 = 21;

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

fn request(family: u8, states: StateFlags, sequence: u32) -> Vec<u8> {
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
fn read(socket: &Socket, sequence: u32, found: &mut impl FnMut(&InetResponse)) -> io::Result<Dump> {
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
            found(&response);
        }
    }
    Ok(Dump::GoesOn)
}

/// None for a connection of the namespace with itself.
fn connection(id: &SocketId) -> Option<TcpConnection> {
    let local = source(id);
    let remote = SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
    (!local.ip().is_loopback() && !remote.ip().is_loopback()).then_some(TcpConnection { local, remote })
}

fn local(response: &InetResponse) -> SocketAddr {
    source(&response.header.socket_id)
}

fn source(id: &SocketId) -> SocketAddr {
    SocketAddr::new(id.source_address.to_canonical(), id.source_port)
}
