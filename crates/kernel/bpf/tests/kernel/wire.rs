//! Frames by hand: a packet socket on one interface, and TCP segments made to measure.

#![expect(unsafe_code, reason = "packet sockets have no safe form here")]

use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use trireme_netns::{Links, Namespace};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// One interface of a namespace, seen from outside its stack.
pub(crate) struct Wire {
    fd: OwnedFd,
    ifindex: i32,
    own: [u8; 6],
    pub(crate) next_hop: [u8; 6],
}

impl Wire {
    pub(crate) fn open(namespace: &Namespace, device: &str, next_hop: [u8; 6]) -> Self {
        let (fd, ifindex, own) = namespace
            .run(|| {
                let link = Links::connect().unwrap().by_name(device).unwrap();
                let protocol = i32::from(u16::to_be(0x0003));
                // SAFETY: socket takes integers only.
                let fd =
                    unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, protocol) };
                assert!(fd >= 0);
                // SAFETY: the descriptor is new and ours.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                (fd, i32::try_from(link.index).unwrap(), link.address.try_into().unwrap())
            })
            .unwrap();
        Self { fd, ifindex, own, next_hop }
    }

    /// Sends an IP packet to the next hop.
    pub(crate) fn send(&self, packet: &[u8]) {
        let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        self.send_frame(&[&self.next_hop[..], &self.own, &kind, packet].concat());
    }

    /// The same; false if the kernel drops it at once.
    pub(crate) fn try_send(&self, packet: &[u8]) -> bool {
        self.send_out(&[&self.next_hop[..], &self.own, &[8, 0], packet].concat())
    }

    /// Sends a frame that has everything but its hardware addresses.
    pub(crate) fn send_raw(&self, rest: &[u8]) {
        self.send_frame(&[&self.next_hop[..], &self.own, rest].concat());
    }

    fn send_frame(&self, frame: &[u8]) {
        assert!(self.send_out(frame), "{}", std::io::Error::last_os_error());
    }

    fn send_out(&self, frame: &[u8]) -> bool {
        // SAFETY: all zeros is a value of sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET.try_into().unwrap();
        to.sll_ifindex = self.ifindex;
        let size = u32::try_from(size_of_val(&to)).unwrap();
        // SAFETY: frame and address live through the call and are given with their sizes.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size,
            )
        };
        usize::try_from(sent) == Ok(frame.len())
    }

    /// Returns the next frame, from its type field on, that `wanted` accepts within two seconds.
    pub(crate) fn expect(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.wait(Duration::from_secs(2), wanted).expect("no such frame arrived")
    }

    /// Requires that no frame that `unwanted` accepts arrives for a while.
    pub(crate) fn expect_nothing(&self, unwanted: impl Fn(&[u8]) -> bool) {
        let frame = self.wait(Duration::from_millis(60), unwanted);
        assert_eq!(frame, None);
    }

    /// Returns the next frame that `wanted` accepts, if one arrives in time.
    pub(crate) fn within(&self, time: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        self.wait(time, wanted)
    }

    fn wait(&self, time: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + time;
        let mut buffer = vec![0_u8; 70_000];
        loop {
            // SAFETY: the buffer is writable for its whole length.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            match usize::try_from(got) {
                Ok(got) if got >= 14 && wanted(&buffer[12..got]) => return Some(buffer[12..got].to_vec()),
                Ok(_) => {}
                Err(_) if Instant::now() >= end => return None,
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }
}

/// A TCP segment between two made-up IPv4 ends.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) from: ([u8; 4], u16),
    pub(crate) to: ([u8; 4], u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut tcp = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([0x50, self.flags, 4, 0, 0, 0, 0, 0]);
        tcp.extend(&self.payload);
        let mut sum = 6 + u32::try_from(tcp.len()).unwrap();
        for word in [&self.from.0[..], &self.to.0, &tcp].concat().chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        }
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        ipv4(6, self.from.0, self.to.0, &tcp)
    }

    /// True if a frame (from its type field on) carries this segment.
    pub(crate) fn is(&self, frame: &[u8]) -> bool {
        let own = self.packet();
        let Some(packet) = frame.get(2..2 + own.len()) else { return false };
        // The hop count and its checksum change on the way.
        packet[12..] == own[12..] && packet[9] == 6
    }
}

/// An IPv4 packet.
pub(crate) fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(from);
    packet.extend(to);
    let sum: u32 = packet.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}
