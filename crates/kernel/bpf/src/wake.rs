//! Waking the thread that waits for packets.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Makes [`Plane::poll`](crate::Plane::poll) return, from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    fd: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Wakes the thread now, or the next time it waits.
    pub fn wake(&self) {
        // A counter that is full wakes just as well.
        let _full = rustix::io::write(&*self.fd, &1_u64.to_ne_bytes());
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn reset(&self) {
        // Nothing to read means nobody woke us.
        let _empty = rustix::io::read(&*self.fd, &mut [0_u8; 8]);
    }
}
