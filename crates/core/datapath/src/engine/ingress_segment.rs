//! A unit is sent anything but a SYN: check the proof (kind 3), and let no data through before it.

use std::sync::Arc;

use trireme_flow::{ConnectionClass, ConnectionEntry, HalfOpenKey, Reason};
use trireme_handshake::initiator::{self, Output as InitiatorOutput};
use trireme_handshake::message::{self, Sender};
use trireme_handshake::responder::{Input, Output, Responder};
use trireme_identity::Direction;
use trireme_token::rotation::OwnToken;
use trireme_token::{Nonce, PairKeys, Role, TokenId, Verified};
use trireme_wire::edit;
use trireme_wire::tap::{self, Body, Header, Kind};
use trireme_wire::tcp::Flags;

use super::egress_syn::strip;
use super::handshake::{Half, Handshake, Multipath, reason_of};
use super::ingress_syn_ack::{Answer, Said};
use super::refuse::Refused;
use super::teach::{Fresh, Proven, verdict_of};
use super::{Context, Engine, Judged, Next, authorize, parse};
use crate::{Effect, Hook, Packet, Toward};

const INGRESS: Direction = Direction::Ingress;
const EGRESS: Direction = Direction::Egress;

/// Whom a proof speaks for, the token of ours that it answers, and the keys shared then.
pub(super) struct Claim {
    pub(super) peer: Arc<Verified>,
    pub(super) own: OwnToken,
    pub(super) keys: Arc<PairKeys>,
}

impl Engine {
    pub(super) fn ingress_segment(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        if let Some(entry) = packet.connection {
            let entry = self.current(cx, packet.hook, entry)?;
            return strip_duplicate(cx, packet, &entry);
        }
        if let Some(next) = self.control(cx, packet)? {
            return Ok(next);
        }
        let found = self.handshake_of(cx.key, &cx.view, Hook::ToPu);
        let Some(key) = found.filter(|found| self.speaks_for(found, cx, Hook::ToPu)) else {
            return Err(Refused::new(INGRESS, Reason::Stray));
        };
        if let Some(entry) = self.handshakes.get(&key).and_then(|handshake| handshake.entry) {
            self.current(cx, packet.hook, entry)?;
        }
        match key.role {
            Role::Initiator => self.responder_segment(cx, packet, key),
            Role::Responder => self.initiator_segment(cx, packet, key),
        }
    }

    fn responder_segment(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        if cx.view.flags.contains(Flags::RST) {
            return self.responder_reset(cx, packet, key);
        }
        let ack = cx.view.ack;
        let input = if cx.view.is_empty_ack() {
            initiator::Input::PeerAck { ack }
        } else {
            initiator::Input::PeerData { ack }
        };
        let output = self.step(key, input);
        if output == Some(InitiatorOutput::PassBare) {
            strip(packet, EGRESS)?;
            return Ok(Next::Pass);
        }
        self.conclude(cx, key, output)
    }

    fn responder_reset(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let said = match self.kind_2(cx, packet, key)? {
            Said::Pending(job) => return Ok(Next::Park(job)),
            Said::Answer(answer) => Some(answer),
            Said::Nothing => None,
        };
        let ack = cx.view.flags.contains(Flags::ACK).then_some(cx.view.ack);
        let message = said.as_ref().map(Answer::message);
        match self.step(key, initiator::Input::PeerReset { ack, message }) {
            Some(InitiatorOutput::AuthorizeReset(authenticated)) => {
                let peer = said.as_ref().map(Answer::peer);
                let Some(peer) = peer else { return Err(Refused::new(EGRESS, Reason::Internal)) };
                let attested = (authenticated.endpoint.addr, authenticated.endpoint.port);
                let decision = authorize::peer(&cx.unit, EGRESS, cx.key, peer, attested.1)
                    .map_err(|refused| refused.with_attested(attested))?;
                let mut about =
                    Refused::new(EGRESS, Reason::Accepted).with_peer(peer).with_attested(attested);
                about.decision = decision;
                self.record_accept(cx, &about);
                strip(packet, EGRESS)?;
                Ok(Next::Pass)
            }
            Some(InitiatorOutput::AuthorizeAddressReset) => {
                let (decision, reason) = authorize::address(&cx.unit, EGRESS, cx.key)?;
                self.record_accept(cx, &Refused::new(EGRESS, reason).with_decision(decision));
                // A closed port without TAP acknowledges the payload of the SYN, which the unit's stack does not know of.
                edit::set_ack(&mut packet.bytes, key.isn.wrapping_add(1))
                    .map_err(|_| Refused::new(EGRESS, Reason::Malformed))?;
                Ok(Next::Pass)
            }
            output => self.conclude(cx, key, output),
        }
    }

    /// What remains to be done with a responder's segment.
    pub(super) fn conclude(
        &mut self,
        cx: &mut Context<'_>,
        key: HalfOpenKey,
        output: Option<InitiatorOutput>,
    ) -> Judged {
        match output {
            Some(InitiatorOutput::Pass) => Ok(Next::Pass),
            Some(InitiatorOutput::Confirmed) => {
                let entry = self.handshakes.get_mut(&key).and_then(|handshake| handshake.entry.as_mut());
                if let Some(entry) = entry.filter(|entry| !entry.confirmed) {
                    entry.confirmed = true;
                    cx.out.push(Effect::Install(cx.key, *entry));
                }
                Ok(Next::Pass)
            }
            Some(InitiatorOutput::Consume) => Err(Refused::new(EGRESS, Reason::Consumed)),
            Some(InitiatorOutput::Drop(fault)) => {
                // Nothing before the SYN-ACK tells a segment for the unit from a scan.
                Err(Refused::new(EGRESS, reason_of(fault)))
            }
            _ => Err(Refused::new(EGRESS, Reason::Internal)),
        }
    }

    fn initiator_segment(&mut self, cx: &mut Context<'_>, packet: &mut Packet, key: HalfOpenKey) -> Judged {
        let proof = self.kind_3(cx, packet, key)?;
        if let Some(Header { body: Body::Ack { echo, .. }, .. }) = &proof {
            self.prefer(&key, |rival| rival.own_nonce() == Some(Nonce(*echo)));
        }
        let (seq, ack) = (cx.view.seq, cx.view.ack);
        let claim = proof.as_ref().and_then(|header| self.claim_of(cx, key, header)).transpose();
        let claim = claim.map_err(|reason| Refused::new(INGRESS, reason))?;
        let output = match &proof {
            Some(header) => {
                let keys = claim.as_ref().map(|claim| &*claim.keys);
                let own = claim.as_ref().map_or(TokenId::ZERO, |claim| claim.own.token.id);
                self.step_responder(key, Input::Proof { seq, ack, header, keys, own })
            }
            None if cx.view.flags.contains(Flags::RST) => self.step_responder(key, Input::PeerReset { seq }),
            None if cx.view.is_empty_ack() => self.step_responder(key, Input::PeerAck { ack }),
            None => self.step_responder(key, Input::PeerData { ack }),
        };
        match output {
            Some(Output::Pass) => Ok(Next::Pass),
            Some(Output::Admit) => {
                let claim = claim.ok_or_else(|| Refused::new(INGRESS, Reason::Internal))?;
                self.admit(cx, packet, key, &claim)
            }
            Some(Output::AdmitAddress) => self.admit_address(cx, key),
            Some(Output::Duplicate) => {
                strip(packet, INGRESS)?;
                Ok(Next::Pass)
            }
            Some(Output::Hold) => Ok(Next::Hold(key)),
            Some(Output::Drop(fault)) => {
                let peer = self.handshakes.get(&key).and_then(|handshake| handshake.peer.clone());
                Err(Refused::new(INGRESS, reason_of(fault)).with_known_peer(peer.as_ref()))
            }
            _ => Err(Refused::new(INGRESS, Reason::Internal)),
        }
    }

    /// Reads kind 3, which is TAP only at the one place where the proof stands; elsewhere it is data.
    fn kind_3(
        &self,
        cx: &Context<'_>,
        packet: &Packet,
        key: HalfOpenKey,
    ) -> Result<Option<Header>, Box<Refused>> {
        let payload = cx.view.payload(&packet.bytes);
        if cx.view.seq != key.isn.wrapping_add(1) || !tap::is_tap(payload) {
            return Ok(None);
        }
        let awaited = self.handshakes.get(&key).is_some_and(|handshake| {
            matches!(handshake.half, Half::Responder(Responder::SynReceived(_) | Responder::SynAckSent(_)))
        });
        match parse::tap_header(payload) {
            Some(Ok(header)) if header.kind() == Kind::Ack => Ok(Some(header)),
            Some(Ok(_)) if awaited => Err(Refused::new(INGRESS, Reason::TapUnexpected)),
            Some(Err(reason)) if awaited => Err(Refused::new(INGRESS, reason)),
            Some(_) | None => Ok(None),
        }
    }

    /// Who it is that a proof speaks for, and which token of ours it answers.
    pub(super) fn claim_of<V>(
        &mut self,
        cx: &Context<'_, V>,
        key: HalfOpenKey,
        header: &Header,
    ) -> Option<Result<Claim, Reason>> {
        let handshake = self.handshakes.get(&key)?;
        let named = |peer: &&Arc<Verified>| peer.id.0 == header.token_id;
        let peer = handshake.peer_before.as_ref().filter(named).or(handshake.peer.as_ref())?;
        let (own, peer, nonce) = (handshake.own.clone()?, Arc::clone(peer), handshake.own_nonce()?);
        let answers = |own: &OwnToken, keys: &PairKeys| {
            message::check_mac(header, &keys.initiator, Sender { token: own.token.id, nonce }).is_ok()
        };
        let answered = self.answered_token(cx, &own, &peer, Role::Responder, answers);
        Some(answered.map(|(own, keys)| Claim { peer, own, keys }))
    }

    fn admit(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        key: HalfOpenKey,
        claim: &Claim,
    ) -> Judged {
        self.admit_initiator(cx, key, claim)?;
        let multipath =
            self.handshakes.get(&key).map_or(Multipath::NotAsked, |handshake| handshake.multipath);
        // A proof that an enforcer sent by itself lacks the Multipath option: the stack must not see it as its third ACK.
        let consumed = multipath == Multipath::Asked && !cx.view.options(&packet.bytes).has_multipath();
        strip(packet, INGRESS)?;
        self.release(cx, packet, key, consumed)
    }

    /// Judges an initiator that has proven itself, unless that was done, and writes its entry.
    pub(super) fn admit_initiator<V>(
        &mut self,
        cx: &mut Context<'_, V>,
        key: HalfOpenKey,
        Claim { peer, own, keys }: &Claim,
    ) -> Result<(), Box<Refused>> {
        let internal = || Refused::new(INGRESS, Reason::Internal);
        let handshake = self.handshakes.get(&key).ok_or_else(internal)?;
        let judged_before = handshake.epoch == cx.unit.epoch
            && handshake.peer.as_ref().is_some_and(|judged| judged.id == peer.id);
        let mut judged = Ok(handshake.decision.clone());
        let proof_mac = match &handshake.half {
            Half::Responder(Responder::Proven(proven)) => proven.proof_mac(),
            Half::Responder(_) | Half::Initiator(_) => return Err(internal()),
        };
        if self.is_revoked(peer) {
            self.handshakes.remove(&key);
            self.held.take(key);
            return Err(Refused::new(INGRESS, Reason::TokenRevoked).with_peer(peer));
        }
        let port = cx.key.local.1;
        if !judged_before {
            judged = authorize::peer(&cx.unit, INGRESS, cx.key, peer, port);
        }
        let place =
            self.teach_peer(cx, &Proven { peer, own, role: Role::Responder, keys, fresh: Fresh::Yes });
        self.teach_verdict(cx, INGRESS, place, port, verdict_of(&judged));
        let decision = match judged {
            Ok(decision) => decision,
            Err(refused) => {
                self.handshakes.remove(&key);
                self.held.take(key);
                return Err(refused);
            }
        };
        let (peer_slot, peer_generation) = place;
        let entry = ConnectionEntry {
            role: Role::Responder,
            epoch: cx.unit.epoch,
            peer_token: peer.id,
            peer_slot,
            peer_generation,
            attested: None,
            proof_seq: key.isn.wrapping_add(1),
            proof_mac,
            confirmed: true,
            data_seen: false,
            class: ConnectionClass::Identity,
            syn_ack: 0,
        };
        self.install(cx, key, entry);
        let mut about = Refused::new(INGRESS, Reason::Accepted).with_peer(peer).with_port(port);
        about.decision = decision;
        self.record_accept(cx, &about);
        self.agents.meet(cx.slot, cx.key.remote, peer);
        Ok(())
    }

    /// Lets the packets go on that waited for this proof, behind the proof's own segment.
    fn release(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        key: HalfOpenKey,
        consumed: bool,
    ) -> Judged {
        let held = self.held.take(key);
        if held.is_empty() && !consumed {
            return Ok(Next::Pass);
        }
        let first =
            (!consumed).then(|| Packet { bytes: std::mem::take(&mut packet.bytes), ..packet.clone() });
        for Packet { pu, bytes, gso_size, .. } in first.into_iter().chain(held) {
            cx.out.push(Effect::Transmit { pu, toward: Toward::Pu, bytes, gso_size });
        }
        if consumed { Ok(Next::Drop(Reason::Consumed)) } else { Ok(Next::Sent) }
    }

    fn admit_address(&mut self, cx: &mut Context<'_>, key: HalfOpenKey) -> Judged {
        let Some(handshake) = self.handshakes.get(&key) else {
            return Err(Refused::new(INGRESS, Reason::Internal));
        };
        let mut decision = handshake.decision.clone();
        let judged_before = handshake.epoch == cx.unit.epoch;
        let reason = match authorize::address(&cx.unit, INGRESS, cx.key) {
            Ok((again, reason)) => {
                if !judged_before {
                    decision = Some(again);
                }
                reason
            }
            Err(refused) => {
                self.handshakes.remove(&key);
                return Err(refused);
            }
        };
        self.install(cx, key, Handshake::address_entry(Role::Responder, cx.unit.epoch, key.isn));
        let mut about = Refused::new(INGRESS, reason).with_port(cx.key.local.1);
        about.decision = decision;
        self.record_accept(cx, &about);
        Ok(Next::Pass)
    }
}

/// A late duplicate of the proof is recognised by its MAC and stripped; everything else of an admitted connection passes.
fn strip_duplicate(cx: &Context<'_>, packet: &mut Packet, entry: &ConnectionEntry) -> Judged {
    if entry.role == Role::Responder && cx.view.seq == entry.proof_seq {
        let payload = cx.view.payload(&packet.bytes);
        if let Some(Ok(header)) = parse::tap_header(payload)
            && header.kind() == Kind::Ack
            && header.mac == entry.proof_mac
        {
            strip(packet, INGRESS)?;
        }
    }
    Ok(Next::Pass)
}
