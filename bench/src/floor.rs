//! The least that netfilter queues cost: the data path's rules, and programs that admit everybody without a look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trireme_netfilter::{BackEnd, MarkField, OtherProtocols, RuleSet, Unanswered, apply};
use trireme_nfqueue::{Action, Buffers, Packet, Queue, QueueConfig};
use trireme_testkit::lab::Pu;

/// How long a thread waits until it looks whether it is to end.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Threads that admit whatever is queued in the namespaces of workloads.
pub(crate) struct Open {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Open {
    /// Writes the rules and starts a thread for each workload.
    pub(crate) fn start(workloads: &[&Pu]) -> anyhow::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut open = Self { over: Arc::clone(&over), threads: Vec::new() };
        for pu in workloads {
            let (queue, buffers) = pu.namespace.enter(begin)??;
            let over = Arc::clone(&over);
            open.threads.push(std::thread::spawn(move || serve(queue, buffers, &over)));
        }
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("a queue was not served to the end: {error:#}"),
                Err(_) => eprintln!("a queue's thread panicked"),
            }
        }
    }
}

fn rules() -> RuleSet {
    RuleSet {
        queue: 0,
        field: MarkField::UPPER_HALF,
        released: 1,
        unanswered: Unanswered::Drop,
        other_protocols: OtherProtocols::Deny,
        tap_magic: trireme_wire::tap::MAGIC,
    }
}

fn begin() -> anyhow::Result<(Queue, Buffers)> {
    let mut buffers = Buffers::new();
    let config = QueueConfig { number: 0, length: 4096, receive_buffer: 4 << 20 };
    let queue = Queue::open(config, &mut buffers)?;
    apply(BackEnd::detect()?, &rules())?;
    Ok((queue, buffers))
}

fn serve(mut queue: Queue, mut buffers: Buffers, over: &AtomicBool) -> anyhow::Result<()> {
    let released = Some(rules().released_mark());
    while !over.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(&queue, PollFlags::IN)], Some(&PAUSE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for packets"),
        }
        queue.receive(&mut buffers, |packet, verdicts| {
            let mark = if is_syn(&packet) { None } else { released };
            let told = verdicts.decide(packet.id, Action::Accept, mark, None);
            debug_assert!(told, "a verdict without bytes is short");
        })?;
        queue.flush()?;
    }
    Ok(())
}

/// TCP with SYN, of IPv4 without options or IPv6 without extension headers.
fn is_syn(packet: &Packet<'_>) -> bool {
    let header = if packet.bytes.first().is_some_and(|first| first >> 4 == 4) { 20 } else { 40 };
    packet.bytes.get(header + 13).is_some_and(|flags| flags & 2 != 0)
}
