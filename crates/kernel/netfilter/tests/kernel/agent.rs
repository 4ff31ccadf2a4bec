//! An agent that accepts everything with one mark and remembers what it saw.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use trireme_netfilter::{MarkField, RuleSet};
use trireme_netns::Namespace;
use trireme_nfqueue::{Action, Buffers, Queue, QueueConfig};

use crate::packets::Seen;

/// How long a packet may take to be queued.
const SETTLED: Duration = Duration::from_millis(150);

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    value: AtomicU32,
    stop: AtomicBool,
}

/// Reads the queue of a namespace until it is dropped.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn start(unit: &Namespace, set: &RuleSet) -> Self {
        let shared = Arc::new(Shared::default());
        let (ours, field) = (Arc::clone(&shared), set.field);
        let config = QueueConfig { number: set.queue, length: 1024, receive_buffer: 1 << 20 };
        let mut buffers = Buffers::new();
        let queue = unit.run(|| Queue::open(config, &mut buffers).unwrap()).unwrap();
        let thread = std::thread::spawn(move || ours.serve(queue, buffers, field));
        Self { shared, thread: Some(thread) }
    }

    /// Sets the value of the field that every verdict has from now on; 0 leaves marks alone.
    pub(crate) fn answer(&self, value: u32) {
        self.shared.value.store(value, Ordering::SeqCst);
    }

    /// What was queued since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::thread::sleep(SETTLED);
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Shared {
    fn serve(&self, mut queue: Queue, mut buffers: Buffers, field: MarkField) {
        while !self.stop.load(Ordering::SeqCst) {
            let value = self.value.load(Ordering::SeqCst);
            let received = queue.receive(&mut buffers, |packet, verdicts| {
                self.seen.lock().unwrap().push(Seen::read(packet.hook, packet.mark, packet.bytes));
                let mark = (value != 0).then(|| packet.mark & !field.mask() | field.place(value));
                assert!(verdicts.decide(packet.id, Action::Accept, mark, None));
            });
            assert_eq!(received.unwrap().refused, 0);
            queue.flush().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
