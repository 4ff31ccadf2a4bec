//! Damaged packets.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_token::{TokenId, mac};
use trireme_wire::tap::HEADER_LEN;
use trireme_wire::tcp::Segment;
use trireme_wire::{checksum, edit};

use crate::book::Seal;
use crate::frames::payload;
use crate::headers;
use crate::season::Season;

/// A packet, and what was done to it.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    pub(crate) bytes: Vec<u8>,
    pub(crate) gso: u16,
    pub(crate) what: &'static str,
}

/// What happens to a packet.
#[derive(Clone, Copy)]
enum Change {
    In(fn(&mut [u8], &mut StdRng)),
    /// Its length may change.
    Of(fn(&mut Vec<u8>, &mut StdRng)),
}

use Change::{In, Of};

/// What may happen to a packet on its way or at a forger's; checksums are put right behind most of them.
const CHANGES: [(&str, Change); 21] = [
    ("bits flipped", In(flip_bits)),
    ("bits of the payload flipped", In(flip_payload)),
    ("bits of the payload flipped", In(flip_payload)),
    ("TAP header field set", In(set_tap_field)),
    ("control bits", In(headers::control_bits)),
    ("PSH, URG or ECN", In(headers::other_bits)),
    ("sequence number", In(headers::sequence)),
    ("acknowledgement", In(headers::acknowledgement)),
    ("ports", In(headers::ports)),
    ("TCP option", Of(headers::tcp_option)),
    ("TCP option", Of(headers::tcp_option)),
    ("TCP header length", In(headers::tcp_length)),
    ("urgent pointer or window", In(headers::window)),
    ("IP options or extension", Of(headers::ip_option)),
    ("fragment", Of(headers::fragment)),
    ("hop limit, class, identification", In(headers::hops)),
    ("IP length", In(headers::ip_length)),
    ("trailing bytes", Of(trailing)),
    ("payload shorter", Of(shorten)),
    ("payload longer", Of(lengthen)),
    ("other address", In(headers::addresses)),
];

impl Season<'_> {
    /// A damaged copy.
    pub(crate) fn mutate(&mut self, packet: &[u8], seal: Option<&Seal>) -> Mutant {
        let mut bytes = packet.to_vec();
        match self.rng.random_range(0..30) {
            0..3 if seal.is_some() => {
                reseal(&mut bytes, seal, &mut self.rng);
                return Mutant { bytes, gso: 0, what: "TAP field set, MAC made anew" };
            }
            3 => {
                headers::break_sums(&mut bytes, &mut self.rng);
                return Mutant { bytes, gso: 0, what: "checksums broken" };
            }
            4 => {
                let gso = self.rng.random_range(1..1400);
                return Mutant { bytes, gso, what: "to be segmented" };
            }
            5..7 => {
                self.borrow_payload(&mut bytes);
                return Mutant { bytes, gso: 0, what: "payload of another packet" };
            }
            _ => {}
        }
        let (what, change) = CHANGES[self.rng.random_range(0..CHANGES.len())];
        match change {
            In(change) => change(&mut bytes, &mut self.rng),
            Of(change) => change(&mut bytes, &mut self.rng),
        }
        if self.rng.random_bool(0.85) {
            let _unreadable: Result<(), _> = checksum::complete(&mut bytes);
        }
        Mutant { bytes, gso: 0, what }
    }

    fn borrow_payload(&mut self, bytes: &mut Vec<u8>) {
        let Some(last) = self.history.len().checked_sub(1) else { return };
        let index = self.rng.random_range(0..=last);
        let other = payload(&self.history[index].1).to_vec();
        let _impossible: Result<(), _> = edit::replace_payload(bytes, &other);
    }
}

fn flip_bits(bytes: &mut [u8], rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
}

fn flip_payload(bytes: &mut [u8], rng: &mut StdRng) {
    let len = payload(bytes).len();
    if len == 0 {
        return flip_bits(bytes, rng);
    }
    let start = bytes.len() - len;
    // Most of a message is the token; what matters more is in front of it.
    let end = if rng.random_bool(0.7) { len.min(HEADER_LEN) } else { len };
    bytes[start + rng.random_range(0..end)] ^= 1 << rng.random_range(0..8);
}

/// Fields with meaning: kind, flags, length, family, protocol, port, address, padding, lengths.
const FIELDS: [usize; 22] = [3, 4, 4, 5, 5, 6, 7, 8, 24, 40, 56, 57, 58, 59, 60, 64, 72, 75, 76, 77, 78, 79];

fn set_tap_field(bytes: &mut [u8], rng: &mut StdRng) {
    let len = payload(bytes).len();
    if len < HEADER_LEN {
        return flip_bits(bytes, rng);
    }
    let start = bytes.len() - len;
    let small = [0, 1, 2, 3, 4, 5, 6, 17, 255];
    let value = if rng.random_bool(0.7) { small[rng.random_range(0..small.len())] } else { rng.random() };
    bytes[start + FIELDS[rng.random_range(0..FIELDS.len())]] = value;
}

/// A message that says something else, with a MAC that is right for it.
fn reseal(bytes: &mut [u8], seal: Option<&Seal>, rng: &mut StdRng) {
    let (Some(Seal { key, to }), Ok(segment)) = (seal, Segment::parse(bytes)) else { return };
    if payload(bytes).len() < HEADER_LEN {
        return;
    }
    set_tap_field(bytes, rng);
    let start = segment.payload.start;
    let message = &bytes[start..start + HEADER_LEN];
    let (front, back) = (message[..40].try_into().unwrap(), message[56..].try_into().unwrap());
    let token: TokenId = to.token;
    let sealed = mac(key, front, back, &token, &to.nonce);
    bytes[start + 40..start + 56].copy_from_slice(&sealed);
    let _unreadable: Result<(), _> = checksum::complete(bytes);
}

fn trailing(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let len = bytes.len() + rng.random_range(1..30);
    bytes.resize(len, rng.random());
}

fn shorten(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let len = payload(bytes).len();
    let kept = if len == 0 { 0 } else { rng.random_range(0..len) };
    let _unreadable: Result<(), _> = edit::strip_payload(bytes, kept);
}

fn lengthen(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let more = vec![rng.random(); rng.random_range(1..100)];
    let _unreadable: Result<(), _> = edit::append_payload(bytes, &more);
}
