//! A unit whose packets are queued: the way into its namespace and back out.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::os::fd::{AsFd, BorrowedFd};

use trireme_datapath::Toward;
use trireme_netfilter::{BackEnd, HostField, InForce, MarkField};
use trireme_netns::Namespace;
use trireme_nfqueue::{Action, Buffers, Hook, Packet, Queue, RawError, RawSender, Received};
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::Datagram;
use trireme_wire::ip;
use trireme_wire::tcp::Segment;

use super::place::Place;

/// Packets that may be on their way back to the queue.
const EXPECTED: usize = 256;

/// One namespace with its queue.
pub(super) struct Caught {
    pub(super) place: Place,
    pub(super) namespace: Namespace,
    pub(super) back_end: BackEnd,
    /// Those of its namespace. None where nothing is queued, for the unit is not enforced, and on the host, whose rules are
    /// for all its units.
    pub(super) rules: Option<InForce>,
    /// The value that releases connections; none where nothing is queued.
    pub(super) released: Option<u32>,
    pub(super) epoch: u32,
    pub(super) marks: Marks,
    queue: Queue,
    raw: RawSender,
    waiting: HashMap<u32, Waiting>,
    expected: VecDeque<u64>,
    hasher: RandomState,
}

/// The longest IP packet.
const LONGEST: usize = 65_535;

/// What the kernel's message about a packet may need of the room that the packet has in it.
const MESSAGE_HEADERS: usize = 16;

/// What is remembered of a packet until its verdict.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    mark: u32,
    digest: u64,
    /// Whether its last bytes did not fit into the kernel's message.
    cut: bool,
}

/// A packet taken from the queue.
pub(super) struct Taken {
    pub(super) id: u32,
    pub(super) hook: trireme_datapath::Hook,
    pub(super) bytes: Vec<u8>,
    pub(super) large: bool,
}

/// What a verdict does to the release of the packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Nothing.
    Keep,
    /// Its next segments are not queued.
    Give(u32),
    /// Its next segments are queued.
    TakeBack,
}

/// What verdicts write into the field of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// The field is about one unit.
    Namespace(MarkField),
    /// Its upper half says whose the packet is.
    Host(HostField, u32),
}

impl Marks {
    pub(super) fn mask(self) -> u32 {
        match self {
            Self::Namespace(field) => field.mask(),
            Self::Host(field, _) => field.whole().mask(),
        }
    }

    fn of(self, release: Release) -> u32 {
        match (self, release) {
            (Self::Namespace(_), Release::Keep) => 0,
            (Self::Namespace(field), Release::Give(value)) => field.place(value),
            (Self::Namespace(field), Release::TakeBack) => field.mask(),
            (Self::Host(field, unit), Release::Give(value)) => field.released(unit, value),
            // The rules know a SYN when they see one.
            (Self::Host(field, unit), Release::Keep | Release::TakeBack) => field.judged(unit),
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Sent,
    Lost,
}

impl Caught {
    pub(super) fn new(
        place: Place,
        namespace: Namespace,
        back_end: BackEnd,
        (queue, raw): (Queue, RawSender),
        marks: Marks,
    ) -> Self {
        Self {
            place,
            namespace,
            back_end,
            rules: None,
            released: None,
            epoch: 0,
            marks,
            queue,
            raw,
            waiting: HashMap::new(),
            expected: VecDeque::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes what waits. What this process has sent itself goes on at once.
    pub(super) fn take(
        &mut self,
        buffers: &mut Buffers,
        taken: &mut Vec<Taken>,
    ) -> Result<Received, trireme_nfqueue::QueueError> {
        let Self { queue, waiting, expected, hasher, marks, .. } = self;
        let mut dropped = 0;
        let mut received = queue.receive(buffers, |packet, verdicts| {
            let ours = expected.iter().position(|sent| *sent == digest(hasher, packet.bytes));
            if let Some(at) = ours.filter(|_| packet.hook == Hook::LocalOut) {
                expected.remove(at);
                let kept =
                    verdicts.decide(packet.id, Action::Accept, Some(packet.mark & !marks.mask()), None);
                debug_assert!(kept, "a verdict without bytes is short");
                return;
            }
            match kept(&packet) {
                Some(whole) => {
                    let digest = hasher.hash_one(&whole.bytes[..]);
                    let cut = packet.truncated_from.is_some();
                    waiting.insert(packet.id, Waiting { mark: packet.mark, digest, cut });
                    taken.push(whole);
                }
                None => {
                    dropped += 1;
                    drop_now(verdicts, packet.id);
                }
            }
        })?;
        received.unknown += dropped;
        Ok(received)
    }

    /// Lets a packet go on with the bytes it has now.
    pub(super) fn pass(&mut self, id: u32, mut bytes: Vec<u8>, release: Release) -> Put {
        let Some(Waiting { mark, digest, cut }) = self.waiting.remove(&id) else { return Put::Lost };
        let mark = Some(mark & !self.marks.mask() | self.marks.of(release));
        let changed = self.hasher.hash_one(&bytes[..]) != digest;
        if changed && cut {
            // Its end is not known here.
            self.refuse(id);
            return Put::Lost;
        }
        if changed {
            make_whole(&mut bytes);
        }
        if self.queue.decide(id, Action::Accept, mark, changed.then_some(&bytes)) {
            return Put::Sent;
        }
        self.refuse(id);
        Put::Lost
    }

    /// A packet does not go on.
    pub(super) fn refuse(&mut self, id: u32) {
        self.waiting.remove(&id);
        let told = self.queue.decide(id, Action::Drop, None, None);
        debug_assert!(told, "a verdict without bytes is short");
    }

    /// Puts a packet on its way that no queue holds, behind everything that was decided before.
    pub(super) fn emit(&mut self, toward: Toward, mut bytes: Vec<u8>) -> Result<(), EmitError> {
        make_whole(&mut bytes);
        self.flush()?;
        if toward == Toward::Network {
            if self.expected.len() == EXPECTED {
                self.expected.pop_front();
            }
            self.expected.push_back(digest(&self.hasher, &bytes));
        }
        Ok(self.raw.send(&bytes)?)
    }

    /// Whether packets of this process may be in the queue.
    pub(super) fn expects(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Nothing of what was sent comes any more: a rule of somebody else dropped it, or the unit's own.
    pub(super) fn expect_nothing(&mut self) {
        self.expected.clear();
    }

    pub(super) fn flush(&mut self) -> Result<(), trireme_nfqueue::QueueError> {
        self.queue.flush()
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Why a packet was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmitError {
    #[error(transparent)]
    Queue(#[from] trireme_nfqueue::QueueError),
    #[error(transparent)]
    Raw(#[from] RawError),
}

/// None for what cannot be judged: cut short, or caught where no rule of ours catches.
fn kept(packet: &Packet<'_>) -> Option<Taken> {
    let hook = match packet.hook {
        Hook::LocalOut => trireme_datapath::Hook::FromPu,
        Hook::LocalIn => trireme_datapath::Hook::ToPu,
        Hook::PreRouting | Hook::Forward | Hook::PostRouting => return None,
    };
    let mut bytes = packet.bytes.to_vec();
    if let Some(whole) = packet.truncated_from.and_then(|length| usize::try_from(length).ok()) {
        // The longest datagrams lack four bytes at their end, which nobody judges by.
        if whole > LONGEST || whole.saturating_sub(bytes.len()) > MESSAGE_HEADERS {
            return None;
        }
        bytes.resize(whole, 0);
    }
    Some(Taken { id: packet.id, hook, bytes, large: packet.segments_later })
}

fn drop_now(verdicts: &mut trireme_nfqueue::Verdicts, id: u32) {
    let told = verdicts.decide(id, Action::Drop, None, None);
    debug_assert!(told, "a verdict without bytes is short");
}

/// Nobody completes the checksum of a packet behind its verdict, or of one that was sent whole.
fn make_whole(bytes: &mut [u8]) {
    let completed = if let Ok(segment) = Segment::parse(bytes) {
        match checksum::verify(bytes, &segment) {
            Checksum::Partial => checksum::complete(bytes),
            Checksum::Valid | Checksum::Invalid => return,
        }
    } else {
        let Ok(datagram) = Datagram::parse(bytes) else { return };
        match checksum::verify_udp(bytes, &datagram) {
            Checksum::Partial => checksum::complete_udp(bytes),
            Checksum::Valid | Checksum::Invalid => return,
        }
    };
    debug_assert!(completed.is_ok(), "the bytes were parsed a moment ago");
}

/// Of what the kernel does not change in a packet that it is handed whole.
fn digest(hasher: &RandomState, bytes: &[u8]) -> u64 {
    match ip::Packet::parse(bytes) {
        Ok(ip) => hasher.hash_one((ip.src, ip.dst, bytes.get(ip.payload()))),
        Err(_) => hasher.hash_one(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_stay_within_the_field_and_say_on_the_host_whose_the_packet_is() {
        let field = MarkField::UPPER_HALF;
        let (namespace, host) = (Marks::Namespace(field), Marks::Host(HostField::new(field), 3));
        for (release, alone, shared) in [
            (Release::Keep, 0, 0x03ff_0000),
            (Release::TakeBack, 0xffff_0000, 0x03ff_0000),
            (Release::Give(7), 0x0007_0000, 0x0307_0000),
        ] {
            assert_eq!((namespace.of(release), host.of(release)), (alone, shared), "{release:?}");
        }
        assert_eq!((namespace.mask(), host.mask()), (0xffff_0000, 0xffff_0000));
    }
}
