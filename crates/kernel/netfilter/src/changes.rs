//! Being told that somebody changed rules.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;

/// The multicast group of changes of nftables (linux/netfilter/nfnetlink.h).
const NFTABLES: u32 = 7;

/// Datagrams read before it is left to the next call.
const AT_ONCE: usize = 1024;

/// Readable when rules of nftables or `iptables-nft` changed in the network namespace in which it was opened, whoever
/// changed them. Legacy tables tell nobody.
#[derive(Debug)]
pub struct Changes {
    socket: Socket,
}

impl Changes {
    /// Listens in the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.add_membership(NFTABLES)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Forgets what was told; true if anything was.
    pub fn forget(&self) -> bool {
        let mut any = false;
        for _ in 0..AT_ONCE {
            match self.socket.recv(&mut &mut [0_u8; 64][..], 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // More was told than there was room for.
                Err(_) => any = true,
            }
        }
        any
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
