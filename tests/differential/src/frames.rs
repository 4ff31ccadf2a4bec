//! Segments as stacks send them.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_wire::build::{TcpSpec, tcp};
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::tuple::Endpoint;

pub(crate) const PSH_ACK: Flags = Flags(0x18);
pub(crate) const FIN_ACK: Flags = Flags(0x11);
pub(crate) const RST_ACK: Flags = Flags(0x14);

/// Options that stacks put on SYNs: segment size, window scale, selective acknowledgements, time stamps.
const STACKS: [&[u8]; 4] = [
    &[],
    &[2, 4, 5, 180],
    &[2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 1, 1],
    &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0, 1, 3, 3, 7],
];

/// One connection: the two ends as the initiator names them, and their first sequence numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialog {
    pub(crate) initiator: Endpoint,
    pub(crate) responder: Endpoint,
    pub(crate) isn: u32,
    pub(crate) answer: u32,
    pub(crate) options: &'static [u8],
    pub(crate) hop_limit: u8,
}

impl Dialog {
    pub(crate) fn new(rng: &mut StdRng, initiator: Endpoint, responder: Endpoint) -> Self {
        Self {
            initiator,
            responder,
            isn: near_wrap(rng),
            // The programs take zero for "none", which sends one repeated SYN-ACK in 2^32 to the engine.
            answer: near_wrap(rng).max(1),
            options: STACKS[rng.random_range(0..STACKS.len())],
            hop_limit: if rng.random_bool(0.5) { 64 } else { rng.random_range(1..=255) },
        }
    }

    fn build(&self, from_initiator: bool, seq: u32, ack: u32, flags: Flags, rest: (&[u8], &[u8])) -> Vec<u8> {
        let (src, dst) =
            if from_initiator { (self.initiator, self.responder) } else { (self.responder, self.initiator) };
        let (options, payload) = rest;
        let (hop_limit, window) = (self.hop_limit, 64_240);
        tcp(&TcpSpec { options, payload, hop_limit, window, ..TcpSpec::new(src, dst, seq, ack, flags) })
            .unwrap()
    }

    pub(crate) fn syn(&self) -> Vec<u8> {
        self.build(true, self.isn, 0, Flags::SYN, (self.options, &[]))
    }

    pub(crate) fn syn_ack(&self) -> Vec<u8> {
        let ack = self.isn.wrapping_add(1);
        self.build(false, self.answer, ack, Flags::SYN_ACK, (self.options, &[]))
    }

    /// A segment of the initiator's, `sent` and `got` bytes behind the handshake.
    pub(crate) fn ahead(&self, sent: u32, got: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let seq = self.isn.wrapping_add(1).wrapping_add(sent);
        let ack = self.answer.wrapping_add(1).wrapping_add(got);
        self.build(true, seq, ack, flags, (&[], payload))
    }

    /// A segment of the responder's.
    pub(crate) fn back(&self, sent: u32, got: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let seq = self.answer.wrapping_add(1).wrapping_add(sent);
        let ack = self.isn.wrapping_add(1).wrapping_add(got);
        self.build(false, seq, ack, flags, (&[], payload))
    }
}

/// Sequence numbers wrap often here.
fn near_wrap(rng: &mut StdRng) -> u32 {
    if rng.random_bool(0.2) { 0_u32.wrapping_sub(rng.random_range(0..3)) } else { rng.random() }
}

/// The payload of a TCP packet; empty if it is none.
pub(crate) fn payload(bytes: &[u8]) -> &[u8] {
    Segment::parse(bytes).map_or(&[], |segment| segment.payload(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
