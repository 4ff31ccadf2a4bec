//! The router's forwarding done by a closure of the test, packet by packet.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ip_tap::destination;
use super::{IpTap, Lab, LabError, Namespace, RawSender};

/// What becomes of a packet on the way between the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It is lost.
    Drop,
    /// These go on in its place, in this order.
    Replace(Vec<Vec<u8>>),
}

/// Forwards in place of the kernel until dropped.
#[derive(Debug)]
pub struct Relay {
    router: Namespace,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Takes over the forwarding between the nodes; `judge` sees every IP packet from its header on.
    ///
    /// Offloads between nodes and router are turned off for good, so that packets are whole.
    ///
    /// # Errors
    /// [`LabError`] if the router's sockets cannot be opened.
    pub fn start(lab: &Lab, mut judge: impl FnMut(&[u8]) -> Fate + Send + 'static) -> Result<Self, LabError> {
        lab.without_offloads()?;
        let router = lab.router().clone();
        let mut tap = IpTap::open(&router)?;
        let sender = RawSender::open(&router)?;
        router.nft("table inet lab_relay { chain forward { type filter hook forward priority 10; policy drop; }; }\n")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A packet that cannot be read or sent is a packet lost on the way.
                let Ok(Some(packet)) = tap.next(Duration::from_millis(20)) else { continue };
                if !is_forwarded(&packet) {
                    continue;
                }
                match judge(&packet) {
                    Fate::Pass => drop(sender.send(&packet)),
                    Fate::Drop => {}
                    Fate::Replace(packets) => packets.iter().for_each(|packet| drop(sender.send(packet))),
                }
            }
        });
        Ok(Self { router, stop, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(self.router.nft("delete table inet lab_relay\n"));
    }
}

/// Whether a router forwards this packet: neither its own nor of the link.
fn is_forwarded(packet: &[u8]) -> bool {
    match destination(packet) {
        Some(IpAddr::V4(address)) => {
            let [first, second, ..] = address.octets();
            !address.is_multicast() && !address.is_broadcast() && (first, second) != (10, 200)
        }
        Some(IpAddr::V6(address)) => {
            let [first, second, ..] = address.segments();
            first == 0xfd00 && second != 0x200
        }
        None => false,
    }
}
