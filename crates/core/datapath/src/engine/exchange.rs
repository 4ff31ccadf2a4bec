//! Identities over UDP, the initiator's side: an exchange on the flow's own ports, and the datagrams that wait for it.
//!
//! It is the TCP handshake without segments: the state machines are the same, a sequence number is a mere name (the first
//! bytes of the initiator's nonce), and repetitions are the engine's own.

use std::sync::Arc;
use std::time::Duration;

use trireme_flow::{Action, FlowKey, HalfOpenKey, Reason};
use trireme_handshake::initiator::{Attach, Initiator, Input, LastResort, Output, SynSent};
use trireme_handshake::message::Sender;
use trireme_identity::time::{Instant, Now};
use trireme_identity::{Direction, Protocol};
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, RandomSource, Role};
use trireme_wire::datagram::Datagram;

use super::agents::Without;
use super::egress_syn::Shape;
use super::handshake::{Half, Handshake};
use super::refuse::Refused;
use super::renew::{Choice, Renewal};
use super::{Context, Engine, Judged, Next, authorize};
use crate::{Effect, Packet};

const EGRESS: Direction = Direction::Egress;

/// How often a message is sent before nothing more is expected of it.
const TRIES: u8 = 3;
/// How long the first one waits for its answer; each next one twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long the state of an exchange outlives its last repetition.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Repetitions of an exchange's last message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    tries: u8,
    at: Instant,
}

impl Retry {
    fn first(now: Instant) -> Self {
        Self { tries: 1, at: now + FIRST_WAIT }
    }

    /// The next one, if there is one.
    fn next(self, now: Instant) -> Option<Self> {
        let wait = FIRST_WAIT.saturating_mul(1 << self.tries.min(TRIES));
        (self.tries < TRIES).then(|| Self { tries: self.tries + 1, at: now + wait })
    }
}

impl Engine {
    /// Whether the unit shows its identity before its datagrams of this flow.
    pub(super) fn shows_identity(&mut self, cx: &Context<'_, Datagram>) -> bool {
        let remote = cx.key.remote;
        cx.key.protocol == Protocol::UDP
            && !cx.view.is_to_group()
            && !cx.key.local.0.is_unspecified()
            && cx.unit.judges(EGRESS, Protocol::UDP)
            && cx.unit.settings.target_networks.contains(remote.0)
            && !self.agents.is_silent(&(cx.slot, remote), cx.now.monotonic)
    }

    /// A first datagram towards where identity is shown: the exchange begins; the datagram waits for it, unless the address
    /// rules let it go at once.
    pub(super) fn open_exchange(&mut self, cx: &mut Context<'_, Datagram>, packet: &mut Packet) -> Judged {
        if self.exchange_of(cx.key).is_some() {
            return Ok(Next::HoldFlow(cx.key));
        }
        if authorize::has_no_egress(&cx.unit, Protocol::UDP) {
            return Err(Refused::new(EGRESS, Reason::PolicyNoEgress));
        }
        let at = (cx.slot, cx.key.remote);
        let at_once = !self.agents.is_refused(&at, cx.unit.epoch)
            && authorize::address(&cx.unit, EGRESS, cx.key).is_ok();
        match (self.begin_exchange(cx), at_once) {
            (Ok(()), false) => return Ok(Next::HoldFlow(cx.key)),
            (Err(refused), false) => return Err(refused),
            // Recorded when it has come out who is there.
            (Ok(()), true) => self.admit_flow(cx, packet.hook),
            (Err(_), true) => self.begin_flow(cx, packet.hook)?,
        }
        Ok(self.pass_datagram(cx, packet))
    }

    /// The unit's exchange on this flow that waits for an answer.
    pub(super) fn exchange_of(&self, flow: FlowKey) -> Option<HalfOpenKey> {
        self.handshakes
            .of_flow(flow, Role::Initiator)
            .find(|(_, handshake)| matches!(handshake.half, Half::Initiator(Initiator::SynSent(_))))
            .map(|(key, _)| *key)
    }

    /// Sends kind 1 with a new nonce.
    pub(super) fn begin_exchange<V>(&mut self, cx: &mut Context<'_, V>) -> Result<(), Box<Refused>> {
        let earlier: Vec<_> = self.handshakes.of_flow(cx.key, Role::Initiator).map(|(key, _)| *key).collect();
        for key in earlier {
            self.handshakes.remove(&key);
        }
        let known = self.known_peer(cx);
        let Choice { own, older } = self.choose_towards(cx, known.as_ref(), Renewal::NotAsked)?;
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce);
        let sender = Sender { token: own.token.id, nonce: Nonce(nonce) };
        let key = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn: name_of(&nonce) };
        let sent = SynSent::new(key.isn, sender, LastResort::Never).over(Protocol::UDP);
        let attach = sent.first();
        let retry = Retry::first(cx.now.monotonic);
        let handshake = Handshake {
            own: Some(own.clone()),
            older,
            retry: Some(retry),
            ..Handshake::new(Half::Initiator(Initiator::SynSent(sent)), cx.unit.epoch)
        };
        self.begin(cx, key, handshake, EGRESS)?;
        self.handshakes.postpone(&key, cx.now.monotonic + EXCHANGE_TIMEOUT);
        self.retries.add(retry.at, key);
        self.send_kind_1(cx, key, &own, sender, Shape { attach, cookie: None })
    }

    pub(super) fn send_kind_1<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        key: HalfOpenKey,
        own: &OwnToken,
        sender: Sender,
        shape: Shape,
    ) -> Result<(), Box<Refused>> {
        let payload = self.kind_1(cx, key, own, sender, shape)?;
        self.send_datagram(cx, &payload);
        Ok(())
    }

    /// Sends the proof and expects it to be confirmed.
    pub(super) fn prove_flow<V>(&mut self, cx: &mut Context<'_, V>, key: HalfOpenKey) {
        let Some(Output::AttachProof(proof)) = self.step(key, Input::Ack { seq: key.isn.wrapping_add(1) })
        else {
            return;
        };
        self.send_datagram(cx, &proof.payload);
    }

    /// Begins to count the repetitions of another message.
    pub(super) fn expect_answer(&mut self, key: HalfOpenKey, now: Now) {
        let Some(handshake) = self.handshakes.get_mut(&key) else { return };
        let retry = Retry::first(now.monotonic);
        handshake.retry = Some(retry);
        self.retries.add(retry.at, key);
    }

    /// Repeats messages without an answer, and draws the conclusion from a lasting silence.
    pub(super) fn handle_retries(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(key) = self.retries.pop_due(now.monotonic) {
            let Some(unit) = self.units.get(&key.flow.pu).map(Arc::clone) else { continue };
            let Some(handshake) = self.handshakes.get_mut(&key) else { continue };
            let Some(retry) = handshake.retry.filter(|retry| retry.at <= now.monotonic) else { continue };
            handshake.retry = retry.next(now.monotonic);
            let next = handshake.retry;
            let mut cx = Context { slot: unit.slot, unit, key: key.flow, view: (), now, out };
            match next {
                Some(next) => {
                    self.retries.add(next.at, key);
                    self.repeat(&mut cx, key);
                }
                None => self.end_exchange(&mut cx, key),
            }
        }
    }

    fn repeat(&mut self, cx: &mut Context<'_, ()>, key: HalfOpenKey) {
        let Some(handshake) = self.handshakes.get_mut(&key) else { return };
        let Half::Initiator(initiator) = &mut handshake.half else { return };
        let Initiator::SynSent(sent) = initiator else {
            return self.prove_flow(cx, key);
        };
        // Nobody answered the newer token.
        if let Some(older) = handshake.older.take() {
            sent.show(older.token.id);
            handshake.own = Some(older);
        }
        let sender = sent.own();
        let Some(own) = handshake.own.clone() else { return };
        let whole = Shape { attach: Attach::Full, cookie: None };
        if let Err(refused) = self.send_kind_1(cx, key, &own, sender, whole) {
            self.count(cx.slot, refused.reason);
        }
    }

    /// An exchange that nothing more is expected of: without an answer the address rules decide, without a confirmation
    /// the flow's next datagram begins another.
    pub(super) fn end_exchange<V>(&mut self, cx: &mut Context<'_, V>, key: HalfOpenKey) {
        let Some(handshake) = self.handshakes.remove(&key) else { return };
        if handshake.entry.is_some() {
            self.flows.remove(&cx.key);
            cx.out.push(Effect::Remove(cx.key));
            self.count(cx.slot, Reason::ProofUnconfirmed);
            return;
        }
        let by_address = authorize::address(&cx.unit, EGRESS, cx.key);
        let without = if by_address.is_ok() { Without::Admitted } else { Without::Refused };
        self.agents.note_silence((cx.slot, cx.key.remote), without, cx.now.monotonic);
        let about = Refused::new(EGRESS, Reason::NoAnswer);
        self.count(cx.slot, Reason::NoAnswer);
        self.record(cx, &about, Action::Accept, None);
        if let Ok((decision, reason)) = by_address
            && self.knows_flow(&cx.key)
        {
            let port = authorize::called_port(EGRESS, cx.key);
            self.record_accept(cx, &Refused::new(EGRESS, reason).with_decision(decision).with_port(port));
        }
        self.judge_waiting(cx);
    }

    /// Judges what waited for an exchange as if it came now.
    fn judge_waiting<V>(&mut self, cx: &mut Context<'_, V>) {
        for packet in self.waiting.take(cx.key) {
            let verdict = self.handle_packet(packet, cx.now, cx.out);
            super::timeout::transmit(verdict, cx.out);
        }
    }

    /// Lets go on what waited for the flow.
    pub(super) fn release_flow<V>(&mut self, cx: &mut Context<'_, V>) {
        for packet in self.waiting.take(cx.key) {
            self.settle_fragment(&packet, cx.unit.epoch, cx.now);
            let Packet { pu, hook, bytes, gso_size, .. } = packet;
            cx.out.push(Effect::Transmit { pu, toward: hook.into(), bytes, gso_size });
        }
    }
}

/// What stands for the sequence number in the name of an exchange.
pub(super) const fn name_of(nonce: &[u8; 16]) -> u32 {
    let [a, b, c, d, ..] = *nonce;
    u32::from_be_bytes([a, b, c, d])
}
