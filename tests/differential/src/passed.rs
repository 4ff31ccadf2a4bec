//! A packet that the program passed: the engine must pass it with the same bytes.

use trireme_datapath::HalfOpenEntry;
use trireme_flow::{ConnectionEntry, Reason};
use trireme_token::TokenId;
use trireme_wire::tap::{self, Header};

use crate::compare::{Case, Hook, agree, is_excused, table_key};
use crate::frames::payload;
use crate::nodes::Reply;
use crate::season::Season;

impl Season<'_> {
    pub(crate) fn check_passed(&mut self, case: &mut Case<'_>, out: &[u8]) {
        self.show_answer(case, out);
        let reply = self.judge(case);
        let Some(expected) = &reply.passed else { return self.check_refused(case, out, &reply) };
        let expected = self.with_our_nonce(case, expected, out);
        if let Some(why) = self.about_tokens(case, &expected, out) {
            self.tally.except(why);
            self.follow_pass(case, out, &reply);
        } else if agree(&case.bytes, out, &expected) {
            self.follow_pass(case, out, &reply);
        } else {
            self.diverge(case, "both pass it, with other bytes", out, &reply);
        }
    }

    /// Which of our two tokens a new SYN shows while we have new keys.
    fn about_tokens(&self, case: &Case<'_>, expected: &[u8], out: &[u8]) -> Option<&'static str> {
        let shown = Header::parse(payload(out)).ok()?;
        let wanted = Header::parse(payload(expected)).ok()?;
        let new = case.hook == Hook::FromPu && case.half_open.is_none();
        if !new || !case.segment.as_ref()?.flags.is_syn() {
            return None;
        }
        let ours = [TokenId(shown.token_id), TokenId(wanted.token_id)];
        match self.book.own[..] {
            // The engine goes back to the older token once a node has left the newest unanswered; the programs do so with
            // every first repetition, for they remember no nodes there.
            [newest, older] if ours == [newest, older] && !shown.has_mac() && !wanted.has_mac() => {
                Some("service: the programs show the newest token first")
            }
            // The programs have begun a renewal once they have asked for it, whatever became of the packet.
            [newest, older] if ours == [older, newest] && self.renewing => {
                Some("renewal: asked for with a packet that was refused")
            }
            _ => None,
        }
    }

    fn check_refused(&mut self, case: &Case<'_>, out: &[u8], reply: &Reply) {
        match reply.refused {
            Some(reason) if is_excused(case, out, reason) => {
                self.tally.except("live: only the engine reads headers closely");
                self.heard(case);
            }
            // Neighbour and listener discovery.
            Some(Reason::ProtocolDenied) if case.segment.is_none() && out == case.bytes => {
                self.tally.except("not TCP");
            }
            _ => self.diverge(case, "the program passes, the engine does not", out, reply),
        }
    }

    /// The engine is given the nonce that the program's SYN-ACK shows, so that it has to make the very same bytes. And
    /// the token of a repeated SYN: which one is in use is not handed over, and a service whose agent is away may know
    /// the older one alone.
    fn show_answer(&mut self, case: &mut Case<'_>, out: &[u8]) {
        let (Some(key), Some(segment)) = (case.key, &case.segment) else { return };
        if case.hook == Hook::FromPu && segment.flags.is_syn_ack() {
            self.mirror.flow(key).shown(segment.ack.wrapping_sub(1), out);
            case.half_open = self.handed(case);
        }
        if let (Some(HalfOpenEntry::Opening { own, .. }), Ok(header)) =
            (&mut case.half_open, Header::parse(payload(out)))
            && case.hook == Hook::FromPu
            && segment.flags.is_syn()
            && self.book.own.contains(&TokenId(header.token_id))
        {
            own.token = TokenId(header.token_id);
        }
    }

    /// For a new SYN, what the engine would have sent with the program's nonce.
    fn with_our_nonce(&self, case: &Case<'_>, expected: &[u8], out: &[u8]) -> Vec<u8> {
        let mut expected = expected.to_vec();
        let (Some(key), Some(segment), Ok(header)) = (case.key, &case.segment, Header::parse(payload(out)))
        else {
            return expected;
        };
        if case.hook == Hook::FromPu && segment.flags.is_syn() && case.half_open.is_none() {
            let at = expected.len() - payload(&expected).len();
            let mac = if header.has_mac() {
                self.book.mac_of_syn(&header, key.remote).unwrap_or_default()
            } else {
                [0; 16]
            };
            if expected.len() >= at + tap::HEADER_LEN {
                expected[at + 24..at + 40].copy_from_slice(&header.nonce);
                expected[at + 40..at + 56].copy_from_slice(&mac);
            }
        }
        expected
    }

    /// What the program has done to its tables by this.
    fn follow_pass(&mut self, case: &Case<'_>, out: &[u8], reply: &Reply) {
        // What the engine takes for another protocol may be a segment to the programs.
        let (Some(key), Some(segment)) = (case.key, &case.segment) else { return self.heard(case) };
        let (epoch, flags) = (self.state.epoch, segment.flags);
        let answered = segment.ack.wrapping_sub(1);
        match case.hook {
            Hook::FromPu if flags.is_syn() => {
                self.mirror.flow(key).opened(epoch, segment, &case.bytes, out);
            }
            Hook::ToPu if flags.is_syn() => {
                let header = Header::parse(payload(&case.bytes));
                let holds = header.is_ok_and(|header| self.book.holds(&header));
                let own = self.book.own[0];
                self.mirror.flow(key).called(epoch, segment, &case.bytes, (own, holds));
            }
            Hook::FromPu if flags.is_syn_ack() => {
                let flow = self.mirror.flow(key);
                flow.closing = None;
                flow.answered(answered, segment.seq);
            }
            Hook::ToPu if flags.is_syn_ack() => {
                self.mirror.flow(key).accepted(answered, &case.bytes);
                self.check_entry(case, reply);
            }
            Hook::ToPu if case.connection.is_none() => {
                self.mirror.flow(key).forget_answering(segment.seq.wrapping_sub(1));
                self.check_entry(case, reply);
            }
            Hook::ToPu | Hook::FromPu => self.heard(case),
        }
    }

    /// A segment of a live connection passed; the first one from the responder ends its handshake.
    fn heard(&mut self, case: &Case<'_>) {
        if let Some(key) = case.key
            && case.hook == Hook::ToPu
        {
            self.mirror.flow(key).forget_opening();
        }
        self.follow_live(case);
    }

    /// A connection that left the table is in the one that forgets.
    pub(crate) fn follow_live(&mut self, case: &Case<'_>) {
        let (Some(key), Some(_)) = (case.key, case.connection) else { return };
        let live = self.bed.connection(&table_key(&key));
        self.mirror.flow(key).closing = if live.is_some() { None } else { case.connection };
    }

    /// The entry that the program made is the one that the engine would have made.
    fn check_entry(&mut self, case: &Case<'_>, reply: &Reply) {
        let Some(key) = case.key else { return };
        let made = self.bed.connection(&table_key(&key));
        if case.connection.is_some() && made == case.connection {
            return;
        }
        let wanted = reply.writes.iter().rev().find(|(written, _)| *written == key);
        let wanted = wanted.and_then(|(_, entry)| *entry);
        if made.as_ref().map(comparable) != wanted.as_ref().map(comparable) {
            let why = format!("entries differ: program {made:?}, engine {wanted:?}");
            self.diverge(case, &why, &[], reply);
        }
    }
}

/// The engine keeps the number of a SYN-ACK elsewhere.
const fn comparable(entry: &ConnectionEntry) -> ConnectionEntry {
    ConnectionEntry { syn_ack: 0, ..*entry }
}
