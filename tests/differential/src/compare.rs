//! One packet through the program and through the engine.

use trireme::datapath::bpf::testing;
use trireme_bpf::PuntReason;
use trireme_datapath::{HalfOpenEntry, Packet};
use trireme_flow::{ConnectionEntry, FlowKey, Reason};
use trireme_identity::Protocol;
use trireme_wire::checksum;
use trireme_wire::ip;
use trireme_wire::tap::Header;
use trireme_wire::tcp::{Flags, Segment};

use crate::bed::{Outcome, Punted};
use crate::frames::{hex, payload};
use crate::mirror::is_proving;
use crate::nodes::Reply;
use crate::season::Season;
use crate::sums;
use crate::targets::US;

pub(crate) use trireme_datapath::Hook;

/// The packet under comparison and what the programs knew about it before.
pub(crate) struct Case<'a> {
    pub(crate) hook: Hook,
    /// As it was sent, link-layer padding cut off.
    pub(crate) bytes: Vec<u8>,
    pub(crate) gso: u16,
    pub(crate) key: Option<FlowKey>,
    pub(crate) segment: Option<Segment>,
    /// The control bits, wherever they can be read.
    pub(crate) flags: Flags,
    pub(crate) connection: Option<ConnectionEntry>,
    pub(crate) half_open: Option<HalfOpenEntry>,
    pub(crate) what: Option<&'a str>,
}

pub(crate) const fn hook_of(hook: Hook) -> trireme_bpf::Hook {
    match hook {
        Hook::FromPu => trireme_bpf::Hook::FromPu,
        Hook::ToPu => trireme_bpf::Hook::ToPu,
    }
}

pub(crate) fn table_key(key: &FlowKey) -> trireme_bpf::FlowKey {
    trireme_bpf::FlowKey { slot: crate::bed::PU, local: key.local, remote: key.remote }
}

impl Season<'_> {
    /// Sends a packet through the program, and asks the engine wherever the program has decided. `what`: how the packet
    /// was damaged.
    pub(crate) fn compare(
        &mut self,
        hook: Hook,
        bytes: &[u8],
        gso: u16,
        what: Option<&'static str>,
    ) -> Outcome {
        let mut case = self.case(hook, bytes, gso, what);
        let mut outcome = self.bed.send(hook_of(hook), gso, bytes);
        self.tally.count(hook_of(hook), kind(case.segment.as_ref(), &case.bytes), what, &outcome);
        self.log(&case, &outcome);
        if is_of_another_protocol(&outcome) {
            return outcome;
        }
        self.forget_what_the_ring_took(&mut case, &outcome);
        match &mut outcome {
            Outcome::Passed(out) => {
                trim(out);
                self.check_passed(&mut case, out);
            }
            Outcome::Dropped => self.check_dropped(&case),
            Outcome::Punted(punted) => self.follow_punt(&case, punted),
        }
        outcome
    }

    fn case<'a>(&mut self, hook: Hook, bytes: &[u8], gso: u16, what: Option<&'a str>) -> Case<'a> {
        let mut bytes = bytes.to_vec();
        trim(&mut bytes);
        let segment = Segment::parse(&bytes).ok();
        let read = loose_key(hook, &bytes);
        let key =
            segment.as_ref().map(|segment| flow_key(hook, segment)).or_else(|| read.map(|(key, _)| key));
        let flags = read.map_or(Flags(0), |(_, flags)| flags);
        let connection = key
            .and_then(|key| self.bed.connection(&table_key(&key)).or_else(|| self.mirror.flow(key).closing));
        let mut case = Case { hook, bytes, gso, key, segment, flags, connection, half_open: None, what };
        case.half_open = self.handed(&case);
        case
    }

    pub(crate) fn handed(&mut self, case: &Case<'_>) -> Option<HalfOpenEntry> {
        let (key, segment) = (case.key?, case.segment.as_ref()?);
        self.mirror.flow(key).handed(case.hook, segment, case.connection.as_ref())
    }

    fn log(&mut self, case: &Case<'_>, outcome: &Outcome) {
        let Some(key) = case.key else { return };
        let became = match outcome {
            Outcome::Passed(out) => format!("passed, {} bytes", out.len()),
            Outcome::Dropped => "dropped".to_owned(),
            Outcome::Punted(punted) => format!("punted, {:?}", punted.reason),
        };
        let numbers = case.segment.as_ref().map_or((0, 0), |segment| (segment.seq, segment.ack));
        let Case { hook, bytes, flags, what, .. } = case;
        let live = case.connection.is_some();
        let line =
            format!("{hook:?} {flags} {numbers:?}, {} bytes, live {live}, {what:?}: {became}", bytes.len());
        self.mirror.flow(key).log.push(line);
    }

    /// An established connection whose place in the ring is wanted moves to the kernel's map, and the way it was opened is
    /// forgotten: its SYN begins anew.
    fn forget_what_the_ring_took(&mut self, case: &mut Case<'_>, outcome: &Outcome) {
        let (Some(key), true) = (case.key, case.half_open.as_ref().is_some_and(is_proving)) else { return };
        let is_begun = matches!(outcome, Outcome::Passed(_)) && case.flags == Flags::SYN;
        if is_begun && case.hook == Hook::FromPu {
            self.tally.except("ring: the opening of a live connection is forgotten");
            self.mirror.flow(key).forget_opening();
            case.half_open = None;
        }
    }

    fn check_dropped(&mut self, case: &Case<'_>) {
        let reply = self.judge(case);
        self.follow_live(case);
        if reply.refused.is_none() {
            self.diverge(case, "the program drops, the engine does not", &[], &reply);
        }
    }

    fn follow_punt(&mut self, case: &Case<'_>, punted: &Punted) {
        let handed = punted.half_open.as_ref().map(testing::half_open);
        if let (Some(handed), Some(key)) = (&handed, case.key) {
            // The nonce of ours that has not left yet is the one thing that no packet has told.
            if case.half_open.as_ref().is_some_and(|known| known != handed && !is_unshown(known)) {
                self.diverge(
                    case,
                    "what is handed over is not what the packets told",
                    &[],
                    &Reply::default(),
                );
            }
            self.mirror.flow(key).forget(handed);
        }
        if let Some(key) = case.key
            && case.hook == Hook::FromPu
            && case.flags.contains(Flags::SYN)
            && !matches!(punted.reason, PuntReason::Malformed | PuntReason::Fragment)
        {
            let flow = self.mirror.flow(key);
            flow.closing = None;
            if !case.flags.contains(Flags::ACK) {
                flow.forget_opening();
            }
        }
        self.ask(case, punted, handed);
    }

    /// Judges a packet on the state that comes with it; checksums are put right for it, see `sums`.
    pub(crate) fn judge(&mut self, case: &Case<'_>) -> Reply {
        let mut bytes = case.bytes.clone();
        let _unreadable: Result<(), _> = checksum::complete(&mut bytes);
        self.us.forget();
        let reply = self.us.handle(Packet {
            pu: US,
            hook: case.hook,
            bytes,
            gso_size: (case.gso != 0).then_some(case.gso),
            connection: case.connection,
            half_open: case.half_open.clone(),
            renewal: false,
            token: 0,
        });
        self.teach();
        reply
    }

    pub(crate) fn diverge(&mut self, case: &Case<'_>, why: &str, out: &[u8], reply: &Reply) {
        let Case { hook, bytes, gso, connection, half_open, what, .. } = case;
        let kind = format!("{why}: {hook:?} {}, {:?}", kind(case.segment.as_ref(), bytes), reply.refused);
        let account = format!(
            "  gso {gso} mutation {what:?}\n  packet  {}\n  program {}\n  engine  {}\n  \
             connection {connection:?}\n  handshake {half_open:?}",
            hex(bytes),
            hex(out),
            reply.passed.as_deref().map_or_else(|| "-".to_owned(), hex),
        );
        let log = case.key.map(|key| self.mirror.flow(key).log.join("\n    ")).unwrap_or_default();
        self.tally.diverge(kind, format!("{account}\n  so far\n    {log}"));
    }
}

/// Whether a live connection excuses that the program passes what the engine refuses for this reason: segments of live
/// connections are not read beyond what finds the connection.
pub(crate) fn is_excused(case: &Case<'_>, out: &[u8], reason: Reason) -> bool {
    case.connection.is_some()
        && out == case.bytes
        && !case.segment.as_ref().is_some_and(|segment| segment.flags.contains(Flags::SYN))
        && matches!(reason, Reason::Malformed | Reason::OddFlags | Reason::Truncated | Reason::ProtocolDenied)
}

/// What is no TCP the programs leave to the engine: there is nothing to compare.
const fn is_of_another_protocol(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Punted(punted) if matches!(punted.reason, PuntReason::Other))
}

const fn is_unshown(entry: &HalfOpenEntry) -> bool {
    matches!(entry, HalfOpenEntry::Answering { syn_ack: None, .. })
}

pub(crate) fn flow_key(hook: Hook, segment: &Segment) -> FlowKey {
    hook.flow(US, Protocol::TCP, segment.tuple())
}

/// Flow and control bits of a packet that the engine finds malformed, as the programs read it.
fn loose_key(hook: Hook, bytes: &[u8]) -> Option<(FlowKey, Flags)> {
    let (source, destination, at) = if bytes[0] >> 4 == 4 {
        let address = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(<[u8; 4]>::into);
        (address(12)?, address(16)?, usize::from(bytes[0] & 15) * 4)
    } else {
        let address = |at: usize| bytes.get(at..at + 16)?.try_into().ok().map(<[u8; 16]>::into);
        let extension = if bytes[6] == 6 { 0 } else { 8 + usize::from(*bytes.get(41)?) * 8 };
        (address(8)?, address(24)?, 40 + extension)
    };
    let port = |at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let (from, to) = ((source, port(at)?), (destination, port(at + 2)?));
    let (local, remote) = if hook == Hook::FromPu { (from, to) } else { (to, from) };
    Some((FlowKey::tcp(US, local, remote), Flags(*bytes.get(at + 13)?)))
}

/// Cuts what stands behind the packet; a packet beyond 64 KiB says that it is empty.
fn trim(bytes: &mut Vec<u8>) {
    let at = if bytes[0] >> 4 == 4 { 2 } else { 4 };
    if bytes[at..at + 2] != [0, 0] {
        let _unreadable: Result<usize, _> = ip::trim(bytes);
    }
}

/// A name for the table.
fn kind(segment: Option<&Segment>, bytes: &[u8]) -> &'static str {
    let Some(segment) = segment else { return "unreadable" };
    let flags = segment.flags;
    let proof = Header::parse(payload(bytes)).is_ok();
    match () {
        () if flags.is_syn_ack() => "SYN-ACK",
        () if flags.contains(Flags::SYN) => "SYN",
        () if flags.contains(Flags::RST) => "RST",
        () if flags.contains(Flags::FIN) => "FIN",
        () if proof => "proof",
        () if segment.payload_len() > 0 => "data",
        () => "ACK",
    }
}

/// Whether two packets are the same but for checksums, and `out` is exactly as intact as `sent`.
pub(crate) fn agree(sent: &[u8], out: &[u8], expected: &[u8]) -> bool {
    sums::without(out) == sums::without(expected) && sums::errors(out) == sums::errors(sent)
}
