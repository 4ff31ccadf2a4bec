//! What the engine teaches and what the programs hand over, in each other's words.

use trireme_bpf::{
    Activity, Connection, EventPeer, EventReport, FlowKey, HalfOpen, OwnTokenState, PairKeys, PartyState,
    PeerState, RefusalState, Role, VerdictState,
};
use trireme_datapath::{BackendEvent, HalfOpenEntry, KeyName, OwnAttachment, Party, PeerPlace, SynHeader};
use trireme_flow::{PuSlot, Reason, Traffic};
use trireme_identity::time::WallTime;
use trireme_identity::{Direction, Protocol};
use trireme_token::{Nonce, TokenId};

use super::{entry, pu_slot, slot};
use crate::datapath::supervisor::ended;

const NANOS: u64 = 1_000_000_000;

const fn nanos(time: WallTime) -> u64 {
    time.0.saturating_mul(NANOS)
}

pub(in super::super) fn own_token(attachment: &OwnAttachment) -> OwnTokenState {
    OwnTokenState { token: attachment.id.0, key: attachment.key.0, until_wall_nanos: nanos(attachment.until) }
}

pub(in super::super) const fn peer(
    (place, generation): (u32, u32),
    until: WallTime,
    key: KeyName,
    own_key: KeyName,
) -> PeerState {
    PeerState { slot: place, generation, until_wall_nanos: nanos(until), key: key.0, own_key: own_key.0 }
}

pub(in super::super) const fn role(role: trireme_token::Role) -> Role {
    match role {
        trireme_token::Role::Initiator => Role::Initiator,
        trireme_token::Role::Responder => Role::Responder,
    }
}

pub(in super::super) fn pair(keys: &trireme_token::PairKeys) -> PairKeys {
    PairKeys { initiator: *keys.initiator.secret_bytes(), responder: *keys.responder.secret_bytes() }
}

/// What the engine says about a peer at a unit's port.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Judgement {
    pub(in super::super) epoch: u32,
    pub(in super::super) rule: Option<u16>,
    pub(in super::super) reason: Reason,
}

pub(in super::super) fn verdict(
    pu: PuSlot,
    direction: Direction,
    (peer_slot, generation): (u32, u32),
    port: u16,
    judgement: Judgement,
) -> VerdictState {
    VerdictState {
        slot: slot(pu),
        peer_slot,
        generation,
        direction: match direction {
            Direction::Ingress => trireme_bpf::Direction::Ingress,
            Direction::Egress => trireme_bpf::Direction::Egress,
        },
        port,
        epoch: judgement.epoch,
        rule: judgement.rule.unwrap_or(0),
        reason: judgement.reason.code(),
    }
}

pub(in super::super) fn refusal(
    pu: PuSlot,
    port: u16,
    (token, until): (TokenId, WallTime),
    (peer_slot, peer_generation): (u32, u32),
    judgement: Judgement,
) -> RefusalState {
    RefusalState {
        slot: slot(pu),
        port,
        token: token.0,
        epoch: judgement.epoch,
        rule: judgement.rule.unwrap_or(0),
        reason: judgement.reason.code(),
        until_wall_nanos: nanos(until),
        peer_slot,
        peer_generation,
    }
}

pub(in super::super) fn half_open(handed: &HalfOpen) -> HalfOpenEntry {
    match handed {
        HalfOpen::Opening(opening) => HalfOpenEntry::Opening {
            isn: opening.isn,
            epoch: opening.epoch,
            syns: opening.syns,
            own: party(opening.own),
            peer: opening.peer.map(party),
            syn: SynHeader {
                hop_limit: opening.hop_limit,
                traffic_class: opening.traffic_class,
                tcp: opening.tcp().to_vec(),
            },
        },
        HalfOpen::Answering(answering) => HalfOpenEntry::Answering {
            isn: answering.isn,
            epoch: answering.epoch,
            own: party(answering.own),
            peer: party(answering.peer),
            holds: answering.holds,
            syn_ack: answering.syn_ack,
        },
    }
}

const fn party(party: PartyState) -> Party {
    Party { token: TokenId(party.token), nonce: Nonce(party.nonce) }
}

/// `None` for an event whose reason no engine of this version gives.
pub(in super::super) fn event(report: &EventReport) -> Option<BackendEvent> {
    Some(BackendEvent {
        pu: pu_slot(report.slot),
        direction: match report.direction {
            trireme_bpf::Direction::Ingress => Direction::Ingress,
            trireme_bpf::Direction::Egress => Direction::Egress,
        },
        peer: match report.peer {
            EventPeer::Known(place, generation) => PeerPlace::Known(place, generation),
            EventPeer::Refused(place, generation) => PeerPlace::Refused(place, generation),
            EventPeer::None => PeerPlace::None,
        },
        protocol: Protocol::TCP,
        port: report.port,
        reason: Reason::from_code(report.reason)?,
        rule: (report.rule != 0).then_some(report.rule),
        local: report.local,
        remote: report.remote,
        starts: report.starts,
        refused: report.refused,
        ends: report.ends,
        traffic: Traffic {
            packets_from: report.packets_from,
            bytes_from: report.bytes_from,
            packets_to: report.packets_to,
            bytes_to: report.bytes_to,
        },
        first: WallTime(report.first_wall_nanos / NANOS),
        last: WallTime(report.last_wall_nanos / NANOS),
    })
}

/// The end of a connection that fell silent.
pub(in super::super) fn fell_silent(
    key: &FlowKey,
    connection: &Connection,
    activity: &Activity,
    now: WallTime,
) -> BackendEvent {
    let key = trireme_flow::FlowKey::tcp(pu_slot(key.slot), key.local, key.remote);
    let traffic = Traffic {
        packets_from: activity.packets_from,
        bytes_from: activity.bytes_from,
        packets_to: activity.packets_to,
        bytes_to: activity.bytes_to,
    };
    ended(&key, &entry(connection), traffic, now)
}

#[cfg(test)]
mod tests;
