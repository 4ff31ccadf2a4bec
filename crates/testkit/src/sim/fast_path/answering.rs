//! The responder's steps.

use std::sync::Arc;

use trireme_datapath::{HalfOpenEntry, OwnAttachment, Party};
use trireme_flow::{ConnectionClass, ConnectionEntry, Reason};
use trireme_handshake::message::{self, Attachment, Sender};
use trireme_identity::{Direction, Protocol};
use trireme_token::{Nonce, Role, TokenId};
use trireme_wire::tap::{Attested, Body, Kind};

use super::super::kernel_model::KernelModel;
use super::{Answering, Case, Fast, FastPath, Opening, append, ask, read, strip};
use crate::packets::{ACK, PSH, SYN};

impl FastPath {
    pub(super) fn ingress_syn(&mut self, case: &Case<'_>) -> Fast {
        let Some(header) = read(&case.view, Kind::Syn).filter(|_| case.view.flags == SYN) else {
            return ask();
        };
        let token = TokenId(header.token_id);
        let Some(peer) = self.peer(&token, case.now) else {
            let refused = self.refusals.get(&(case.pu, case.key.local.1, token));
            let refused =
                refused.is_some_and(|(epoch, until)| *epoch == case.epoch && case.now.wall < *until);
            return if refused { Fast::Drop } else { ask() };
        };
        let place = (peer.slot, peer.generation);
        let Some(verdict) = self.verdict(case, Direction::Ingress, place, case.key.local.1) else {
            return ask();
        };
        if verdict.reason != Reason::Accepted {
            return Fast::Drop;
        }
        match self.opening.get(&case.key) {
            Some(Opening::Ours(ours)) if ours.peer.is_none() => return self.ask_opening(case),
            Some(Opening::Elsewhere(_)) => return ask(),
            Some(Opening::Ours(_)) | None => {}
        }
        if let Some(known) = self.answering.get(&(case.key, case.view.seq)) {
            let same = (known.peer.token, known.peer.nonce) == (token, Nonce(header.nonce));
            return match strip(case.packet).filter(|_| same) {
                Some(packet) => Fast::Pass(packet),
                None => self.ask_answering(case, case.view.seq),
            };
        }
        let vouched = |own: &OwnAttachment| {
            let keys = self.pairs.get(&(own.key, peer.key, Role::Responder))?;
            let to = Sender { token: own.id, nonce: Nonce::ZERO };
            message::check_mac(&header, &keys.initiator, to).ok()?;
            Some((own.clone(), Arc::clone(keys)))
        };
        let proven = (0..2).filter_map(|index| self.current(case, index)).find_map(|own| vouched(&own));
        let holds = proven.is_some();
        let chosen = proven.or_else(|| {
            let own = self.choose_own(case, peer.own_key)?;
            let keys = self.pairs.get(&(own.key, peer.key, Role::Responder))?;
            Some((own, Arc::clone(keys)))
        });
        let Some((own, keys)) = chosen else { return ask() };
        if let Some(newest) = self.current(case, 0)
            && newest.id != own.id
            && self.renews(&token, newest.key)
        {
            return Fast::Ask(None, true);
        }
        let Some(packet) = strip(case.packet) else { return ask() };
        let answering = Answering {
            epoch: case.epoch,
            own: Party { token: own.id, nonce: self.nonce() },
            peer: Party { token, nonce: Nonce(header.nonce) },
            keys,
            holds,
            syn_ack: None,
            peer_slot: peer.slot,
            peer_generation: peer.generation,
        };
        self.answering.insert((case.key, case.view.seq), answering);
        Fast::Pass(packet)
    }

    pub(super) fn egress_syn_ack(&mut self, table: &mut KernelModel, case: &Case<'_>) -> Fast {
        let isn = case.view.ack.wrapping_sub(1);
        if case.view.flags != SYN | ACK || !case.view.payload.is_empty() {
            return ask();
        }
        let Some(answering) = self.answering.get_mut(&(case.key, isn)) else {
            let repeated = table.get(&case.key).is_some_and(|entry| {
                (entry.role, entry.epoch, entry.proof_seq) == (Role::Responder, case.epoch, case.view.ack)
                    && entry.syn_ack != 0
                    && entry.syn_ack == case.view.seq
            });
            return if repeated { Fast::Pass(case.packet.to_vec()) } else { ask() };
        };
        if answering.epoch != case.epoch {
            return self.ask_answering(case, isn);
        }
        let omitted = answering.holds && answering.syn_ack.is_none();
        let own = self.own.get(&case.pu).into_iter().flatten().find(|own| own.id == answering.own.token);
        let attached = own.map(|own| Attachment { token: &own.token, credential: &own.credential });
        if !omitted && attached.is_none() {
            return self.ask_answering(case, isn);
        }
        let (addr, port) = case.key.local;
        let end = Attested { protocol: Protocol::TCP, port, addr };
        let (from, to) = (answering.own.into(), answering.peer.into());
        let attached = attached.filter(|_| !omitted);
        let payload = message::syn_ack(from, end, &answering.keys.responder, to, attached);
        let Some(packet) = payload.ok().and_then(|payload| append(case.packet, &payload)) else {
            return self.ask_answering(case, isn);
        };
        answering.syn_ack = Some(case.view.seq);
        table.remove(&case.key);
        Fast::Pass(packet)
    }

    pub(super) fn admit(&mut self, table: &mut KernelModel, case: &Case<'_>, isn: u32) -> Option<Fast> {
        let answering = self.answering.get(&(case.key, isn))?;
        let syn_ack = answering.syn_ack.filter(|_| answering.epoch == case.epoch)?;
        let header = read(&case.view, Kind::Ack).filter(|_| case.view.flags & !PSH == ACK)?;
        let Body::Ack { echo, .. } = header.body else { return None };
        let right = message::sender(&header) == answering.peer.into() && echo == answering.own.nonce.0;
        if !right || message::check_mac(&header, &answering.keys.initiator, answering.own.into()).is_err() {
            return None;
        }
        let packet = strip(case.packet)?;
        let entry = ConnectionEntry {
            role: Role::Responder,
            epoch: case.epoch,
            peer_token: answering.peer.token,
            peer_slot: answering.peer_slot,
            peer_generation: answering.peer_generation,
            attested: None,
            proof_seq: case.view.seq,
            proof_mac: header.mac,
            confirmed: true,
            data_seen: false,
            class: ConnectionClass::Identity,
            syn_ack,
        };
        table.install(case.key, entry);
        self.answering.remove(&(case.key, isn));
        self.completed[1] += 1;
        Some(Fast::Pass(packet))
    }

    pub(super) fn ask_answering(&mut self, case: &Case<'_>, isn: u32) -> Fast {
        let entry = self.answering.remove(&(case.key, isn)).map(|answering| {
            let Answering { epoch, own, peer, holds, syn_ack, .. } = answering;
            HalfOpenEntry::Answering { isn, epoch, own, peer, holds, syn_ack }
        });
        Fast::Ask(entry, false)
    }
}
