//! A unit answers a SYN: attach its identity, its own end and the MAC (kind 2).

use trireme_flow::{HalfOpenKey, Reason};
use trireme_handshake::message::{self, Attachment};
use trireme_handshake::responder::{Attach, Input, Output};
use trireme_identity::Direction;
use trireme_token::{Nonce, RandomSource, Role};
use trireme_wire::tap::Attested;

use super::handshake::{Half, PeerHolds, reason_of};
use super::refuse::Refused;
use super::{Context, Engine, Judged, Next};
use crate::{Effect, Hook, KnownTokens, Packet};

const INGRESS: Direction = Direction::Ingress;

impl Engine {
    pub(super) fn egress_syn_ack(&mut self, cx: &mut Context<'_>, packet: &mut Packet) -> Judged {
        self.clean_own_payload(cx, packet, INGRESS)?;
        if let Some(entry) = packet.connection
            && entry.syn_ack != 0
            && entry.syn_ack == cx.view.seq
            && self.is_established(&entry, cx.view.ack, Role::Responder, cx.key)
        {
            self.current(cx, Hook::FromPu, entry)?;
            return Ok(Next::Pass);
        }
        let key = HalfOpenKey { flow: cx.key, role: Role::Responder, isn: cx.view.ack.wrapping_sub(1) };
        self.end_others(cx, &key, packet.connection);
        self.alternate(&key);
        let mut fresh = [0; 16];
        self.random.fill(&mut fresh);
        let until = cx.now.monotonic + self.config.responder_timeout;
        let Some(handshake) = self.handshakes.get_mut(&key) else {
            return Err(Refused::new(INGRESS, Reason::Stray));
        };
        let Half::Responder(responder) = &mut handshake.half else {
            return Err(Refused::new(INGRESS, Reason::Internal));
        };
        let output = responder.handle(Input::SynAck { seq: cx.view.seq, fresh: Nonce(fresh) });
        // Nobody answered the newer token.
        if let Some(older) = handshake.older.take_if(|_| output == Output::Answer(Attach::Full)) {
            responder.show(older.token.id);
            handshake.own = Some(older);
        }
        if matches!(output, Output::AnswerAnew | Output::PassAnew) {
            handshake.entry = None;
            cx.out.push(Effect::Remove(cx.key));
            self.handshakes.reopen(&key, until);
        } else if handshake.entry.is_none() {
            self.handshakes.postpone(&key, until);
        }
        match output {
            Output::Answer(attach) => self.answer_syn(cx, packet, key, attach),
            Output::AnswerAnew => self.answer_syn(cx, packet, key, Attach::Full),
            Output::Pass | Output::PassAnew => Ok(Next::Pass),
            Output::Drop(fault) => Err(Refused::new(INGRESS, reason_of(fault))),
            Output::Anew
            | Output::AnotherToken
            | Output::Attest
            | Output::Admit
            | Output::AdmitAddress
            | Output::Duplicate
            | Output::Hold => Err(Refused::new(INGRESS, Reason::Internal)),
        }
    }

    /// Attaches kind 2 to a SYN-ACK, or to the reset that answers an authorized SYN.
    pub(super) fn answer_syn(
        &mut self,
        cx: &mut Context<'_>,
        packet: &mut Packet,
        key: HalfOpenKey,
        attach: Attach,
    ) -> Judged {
        let payload = self.kind_2_for(cx, key, attach)?;
        self.append(packet, &payload, INGRESS)?;
        Ok(Next::Pass)
    }

    /// Makes kind 2.
    pub(super) fn kind_2_for<V>(
        &mut self,
        cx: &Context<'_, V>,
        key: HalfOpenKey,
        attach: Attach,
    ) -> Result<Vec<u8>, Box<Refused>> {
        let internal = || Refused::new(INGRESS, Reason::Internal);
        let handshake = self.handshakes.get(&key).ok_or_else(internal)?;
        let Half::Responder(responder) = &handshake.half else { return Err(internal()) };
        let syn = responder.syn().ok_or_else(internal)?.clone();
        let own = handshake.own.clone().ok_or_else(internal)?;
        let peer = handshake.peer.clone().ok_or_else(internal)?;
        let omit = attach == Attach::IfUnknown
            && handshake.peer_holds_token == PeerHolds::Known
            && self.config.known_tokens == KnownTokens::Omit;
        let keys = self.keys(&own, &peer, Role::Responder).map_err(|reason| Refused::new(INGRESS, reason))?;
        let (addr, port) = cx.key.local;
        let endpoint = Attested { protocol: cx.key.protocol, port, addr };
        let attached =
            (!omit).then_some(Attachment { token: &own.token.bytes, credential: &own.token.credential });
        message::syn_ack(syn.own(), endpoint, &keys.responder, syn.peer(), attached)
            .map_err(|_| Refused::new(INGRESS, Reason::TooLarge))
    }
}
