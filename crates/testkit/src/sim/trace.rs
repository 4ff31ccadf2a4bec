//! What happened, in order: a running hash always, readable lines on request.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::packets::{ACK, FIN, PSH, RST, SYN, Sum, TcpView, tcp_sum};

/// Whether readable lines are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Only the hash.
    Hash,
    /// The hash and one line per event.
    Lines,
}

/// The record of one run.
#[derive(Debug)]
pub struct Trace {
    detail: Detail,
    hasher: DefaultHasher,
    events: u64,
    lines: Vec<String>,
}

impl Trace {
    /// An empty record.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self { detail, hasher: DefaultHasher::new(), events: 0, lines: Vec::new() }
    }

    /// Records something that happened to a packet at `place`.
    pub fn packet(&mut self, now: u64, place: &str, what: &str, packet: &[u8]) {
        self.events += 1;
        let hasher = &mut self.hasher;
        (now, place, what, packet.len()).hash(hasher);
        if let Some(view) = TcpView::parse(packet) {
            (view.src, view.dst, view.seq, view.ack, view.flags, view.tap_kind()).hash(hasher);
        }
        if self.detail == Detail::Lines {
            self.lines.push(format!("{} {place:<8} {what:<24} {}", seconds(now), describe(packet)));
        }
    }

    /// Records something else.
    pub fn event(&mut self, now: u64, place: &str, what: &str) {
        self.events += 1;
        (now, place, what).hash(&mut self.hasher);
        if self.detail == Detail::Lines {
            self.lines.push(format!("{} {place:<8} {what}", seconds(now)));
        }
    }

    /// Whether lines are kept, so that costly ones are built only then.
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.detail == Detail::Lines
    }

    /// Two runs with the same hash went the same way.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// Events recorded.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The readable lines.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

fn seconds(nanos: u64) -> String {
    format!("{:>5}.{:06}", nanos / 1_000_000_000, nanos % 1_000_000_000 / 1000)
}

/// One line like tcpdump's, with what TAP adds.
#[must_use]
pub fn describe(packet: &[u8]) -> String {
    let Some(view) = TcpView::parse(packet) else { return format!("not TCP, {} B", packet.len()) };
    let mut flags = String::new();
    for (bit, name) in [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, '.')] {
        if view.has(bit) {
            flags.push(name);
        }
    }
    let mut line = format!(
        "{} > {} [{flags}] seq {} ack {} len {}",
        view.src,
        view.dst,
        view.seq,
        view.ack,
        view.payload.len()
    );
    if let Some(kind) = view.tap_kind() {
        let name = match kind {
            1 => "SYN",
            2 => "SYN-ACK",
            3 => "ACK",
            4 => "refusal",
            5 => "request",
            _ => "unknown",
        };
        let lengths: Vec<u16> =
            [76, 78].iter().map(|at| u16::from_be_bytes([view.payload[*at], view.payload[at + 1]])).collect();
        let flags = view.payload[5];
        // Writing to a string cannot fail.
        let _infallible = write!(line, " TAP {name} flags {flags:02x} {}+{} B", lengths[0], lengths[1]);
    }
    match tcp_sum(packet) {
        Some(Sum::Partial) => line.push_str(" (partial sum)"),
        Some(Sum::Invalid) => line.push_str(" (BAD SUM)"),
        Some(Sum::Valid) | None => {}
    }
    line
}
