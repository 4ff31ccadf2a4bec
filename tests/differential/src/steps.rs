//! First contacts between the engines, and the steps that handshakes through the programs share.

use std::net::IpAddr;

use rand::Rng;
use trireme_bpf::PuntReason;
use trireme_flow::FlowKey;
use trireme_wire::edit;
use trireme_wire::tcp::{Flags, Segment};
use trireme_wire::tuple::Endpoint;

use crate::bed::Outcome;
use crate::book::Seal;
use crate::compare::{Hook, flow_key};
use crate::frames::Dialog;
use crate::season::Season;
use crate::targets::{Caller, Target, US, callers, targets, us};

/// How far a handshake has been left alone: only then the programs owe it a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    Intact,
    Disturbed,
}

type End = (IpAddr, u16);

/// Earlier packets kept.
const HISTORY: usize = 400;

impl Season<'_> {
    /// Twice: the second time everybody knows everybody.
    pub(crate) fn meet_everybody(&mut self) {
        for _ in 0..2 {
            for target in targets() {
                self.meet_target(&target);
            }
            for caller in callers() {
                self.meet_caller(&caller);
            }
        }
    }

    fn meet_target(&mut self, target: &Target) -> Option<()> {
        let dialog = self.dialog_with(target);
        self.us.forget();
        let syn = self.us.handle_plain(US, Hook::FromPu, &dialog.syn()).passed;
        let wire = self.answer(target, &dialog, &syn?)?;
        let reached = self.us.handle_plain(US, Hook::ToPu, &wire).passed.is_some();
        self.teach();
        let ack =
            reached.then(|| self.us.handle_plain(US, Hook::FromPu, &dialog.ahead(0, 0, Flags::ACK, &[])));
        let proof = translated(&ack?.passed?, None, Some(target.own));
        self.them.handle_plain(target.slot, Hook::ToPu, &proof).passed.map(drop)
    }

    fn meet_caller(&mut self, caller: &Caller) -> Option<()> {
        let dialog = self.dialog_of(caller);
        self.us.forget();
        let wire = self.them.handle_plain(caller.slot, Hook::FromPu, &dialog.syn()).passed?;
        let called = self.us.handle_plain(US, Hook::ToPu, &wire).passed;
        self.teach();
        called?;
        let answer = self.us.handle_plain(US, Hook::FromPu, &dialog.syn_ack()).passed?;
        self.them.handle_plain(caller.slot, Hook::ToPu, &answer).passed?;
        let ack = dialog.ahead(0, 0, Flags::ACK, &[]);
        let proof = self.them.handle_plain(caller.slot, Hook::FromPu, &ack).passed?;
        self.us.handle_plain(US, Hook::ToPu, &proof);
        self.teach();
        Some(())
    }

    pub(crate) fn dialog_of(&mut self, caller: &Caller) -> Dialog {
        let port = self.fresh_port(|port| (caller.to.into(), (caller.from, port)));
        Dialog::new(&mut self.rng, Endpoint::new(caller.from, port), caller.to)
    }

    pub(crate) fn dialog_with(&mut self, target: &Target) -> Dialog {
        let us = us(target.called.addr.is_ipv6());
        let port = self.fresh_port(|port| ((us, port), target.called.into()));
        Dialog::new(&mut self.rng, Endpoint::new(us, port), target.called)
    }

    /// A port on whose flow nothing came yet.
    fn fresh_port(&mut self, flow: impl Fn(u16) -> (End, End)) -> u16 {
        loop {
            let port = self.rng.random_range(1024..=u16::MAX);
            let (local, remote) = flow(port);
            if !self.mirror.has_seen(&FlowKey::tcp(US, local, remote)) {
                return port;
            }
        }
    }

    /// The other end's SYN-ACK to a SYN as it left here.
    pub(crate) fn answer(&mut self, target: &Target, dialog: &Dialog, syn: &[u8]) -> Option<Vec<u8>> {
        let at_home = translated(syn, None, Some(target.own));
        self.them.handle_plain(target.slot, Hook::ToPu, &at_home).passed?;
        let syn_ack = Dialog { responder: target.own, ..*dialog }.syn_ack();
        let wire = self.them.handle_plain(target.slot, Hook::FromPu, &syn_ack).passed?;
        Some(translated(&wire, Some(target.called), None))
    }

    /// Sends damaged copies of a packet now and then, and old packets, and the packet itself; returns what it became if
    /// it passed.
    pub(crate) fn stage(
        &mut self,
        hook: Hook,
        packet: &[u8],
        seal: Option<&Seal>,
        course: &mut Course,
    ) -> Option<Vec<u8>> {
        self.disturb(hook, packet, seal, course);
        let outcome = self.compare(hook, packet, 0, None);
        self.keep(hook, packet);
        if *course == Course::Intact {
            self.tally.valid += 1;
            if let Outcome::Punted(punted) = &outcome {
                *self.tally.valid_punted.entry(format!("{:?}", punted.reason)).or_default() += 1;
                // A full bucket, and the packets that renew keys, are the engine's.
                let renews = self.renewing && punted.reason == PuntReason::Handshake;
                if !renews && !matches!(punted.reason, PuntReason::TableFull | PuntReason::Renewal) {
                    let kind = format!("punted although intact: {hook:?} {:?}", punted.reason);
                    let log = self.log_of(hook, packet);
                    self.tally.diverge(kind, format!("{}\n    {log}", crate::frames::hex(packet)));
                }
            }
        }
        match outcome {
            Outcome::Passed(out) => Some(out),
            Outcome::Dropped | Outcome::Punted(_) => None,
        }
    }

    fn log_of(&mut self, hook: Hook, packet: &[u8]) -> String {
        let segment = Segment::parse(packet).unwrap();
        self.mirror.flow(flow_key(hook, &segment)).log.join("\n    ")
    }

    fn disturb(&mut self, hook: Hook, packet: &[u8], seal: Option<&Seal>, course: &mut Course) {
        while self.rng.random_bool(0.45) {
            let mutant = self.mutate(packet, seal);
            let outcome = self.compare(hook, &mutant.bytes, mutant.gso, Some(mutant.what));
            self.keep(hook, &mutant.bytes);
            if outcome != Outcome::Dropped {
                *course = Course::Disturbed;
            }
        }
        if self.rng.random_bool(0.05) && !self.history.is_empty() {
            let index = self.rng.random_range(0..self.history.len());
            let (hook, old) = self.history[index].clone();
            if self.compare(hook, &old, 0, Some("replayed")) != Outcome::Dropped {
                *course = Course::Disturbed;
            }
        }
    }

    fn keep(&mut self, hook: Hook, packet: &[u8]) {
        let kept = (hook, packet.to_vec());
        if self.history.len() < HISTORY {
            self.history.push(kept);
        } else {
            let index = self.rng.random_range(0..HISTORY);
            self.history[index] = kept;
        }
    }
}

/// The packet behind a translator of addresses.
fn translated(bytes: &[u8], source: Option<Endpoint>, destination: Option<Endpoint>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(source) = source {
        edit::set_source(&mut bytes, source).unwrap();
    }
    if let Some(destination) = destination {
        edit::set_destination(&mut bytes, destination).unwrap();
    }
    bytes
}

impl Season<'_> {
    /// The same for a packet of the unit's on its way to a target.
    pub(crate) fn deliver(&mut self, target: &Target, wire: &[u8]) -> Option<Vec<u8>> {
        let at_home = translated(wire, None, Some(target.own));
        self.them.handle_plain(target.slot, Hook::ToPu, &at_home).passed
    }
}
