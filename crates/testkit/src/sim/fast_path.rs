//! What the kernel's programs do with handshakes of identities that the engine has taught them, as plain data structures.
//!
//! Start with [`FastPath::judge`]; its steps are those of the programs, one function each.

mod answering;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use trireme_datapath::{HalfOpenEntry, Hook, KeyName, Lesson, OwnAttachment, Party, SynHeader};
use trireme_flow::{ConnectionClass, ConnectionEntry, FlowKey, PuSlot, Reason};
use trireme_handshake::message::{self, Attachment, Seal};
use trireme_identity::Direction;
use trireme_identity::Protocol;
use trireme_identity::time::{Now, WallTime};
use trireme_token::{Nonce, PairKeys, Role, TokenId};
use trireme_wire::edit;
use trireme_wire::ip::Family;
use trireme_wire::tap::{Body, Header, Kind};

use super::kernel_model::{KernelModel, flow_key};
use crate::packets::{ACK, FIN, RST, SYN, TcpView};

/// What becomes of a packet.
#[derive(Debug)]
pub(super) enum Fast {
    /// It goes on with these bytes.
    Pass(Vec<u8>),
    /// It is dropped.
    Drop,
    /// The engine decides; with the handshake that is forgotten here, and whether the newest token is to be shown.
    Ask(Option<HalfOpenEntry>, bool),
    /// The connection table decides.
    Table,
}

/// What the engine has taught, and handshakes of the kernel's own.
#[derive(Debug)]
pub(super) struct FastPath {
    own: BTreeMap<PuSlot, Vec<OwnAttachment>>,
    peers: BTreeMap<TokenId, Peer>,
    pairs: BTreeMap<(KeyName, KeyName, Role), Arc<PairKeys>>,
    verdicts: BTreeMap<(PuSlot, Direction, u32, u16), Verdict>,
    destinations: BTreeMap<(PuSlot, (IpAddr, u16)), Destination>,
    refusals: BTreeMap<(PuSlot, u16, TokenId), (u32, WallTime)>,
    opening: BTreeMap<FlowKey, Opening>,
    answering: BTreeMap<(FlowKey, u32), Answering>,
    node: u8,
    nonces: u64,
    /// Connections that began without the engine, by role.
    pub(super) completed: [u64; 2],
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    slot: u32,
    generation: u32,
    until: WallTime,
    key: KeyName,
    own_key: KeyName,
    tried_key: Option<KeyName>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict {
    epoch: u32,
    generation: u32,
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Destination {
    epoch: u32,
    peer: Option<(TokenId, TokenId)>,
}

#[derive(Clone, Debug)]
enum Opening {
    /// The engine has it.
    Elsewhere(u32),
    Ours(Box<Ours>),
}

#[derive(Clone, Debug)]
struct Ours {
    isn: u32,
    epoch: u32,
    syns: u8,
    own: Party,
    own_key: KeyName,
    attached: bool,
    peer: Option<Party>,
    syn: SynHeader,
}

#[derive(Clone, Debug)]
struct Answering {
    epoch: u32,
    own: Party,
    peer: Party,
    keys: Arc<PairKeys>,
    holds: bool,
    syn_ack: Option<u32>,
    peer_slot: u32,
    peer_generation: u32,
}

/// A packet and what there is to know about it.
struct Case<'a> {
    pu: PuSlot,
    epoch: u32,
    key: FlowKey,
    view: TcpView<'a>,
    packet: &'a [u8],
    now: Now,
}

impl FastPath {
    pub(super) const fn new(node: u8) -> Self {
        Self {
            own: BTreeMap::new(),
            peers: BTreeMap::new(),
            pairs: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            destinations: BTreeMap::new(),
            refusals: BTreeMap::new(),
            opening: BTreeMap::new(),
            answering: BTreeMap::new(),
            node,
            nonces: 0,
            completed: [0; 2],
        }
    }

    /// Writes a fact into the maps.
    pub(super) fn learn(&mut self, lesson: Lesson) {
        match lesson {
            Lesson::OwnTokens { pu, tokens } => drop(self.own.insert(pu, tokens)),
            Lesson::Peer { token, slot, generation, until, key, own_key } => {
                let tried_key = self.peers.get(&token).and_then(|peer| peer.tried_key);
                self.peers.insert(token, Peer { slot, generation, until, key, own_key, tried_key });
            }
            Lesson::ForgetPeer(token) => drop(self.peers.remove(&token)),
            Lesson::Pair { own, peer, role, keys } => drop(self.pairs.insert((own, peer, role), keys)),
            Lesson::Verdict { pu, direction, peer_slot, generation, port, epoch, reason, rule: _ } => {
                let verdict = Verdict { epoch, generation, reason };
                self.verdicts.insert((pu, direction, peer_slot, port), verdict);
            }
            Lesson::Destination { pu, remote, epoch, peer } => {
                self.destinations.insert((pu, remote), Destination { epoch, peer });
            }
            Lesson::ForgetDestination { pu, remote } => drop(self.destinations.remove(&(pu, remote))),
            Lesson::Refusal { pu, port, token, epoch, until, .. } => {
                self.refusals.insert((pu, port, token), (epoch, until));
            }
        }
    }

    /// The peers with their places, and the places that verdicts name.
    pub(super) fn places(&self) -> Vec<(u32, u32)> {
        let peers = self.peers.values().map(|peer| (peer.slot, peer.generation));
        peers
            .chain(self.verdicts.iter().map(|((_, _, slot, _), verdict)| (*slot, verdict.generation)))
            .collect()
    }

    /// Forgets peers that a new engine does not know.
    pub(super) fn keep_peers(&mut self, knows: impl Fn(&TokenId, u32, u32) -> bool) {
        self.peers.retain(|token, peer| knows(token, peer.slot, peer.generation));
    }

    /// Decides about a packet at the edge of a unit, as far as the connection table does not.
    pub(super) fn judge(
        &mut self,
        table: &mut KernelModel,
        pu: PuSlot,
        hook: Hook,
        packet: &[u8],
        now: Now,
    ) -> Fast {
        let (Some(view), Some(epoch)) = (TcpView::parse(packet), table.epoch(pu)) else { return Fast::Table };
        let case = Case { pu, epoch, key: flow_key(pu, hook, &view), view, packet, now };
        let answer = match (hook, view.has(SYN), view.has(ACK)) {
            (Hook::FromPu, true, false) => self.egress_syn(table, &case),
            (Hook::ToPu, true, false) => self.ingress_syn(&case),
            (Hook::FromPu, true, true) => self.egress_syn_ack(table, &case),
            (Hook::ToPu, true, true) => self.ingress_syn_ack(table, &case),
            (_, false, _) => match (table.get(&case.key), hook) {
                (Some(entry), _) => self.established(table, &case, hook, entry),
                (None, Hook::FromPu) => self.egress_unconnected(&case),
                (None, Hook::ToPu) => self.ingress_unconnected(table, &case),
            },
        };
        // Repetitions of a SYN that the engine got follow it.
        if matches!(answer, Fast::Ask(..)) && hook == Hook::FromPu && view.has(SYN) && !view.has(ACK) {
            self.opening.insert(case.key, Opening::Elsewhere(view.seq));
        }
        answer
    }

    fn egress_syn(&mut self, table: &mut KernelModel, case: &Case<'_>) -> Fast {
        let destination = self.destinations.get(&(case.pu, case.key.remote)).copied();
        let destination = destination.filter(|destination| destination.epoch == case.epoch);
        if case.view.flags != SYN || !case.view.payload.is_empty() {
            return ask();
        }
        match self.opening.get(&case.key) {
            Some(Opening::Elsewhere(isn)) if *isn == case.view.seq => return ask(),
            Some(Opening::Ours(ours)) if ours.isn == case.view.seq => {
                return self.identify_again(case, destination);
            }
            Some(_) | None => {}
        }
        let Some(destination) = destination else { return ask() };
        let (own, peer) = match self.choose(case, &destination, true) {
            Ok(choice) => choice,
            Err(renewal) => return Fast::Ask(None, renewal),
        };
        let holds = destination.peer.is_some_and(|(_, holds)| holds == own.id);
        let ours = Ours {
            isn: case.view.seq,
            epoch: case.epoch,
            syns: 1,
            own: Party { token: own.id, nonce: self.nonce() },
            own_key: own.key,
            attached: !holds,
            peer: None,
            syn: syn_header(case),
        };
        let Some(packet) = self.identify(case, &own, ours.own, peer, !holds) else { return ask() };
        self.opening.insert(case.key, Opening::Ours(Box::new(ours)));
        table.remove(&case.key);
        Fast::Pass(packet)
    }

    fn identify_again(&mut self, case: &Case<'_>, destination: Option<Destination>) -> Fast {
        let Some(Opening::Ours(mut ours)) = self.opening.remove(&case.key) else { return ask() };
        let choice = destination.and_then(|destination| self.choose(case, &destination, true).ok());
        let Some((mut own, peer)) =
            choice.filter(|_| ours.peer.is_none() && ours.syns == 1 && ours.epoch == case.epoch)
        else {
            return Fast::Ask(Some(handed_over(&ours)), false);
        };
        if peer.is_none()
            && let Some(older) = self.current(case, 1)
        {
            own = older;
        }
        if peer.is_some() && own.id != ours.own.token {
            return Fast::Ask(Some(handed_over(&ours)), false);
        }
        (ours.own.token, ours.own_key, ours.syns, ours.attached) = (own.id, own.key, 2, true);
        let Some(packet) = self.identify(case, &own, ours.own, peer, true) else {
            return Fast::Ask(Some(handed_over(&ours)), false);
        };
        self.opening.insert(case.key, Opening::Ours(ours));
        Fast::Pass(packet)
    }

    /// The token to show and the peer to make a MAC for; else whether the engine is to show the newest.
    fn choose(
        &mut self,
        case: &Case<'_>,
        destination: &Destination,
        may_renew: bool,
    ) -> Result<(OwnAttachment, Option<TokenId>), bool> {
        let newest = self.current(case, 0).ok_or(false)?;
        let Some((token, _)) = destination.peer else { return Ok((newest, None)) };
        let peer = self.peer(&token, case.now).ok_or(false)?;
        let own = self.choose_own(case, peer.own_key).ok_or(false)?;
        if may_renew && self.renews(&token, newest.key) {
            return Err(true);
        }
        if !self.pairs.contains_key(&(own.key, peer.key, Role::Initiator)) {
            return Err(false);
        }
        Ok((own, Some(token)))
    }

    fn identify(
        &self,
        case: &Case<'_>,
        own: &OwnAttachment,
        sender: Party,
        peer: Option<TokenId>,
        attach: bool,
    ) -> Option<Vec<u8>> {
        let family = if case.key.local.0.is_ipv4() { Family::V4 } else { Family::V6 };
        let keys = match &peer {
            Some(token) => {
                let key = self.peers.get(token)?.key;
                Some(Arc::clone(self.pairs.get(&(own.key, key, Role::Initiator))?))
            }
            None => None,
        };
        let seal = match (&keys, peer) {
            (Some(keys), Some(token)) => Seal::Mac(&keys.initiator, token),
            _ => Seal::Open,
        };
        let attached = attach.then_some(Attachment { token: &own.token, credential: &own.credential });
        append(case.packet, &message::syn(Protocol::TCP, sender.into(), family, seal, attached).ok()?)
    }

    fn ingress_syn_ack(&mut self, table: &mut KernelModel, case: &Case<'_>) -> Fast {
        let ours = match self.opening.get(&case.key) {
            Some(Opening::Ours(ours)) if ours.peer.is_none() && case.view.ack == ours.isn.wrapping_add(1) => {
                ours.clone()
            }
            other => {
                let elsewhere = matches!(other, Some(Opening::Elsewhere(_)));
                let unanswered = matches!(other, Some(Opening::Ours(ours)) if ours.peer.is_none());
                return self.unasked(table, case, elsewhere, unanswered);
            }
        };
        let Some(header) = read(&case.view, Kind::SynAck).filter(|_| case.view.flags == SYN | ACK) else {
            return self.ask_opening(case);
        };
        let token = TokenId(header.token_id);
        let peer = self.peer(&token, case.now);
        let keys = peer.and_then(|peer| self.pairs.get(&(ours.own_key, peer.key, Role::Initiator)).cloned());
        let (Some(peer), Some(keys), Body::SynAck { endpoint, .. }) = (peer, keys, header.body) else {
            return self.ask_opening(case);
        };
        if message::check_mac(&header, &keys.responder, ours.own.into()).is_err() {
            return self.ask_opening(case);
        }
        let place = (peer.slot, peer.generation);
        let Some(verdict) = self.verdict(case, Direction::Egress, place, endpoint.port) else {
            return self.ask_opening(case);
        };
        if verdict.reason != Reason::Accepted {
            return Fast::Drop;
        }
        let responder = Party { token, nonce: Nonce(header.nonce) };
        let proof = message::ack(Protocol::TCP, ours.own.into(), &keys.initiator, responder.into());
        let (Ok(proof), Some(packet)) = (proof, strip(case.packet)) else { return self.ask_opening(case) };
        let entry = ConnectionEntry {
            role: Role::Initiator,
            epoch: case.epoch,
            peer_token: token,
            peer_slot: peer.slot,
            peer_generation: peer.generation,
            attested: Some((endpoint.addr, endpoint.port)),
            proof_seq: ours.isn.wrapping_add(1),
            proof_mac: mac_of(&proof),
            confirmed: false,
            data_seen: true,
            class: ConnectionClass::Identity,
            syn_ack: 0,
        };
        table.install(case.key, entry);
        self.remember(case, &ours, token);
        self.opening.insert(case.key, Opening::Ours(Box::new(Ours { peer: Some(responder), ..*ours })));
        self.completed[0] += 1;
        Fast::Pass(packet)
    }

    fn unasked(&mut self, table: &KernelModel, case: &Case<'_>, elsewhere: bool, unanswered: bool) -> Fast {
        let established = table.get(&case.key).is_some_and(|entry| {
            (entry.role, entry.class, entry.epoch, entry.proof_seq)
                == (Role::Initiator, ConnectionClass::Identity, case.epoch, case.view.ack)
        });
        match (established && !elsewhere, unanswered) {
            (true, _) if case.view.payload.is_empty() => Fast::Pass(case.packet.to_vec()),
            (true, _) => strip(case.packet).map_or_else(ask, Fast::Pass),
            (false, true) => self.ask_opening(case),
            (false, false) => ask(),
        }
    }

    /// The responder holds the token that it was shown.
    fn remember(&mut self, case: &Case<'_>, ours: &Ours, token: TokenId) {
        if let Some(peer) = self.peers.get_mut(&token) {
            peer.own_key = ours.own_key;
        }
        if !ours.attached {
            return;
        }
        if let Some(Destination { peer: Some((known, holds)), .. }) =
            self.destinations.get_mut(&(case.pu, case.key.remote))
            && *known == token
        {
            *holds = ours.own.token;
        }
    }

    fn established(
        &mut self,
        table: &mut KernelModel,
        case: &Case<'_>,
        hook: Hook,
        mut entry: ConnectionEntry,
    ) -> Fast {
        if entry.epoch != case.epoch {
            let (direction, port) = match entry.role {
                Role::Initiator => {
                    (Direction::Egress, entry.attested.map_or(case.key.remote.1, |(_, port)| port))
                }
                Role::Responder => (Direction::Ingress, case.key.local.1),
            };
            let place = (entry.peer_slot, entry.peer_generation);
            let identified = entry.class == ConnectionClass::Identity;
            match self.verdict(case, direction, place, port).filter(|_| identified) {
                Some(verdict) if verdict.reason == Reason::Accepted => {
                    entry.epoch = case.epoch;
                    table.change(&case.key, |kept| kept.epoch = case.epoch);
                }
                Some(_) => {
                    table.remove(&case.key);
                    return Fast::Drop;
                }
                None => return Fast::Table,
            }
        }
        match hook {
            Hook::ToPu if is_duplicate(&case.view, &entry) => strip(case.packet).map_or_else(ask, Fast::Pass),
            Hook::ToPu => {
                if !entry.confirmed {
                    self.opening.remove(&case.key);
                }
                Fast::Table
            }
            Hook::FromPu if entry.confirmed || case.view.has(RST) || entry.role == Role::Responder => {
                Fast::Table
            }
            Hook::FromPu => {
                let occupies = !case.view.payload.is_empty() || case.view.has(FIN);
                if occupies && (case.view.seq != entry.proof_seq || !entry.data_seen) {
                    return Fast::Table;
                }
                self.prove(table, case, &entry)
            }
        }
    }

    fn prove(&mut self, table: &mut KernelModel, case: &Case<'_>, entry: &ConnectionEntry) -> Fast {
        let Some(Opening::Ours(ours)) = self.opening.get(&case.key) else { return ask() };
        let Some(peer) = ours.peer.filter(|_| ours.isn.wrapping_add(1) == entry.proof_seq) else {
            return ask();
        };
        if case.view.seq != entry.proof_seq || !case.view.payload.is_empty() || case.view.flags != ACK {
            return self.ask_opening(case);
        }
        let proof = message::ack_again(Protocol::TCP, ours.own.into(), entry.proof_mac, peer.into());
        let Some(packet) = proof.ok().and_then(|proof| append(case.packet, &proof)) else { return ask() };
        table.change(&case.key, |kept| kept.data_seen = false);
        Fast::Pass(packet)
    }

    fn egress_unconnected(&mut self, case: &Case<'_>) -> Fast {
        let isn = case.view.ack.wrapping_sub(1);
        if self.answering.contains_key(&(case.key, isn)) {
            return self.ask_answering(case, isn);
        }
        self.ask_opening(case)
    }

    fn ingress_unconnected(&mut self, table: &mut KernelModel, case: &Case<'_>) -> Fast {
        let isn = case.view.seq.wrapping_sub(1);
        if self.answering.contains_key(&(case.key, isn)) {
            return self.admit(table, case, isn).unwrap_or_else(|| self.ask_answering(case, isn));
        }
        self.ask_opening(case)
    }

    fn ask_opening(&mut self, case: &Case<'_>) -> Fast {
        match self.opening.get(&case.key) {
            Some(Opening::Ours(ours)) => {
                let entry = handed_over(ours);
                self.opening.remove(&case.key);
                Fast::Ask(Some(entry), false)
            }
            Some(Opening::Elsewhere(_)) | None => ask(),
        }
    }

    fn peer(&self, token: &TokenId, now: Now) -> Option<Peer> {
        self.peers.get(token).copied().filter(|peer| now.wall < peer.until)
    }

    fn verdict(
        &self,
        case: &Case<'_>,
        direction: Direction,
        (place, generation): (u32, u32),
        port: u16,
    ) -> Option<Verdict> {
        let verdict = self.verdicts.get(&(case.pu, direction, place, port))?;
        (verdict.epoch == case.epoch && verdict.generation == generation).then_some(*verdict)
    }

    /// The unit's newest token, or the one before it.
    fn current(&self, case: &Case<'_>, index: usize) -> Option<OwnAttachment> {
        self.own.get(&case.pu)?.get(index).filter(|own| case.now.wall < own.until).cloned()
    }

    fn choose_own(&self, case: &Case<'_>, key: KeyName) -> Option<OwnAttachment> {
        self.current(case, 1).filter(|own| own.key == key).or_else(|| self.current(case, 0))
    }

    fn renews(&mut self, token: &TokenId, newest: KeyName) -> bool {
        let Some(peer) = self.peers.get_mut(token) else { return false };
        peer.own_key != newest && peer.tried_key.replace(newest) != Some(newest)
    }

    fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        let mut nonce = [0xb0; 16];
        nonce[0] = self.node;
        nonce[8..].copy_from_slice(&self.nonces.to_be_bytes());
        Nonce(nonce)
    }
}

const fn ask() -> Fast {
    Fast::Ask(None, false)
}

fn handed_over(ours: &Ours) -> HalfOpenEntry {
    let Ours { isn, epoch, syns, own, peer, syn, .. } = ours.clone();
    HalfOpenEntry::Opening { isn, epoch, syns, own, peer, syn }
}

fn syn_header(case: &Case<'_>) -> SynHeader {
    let (packet, tcp_at) = (case.packet, case.view.tcp_at);
    let (hop_limit, traffic_class) = if packet[0] >> 4 == 4 {
        (packet[8], packet[1])
    } else {
        (packet[7], packet[0] << 4 | packet[1] >> 4)
    };
    SynHeader { hop_limit, traffic_class, tcp: packet[tcp_at..].to_vec() }
}

fn read(view: &TcpView<'_>, kind: Kind) -> Option<Header> {
    Header::parse(view.payload).ok().filter(|header| header.kind() == kind)
}

fn mac_of(proof: &[u8]) -> [u8; 16] {
    let mut mac = [0; 16];
    mac.copy_from_slice(&proof[40..56]);
    mac
}

fn is_duplicate(view: &TcpView<'_>, entry: &ConnectionEntry) -> bool {
    view.seq == entry.proof_seq
        && entry.class == ConnectionClass::Identity
        && read(view, Kind::Ack).is_some_and(|header| header.mac == entry.proof_mac)
}

fn append(packet: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let mut packet = packet.to_vec();
    edit::append_payload(&mut packet, payload).ok()?;
    Some(packet)
}

fn strip(packet: &[u8]) -> Option<Vec<u8>> {
    let mut packet = packet.to_vec();
    edit::strip_payload(&mut packet, 0).ok()?;
    Some(packet)
}
