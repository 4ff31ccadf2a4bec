//! Messages between enforcers: refusals (kind 4) and token requests (kind 5).

use std::sync::Arc;

use trireme_flow::{Action, HalfOpenKey, Reason};
use trireme_handshake::initiator::{Attach, Initiator, Input, Output, PeerRefusal, Verified};
use trireme_handshake::message::{self, Sender};
use trireme_identity::Direction;
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, PairKeys, Role, TokenId};
use trireme_wire::edit;
use trireme_wire::tap::{self, Body, Header};
use trireme_wire::tcp::Flags;

use super::egress_syn::Shape;
use super::handshake::{Half, reason_of};
use super::refuse::Refused;
use super::{Context, Engine, Next, parse};
use crate::{Effect, Packet, Toward};

const EGRESS: Direction = Direction::Egress;

impl Engine {
    /// Handles a message of the peer's enforcer; `None` if the segment is none.
    pub(super) fn control(
        &mut self,
        cx: &mut Context<'_>,
        packet: &Packet,
    ) -> Result<Option<Next>, Box<Refused>> {
        let payload = cx.view.payload(&packet.bytes);
        let isn = cx.view.ack.wrapping_sub(1);
        let key = HalfOpenKey { flow: cx.key, role: Role::Initiator, isn };
        let Some(handshake) = self.handshakes.get(&key) else { return Ok(None) };
        if cx.view.flags != Flags::ACK || !tap::is_tap(payload) {
            return Ok(None);
        }
        // Before the SYN-ACK no payload is for the unit; behind it, it may be a stream that begins with the magic.
        let unanswered = matches!(handshake.half, Half::Initiator(Initiator::SynSent(_)));
        let header = match parse::tap_header(payload) {
            Some(Ok(header)) => header,
            Some(Err(reason)) if unanswered => return Err(Refused::new(EGRESS, reason)),
            Some(Err(_)) | None => return Ok(None),
        };
        if let Body::Refusal { echo, .. } | Body::TokenRequest { echo, .. } = header.body {
            self.prefer(&key, |rival| rival.own_nonce() == Some(Nonce(echo)));
        }
        let output = match header.body {
            Body::Refusal { .. } => {
                let (own, keys) = self.keys_of_refuser(cx, key, &header).unzip();
                let own = own.unwrap_or(TokenId::ZERO);
                self.step(key, Input::Refusal { header: &header, keys: keys.as_deref(), own })
            }
            Body::TokenRequest { .. } => self.step(key, Input::TokenRequest { header: &header }),
            Body::Syn { .. } | Body::SynAck { .. } | Body::Ack { .. } => return Ok(None),
        };
        match output {
            Some(Output::Report(refusal)) => {
                self.report_refusal(cx, refusal);
                Err(Refused::new(EGRESS, Reason::Consumed))
            }
            Some(Output::Resend(cookie)) => {
                self.resend(cx, key, cookie)?;
                Err(Refused::new(EGRESS, Reason::Consumed))
            }
            Some(Output::Drop(fault)) => Err(Refused::new(EGRESS, reason_of(fault))),
            other => self.conclude(cx, key, other).map(Some),
        }
    }

    /// The keys that a refusal's MAC is made with, if the refuser's token is held.
    pub(super) fn keys_of_refuser<V>(
        &mut self,
        cx: &Context<'_, V>,
        key: HalfOpenKey,
        header: &Header,
    ) -> Option<(TokenId, Arc<PairKeys>)> {
        let handshake = self.handshakes.get(&key)?;
        let own = handshake.own.clone()?;
        let nonce = handshake.own_nonce()?;
        let peer = self.held_token(&TokenId(header.token_id), cx.now).ok()??;
        let answers = |own: &OwnToken, keys: &PairKeys| {
            message::check_mac(header, &keys.responder, Sender { token: own.token.id, nonce }).is_ok()
        };
        let (own, keys) = self.answered_token(cx, &own, &peer, Role::Initiator, answers).ok()?;
        Some((own.token.id, keys))
    }

    pub(super) fn report_refusal<V>(&mut self, cx: &mut Context<'_, V>, refusal: PeerRefusal) {
        let PeerRefusal { peer, reason, rule, verified } = refusal;
        let named = Reason::from_code(reason).filter(|named| *named != Reason::Accepted);
        let said = named.map_or_else(|| format!("code {reason}"), |named| named.to_string());
        let rule = if rule == 0 { String::new() } else { format!(", its rule {rule}") };
        let checked = match verified {
            Verified::Yes => "",
            Verified::No => " (not verified: its token is not held here)",
        };
        let mut refused = Refused::new(EGRESS, Reason::RefusedByPeer);
        if reason != 0 {
            refused = refused.with_note(format!("the peer says {said}{rule}{checked}"));
        }
        refused.peer = self.held_token(&peer, cx.now).ok().flatten();
        self.count(cx.slot, Reason::RefusedByPeer);
        self.record(cx, &refused, Action::Reject, None);
    }

    /// Sends the SYN again at once, with the whole token.
    fn resend(
        &mut self,
        cx: &mut Context<'_>,
        key: HalfOpenKey,
        cookie: Option<[u8; 16]>,
    ) -> Result<(), Box<Refused>> {
        let internal = || Refused::new(EGRESS, Reason::Internal);
        let handshake = self.handshakes.get(&key).ok_or_else(internal)?;
        let Half::Initiator(Initiator::SynSent(sent)) = &handshake.half else { return Err(internal()) };
        let sender = sent.own();
        let own = handshake.own.clone().ok_or_else(internal)?;
        let mut bytes = handshake.syn.clone();
        // The node behind the address is not the one that was expected.
        self.forget_destination(cx);
        let payload = self.kind_1(cx, key, &own, sender, Shape { attach: Attach::Full, cookie })?;
        edit::append_payload(&mut bytes, &payload).map_err(|_| Refused::new(EGRESS, Reason::TooLarge))?;
        cx.out.push(Effect::Transmit { pu: cx.slot, toward: Toward::Network, bytes, gso_size: None });
        Ok(())
    }
}
