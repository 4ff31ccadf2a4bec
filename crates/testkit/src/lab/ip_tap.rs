//! Raw IP packets: what passes a namespace, and what is sent from it as is.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LabError, Namespace, uninterrupted};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Larger than any merged segment.
const BUFFER_LEN: usize = 128 * 1024;

/// Reads a copy of every IP packet that arrives at a namespace, from the IP header on.
///
/// Packets the namespace itself sends are not seen, so a forwarded packet is seen once.
#[derive(Debug)]
pub struct IpTap {
    sockets: [Socket; 2],
    buffer: Vec<u8>,
}

impl IpTap {
    /// Starts listening.
    ///
    /// # Errors
    /// [`LabError`] if the namespace cannot be entered or packet sockets are not allowed.
    pub fn open(namespace: &Namespace) -> Result<Self, LabError> {
        let open = |kind: u16| -> io::Result<Socket> {
            let socket =
                Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(kind.to_be()))))?;
            socket.set_recv_buffer_size(8 << 20)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sockets = namespace
            .enter(|| Ok([open(ETH_P_IP)?, open(ETH_P_IPV6)?]))?
            .map_err(LabError::io("opening packet sockets"))?;
        Ok(Self { sockets, buffer: vec![0; BUFFER_LEN] })
    }

    /// The next packet, if one comes in time.
    ///
    /// # Errors
    /// [`LabError::Io`] if reading fails.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + limit;
        loop {
            for socket in &self.sockets {
                match uninterrupted(|| (&*socket).read(&mut self.buffer)) {
                    Ok(len) => return Ok(self.buffer.get(..len).map(<[u8]>::to_vec)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(source) => return Err(LabError::io("reading a packet")(source)),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(left)?;
        }
    }

    /// The first packet for which `wanted` holds, if one comes in time.
    ///
    /// # Errors
    /// [`LabError::Io`] if reading fails.
    pub fn find(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + limit;
        while let Some(packet) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            if wanted(&packet) {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }

    fn wait(&self, limit: Duration) -> Result<(), LabError> {
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let [v4, v6] = &self.sockets;
        let mut fds = [
            PollFd::from_borrowed_fd(v4.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(v6.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(LabError::io("waiting for packets")(errno.into())),
        }
    }
}

/// Sends whole IP packets from a namespace, with any source address; its routes find the way.
#[derive(Debug)]
pub struct RawSender {
    v4: Socket,
    v6: Socket,
}

impl RawSender {
    /// Opens the sockets.
    ///
    /// # Errors
    /// [`LabError`] if the namespace cannot be entered or raw sockets are not allowed.
    pub fn open(namespace: &Namespace) -> Result<Self, LabError> {
        const RAW: i32 = 255;
        let open = || -> io::Result<Self> {
            let v4 = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
            v4.set_header_included_v4(true)?;
            let v6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(RAW)))?;
            v6.set_header_included_v6(true)?;
            Ok(Self { v4, v6 })
        };
        namespace.enter(open)?.map_err(LabError::io("opening raw sockets"))
    }

    /// Sends one packet as it stands.
    ///
    /// # Errors
    /// [`LabError`] if it is no IP packet or there is no way to its destination.
    pub fn send(&self, packet: &[u8]) -> Result<(), LabError> {
        let Some(destination) = destination(packet) else {
            return Err(LabError::Output { what: "an IP packet".into(), output: format!("{packet:02x?}") });
        };
        let socket = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        socket
            .send_to(packet, &SocketAddr::new(destination, 0).into())
            .map(drop)
            .map_err(LabError::io(format!("sending a raw packet to {destination}")))
    }
}

/// The destination address of an IP packet.
pub(super) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(IpAddr::from),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(IpAddr::from),
        _ => None,
    }
}
