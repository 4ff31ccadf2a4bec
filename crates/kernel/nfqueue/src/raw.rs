//! Whole IP packets, put on their way (raw(7), ipv6(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Sends whole IP packets in the network namespace in which it was opened, wherever it is used.
///
/// A packet to an address of the namespace itself arrives by `lo`, which must be up, whatever its source is: no check of
/// the way back (`rp_filter`) is made on it. A packet to elsewhere leaves by routing. Both pass the rules of the output
/// hooks like any packet of a local socket, and would be queued by a rule there; the mark keeps them from that.
///
/// Routes are chosen by destination and mark: a rule about the source does not see that of the header. A link-local
/// destination is not tied to an interface: it is looked for by the first such route.
///
/// What the kernel changes, in IPv4 alone: the header's checksum and total length always; the identification and the
/// source where they are 0 (an identification of 0 stays where fragments are forbidden). The checksum of what the
/// packet carries is the caller's in both families.
///
/// The namespace lives at least as long as this.
pub struct RawSender {
    four: Socket,
    /// None where the kernel has no IPv6.
    six: Option<Socket>,
}

impl RawSender {
    /// Opens the sockets in the calling thread's network namespace; every packet bears the mark, 0 is none.
    ///
    /// # Errors
    /// [`RawError::Open`] without the privilege to.
    pub fn open(mark: u32) -> Result<Self, RawError> {
        let four = socket(Domain::IPV4, mark).and_then(|socket| {
            socket.set_header_included_v4(true)?;
            Ok(socket)
        });
        let six = socket(Domain::IPV6, mark).and_then(|socket| {
            socket.set_header_included_v6(true)?;
            Ok(socket)
        });
        let six = match six {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            other => Some(other.map_err(RawError::Open)?),
        };
        Ok(Self { four: four.map_err(RawError::Open)?, six })
    }

    /// Sends a packet, from its IP header on, to the destination in that header, without waiting.
    ///
    /// # Errors
    /// [`RawError::Malformed`] for anything but one whole packet, [`RawError::Destination`] if it is not for one host,
    /// [`RawError::TooLong`] if it does not fit its way, [`RawError::Send`] with what else the kernel said: no route,
    /// a rule that dropped it (EPERM), [`io::ErrorKind::WouldBlock`] if the socket's buffer is full.
    pub fn send(&self, packet: &[u8]) -> Result<(), RawError> {
        let destination = destination(packet)?;
        if !is_one_host(destination) {
            return Err(RawError::Destination(destination));
        }
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EMSGSIZE) => RawError::TooLong { length: packet.len(), destination },
            // Only the routes know the broadcast addresses of networks.
            Some(libc::EACCES) => RawError::Destination(destination),
            _ => RawError::Send { destination, source },
        };
        let socket = match destination {
            IpAddr::V4(_) => Some(&self.four),
            IpAddr::V6(_) => self.six.as_ref(),
        };
        let socket = socket.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)))?;
        socket.send_to(packet, &SocketAddr::new(destination, 0).into()).map_err(failed)?;
        Ok(())
    }
}

fn socket(family: Domain, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(family, Type::RAW.nonblocking(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_mark(mark)?;
    // Nobody reads from it: as little as the system allows is kept of packets of this protocol's number.
    socket.set_recv_buffer_size(0)?;
    Ok(socket)
}

/// The destination of a packet that is whole by its own account.
fn destination(packet: &[u8]) -> Result<IpAddr, RawError> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => destination_v4(packet),
        Some(6) => destination_v6(packet),
        Some(_) => Err(RawError::Malformed("it is neither IPv4 nor IPv6")),
        None => Err(RawError::Malformed("it is empty")),
    }
}

fn destination_v4(packet: &[u8]) -> Result<IpAddr, RawError> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(RawError::Malformed("its header is cut short"))?;
    let [first, _, high, low, .., a, b, c, d] = *header;
    if !(20..=packet.len()).contains(&(usize::from(first & 15) * 4)) {
        return Err(RawError::Malformed("its header has a length that cannot be"));
    }
    if usize::from(u16::from_be_bytes([high, low])) != packet.len() {
        return Err(RawError::Malformed("its header gives another length"));
    }
    Ok(Ipv4Addr::new(a, b, c, d).into())
}

fn destination_v6(packet: &[u8]) -> Result<IpAddr, RawError> {
    let header: &[u8; 40] = packet.first_chunk().ok_or(RawError::Malformed("its header is cut short"))?;
    let [_, _, _, _, high, low, ..] = *header;
    if usize::from(u16::from_be_bytes([high, low])) != packet.len() - header.len() {
        return Err(RawError::Malformed("its header gives another length"));
    }
    let address: &[u8; 16] = header.last_chunk().ok_or(RawError::Malformed("its header is cut short"))?;
    Ok(Ipv6Addr::from(*address).into())
}

/// An unspecified address would be taken for this host.
fn is_one_host(destination: IpAddr) -> bool {
    !(destination.is_multicast()
        || destination.is_unspecified()
        || destination == IpAddr::V4(Ipv4Addr::BROADCAST))
}

/// Why a packet was not sent.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The kernel gave no socket.
    #[error("cannot open a raw socket: CAP_NET_RAW and CAP_NET_ADMIN are needed")]
    Open(#[source] io::Error),
    /// The bytes are not one whole packet.
    #[error("not an IP packet: {0}")]
    Malformed(&'static str),
    /// It is for no host, or for many, or a route prohibits it.
    #[error(
        "packets to {0} are refused: it is a broadcast, multicast or unspecified address, or prohibited by a route"
    )]
    Destination(IpAddr),
    /// It is longer than an interface or path on its way takes.
    #[error("a packet of {length} bytes is too long for the way to {destination}: cut it into segments")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// Where it was to go.
        destination: IpAddr,
    },
    /// The kernel did not take it.
    #[error("cannot send a packet to {destination}")]
    Send {
        /// Where it was to go.
        destination: IpAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn four() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet.extend([0; 4]);
        packet
    }

    fn six() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 4, 17, 64];
        packet.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0; 4]);
        packet
    }

    fn why(packet: &[u8]) -> String {
        destination(packet).unwrap_err().to_string()
    }

    #[test]
    fn the_destination_is_that_of_the_header() {
        assert_eq!(destination(&four()).unwrap(), IpAddr::from([192, 0, 2, 2]));
        assert_eq!(destination(&six()).unwrap(), "2001:db8::2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_is_not_one_whole_packet_is_refused_with_the_reason() {
        assert_eq!(why(&[]), "not an IP packet: it is empty");
        assert_eq!(why(&[0x50; 40]), "not an IP packet: it is neither IPv4 nor IPv6");
        for packet in [four(), six()] {
            for end in 1..packet.len() {
                assert!(matches!(destination(&packet[..end]), Err(RawError::Malformed(_))), "{end}");
            }
            let longer = [&packet[..], &[0]].concat();
            assert_eq!(why(&longer), "not an IP packet: its header gives another length");
        }
        for first in [0x44, 0x47] {
            let mut packet = four();
            packet[0] = first;
            assert_eq!(why(&packet), "not an IP packet: its header has a length that cannot be");
        }
    }

    #[test]
    fn addresses_of_many_and_of_nobody_are_told_from_those_of_one() {
        let is_one = |address: &str| is_one_host(address.parse().unwrap());
        for many in ["224.0.0.1", "239.1.2.3", "255.255.255.255", "0.0.0.0", "ff02::1", "ff0e::1", "::"] {
            assert!(!is_one(many), "{many}");
        }
        for one in ["192.0.2.1", "127.0.0.1", "::1", "fe80::1", "2001:db8::1"] {
            assert!(is_one(one), "{one}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            if let Ok(found) = destination(&bytes) {
                proptest::prop_assert_eq!(found.is_ipv4(), bytes[0] >> 4 == 4);
            }
        }
    }
}
