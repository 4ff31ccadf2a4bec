//! Waiting for the queues of many namespaces at once.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use trireme_flow::PuSlot;

use crate::datapath::supervisor::Waker;

/// The number under which the waker is waited for; no slot has it.
const WAKER: u64 = u64::MAX;

/// Queues noticed by one call.
const BATCH: usize = 64;

/// Queues that have something to read.
pub(super) struct Ready {
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    slots: BTreeSet<PuSlot>,
}

impl Ready {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(Self { epoll, wake: Arc::new(wake), slots: BTreeSet::new() })
    }

    pub(super) fn waker(&self) -> Waker {
        let wake = Arc::clone(&self.wake);
        Waker::new(move || {
            // A counter that is full has woken the thread already.
            rustix::io::write(&wake, &1_u64.to_ne_bytes()).unwrap_or_default();
        })
    }

    /// Packets may have come before the queue was waited for: it is looked at once in any case.
    pub(super) fn add(&mut self, slot: PuSlot, queue: impl AsFd) -> io::Result<()> {
        self.slots.insert(slot);
        Ok(epoll::add(&self.epoll, queue, EventData::new_u64(slot.0.into()), EventFlags::IN)?)
    }

    /// A queue that is not read to its end.
    pub(super) fn again(&mut self, slot: PuSlot) {
        self.slots.insert(slot);
    }

    pub(super) fn take(&mut self) -> BTreeSet<PuSlot> {
        std::mem::take(&mut self.slots)
    }

    pub(super) fn wait(&mut self, time: Duration) -> io::Result<()> {
        let time = if self.slots.is_empty() { time } else { Duration::ZERO };
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(BATCH);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match u32::try_from(event.data.u64()) {
                Ok(slot) => drop(self.slots.insert(PuSlot(slot))),
                Err(_) => {
                    // Somebody else may have emptied it.
                    rustix::io::read(&self.wake, &mut [0; 8]).unwrap_or_default();
                }
            }
        }
        Ok(())
    }
}
