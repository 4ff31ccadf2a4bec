//! What the engine teaches, carried into the plane, and entries in each other's words.

use trireme_bpf::{
    Class, Connection, HalfOpen, OwnTokenState, PairKeys, PartyState, PeerState, Plane, PuState,
    RefusalState, VerdictState,
};
use trireme_datapath::{HalfOpenEntry, Lesson, OwnAttachment, Party, SynHeader};
use trireme_flow::{ConnectionClass, ConnectionEntry};
use trireme_identity::Direction;
use trireme_identity::time::WallTime;
use trireme_token::{Nonce, Role, TokenId};

use crate::bed::PU;

const fn nanos(time: WallTime) -> u64 {
    time.0.saturating_mul(1_000_000_000)
}

const fn role_of(role: Role) -> trireme_bpf::Role {
    match role {
        Role::Initiator => trireme_bpf::Role::Initiator,
        Role::Responder => trireme_bpf::Role::Responder,
    }
}

/// Writes one fact; `state` is the unit's, with its tokens.
pub(crate) fn carry(plane: &mut Plane, state: &mut PuState, lesson: &Lesson) {
    match lesson {
        Lesson::OwnTokens { tokens, .. } => carry_own_tokens(plane, state, tokens),
        Lesson::Peer { token, slot, generation, until, key, own_key } => {
            let peer = PeerState {
                slot: *slot,
                generation: *generation,
                until_wall_nanos: nanos(*until),
                key: key.0,
                own_key: own_key.0,
            };
            plane.peer_insert(&token.0, &peer).unwrap();
        }
        Lesson::ForgetPeer(token) => {
            plane.peer_remove(&token.0).unwrap();
        }
        Lesson::Pair { own, peer, role, keys } => {
            let keys = PairKeys {
                initiator: *keys.initiator.secret_bytes(),
                responder: *keys.responder.secret_bytes(),
            };
            plane.pair_insert(&own.0, &peer.0, role_of(*role), &keys).unwrap();
        }
        Lesson::Verdict { direction, peer_slot, generation, port, epoch, rule, reason, .. } => {
            let direction = match direction {
                Direction::Ingress => trireme_bpf::Direction::Ingress,
                Direction::Egress => trireme_bpf::Direction::Egress,
            };
            let (rule, reason) = (rule.unwrap_or(0), reason.code());
            let (peer_slot, generation, port, epoch) = (*peer_slot, *generation, *port, *epoch);
            let verdict =
                VerdictState { slot: PU, peer_slot, generation, direction, port, epoch, rule, reason };
            plane.verdict_insert(&verdict).unwrap();
        }
        Lesson::Destination { remote, epoch, peer, .. } => {
            let peer = peer.map(|(peer, own)| (peer.0, own.0));
            plane.destination_insert(PU, *remote, *epoch, peer).unwrap();
        }
        Lesson::ForgetDestination { remote, .. } => {
            plane.destination_remove(PU, *remote).unwrap();
        }
        Lesson::Refusal { port, token, epoch, rule, reason, until, slot, generation, .. } => {
            let refusal = RefusalState {
                slot: PU,
                port: *port,
                token: token.0,
                epoch: *epoch,
                rule: rule.unwrap_or(0),
                reason: reason.code(),
                until_wall_nanos: nanos(*until),
                peer_slot: *slot,
                peer_generation: *generation,
            };
            plane.refusal_insert(&refusal).unwrap();
        }
    }
}

fn carry_own_tokens(plane: &mut Plane, state: &mut PuState, tokens: &[OwnAttachment]) {
    for id in plane.own_tokens().unwrap() {
        plane.own_token_remove(&id).unwrap();
    }
    for own in tokens {
        plane.own_token_insert(&own.id.0, &own.token, &own.credential).unwrap();
    }
    let mut states = tokens.iter().map(|own| OwnTokenState {
        token: own.id.0,
        key: own.key.0,
        until_wall_nanos: nanos(own.until),
    });
    state.own = [states.next(), states.next()];
    if !plane.edges().is_empty() {
        plane.update(PU, *state).unwrap();
    }
}

/// An entry of the connection table in the engine's words.
pub(crate) const fn entry(connection: &Connection) -> ConnectionEntry {
    ConnectionEntry {
        role: match connection.role {
            trireme_bpf::Role::Initiator => Role::Initiator,
            trireme_bpf::Role::Responder => Role::Responder,
        },
        epoch: connection.epoch,
        peer_token: TokenId(connection.peer_token),
        peer_slot: connection.peer_slot,
        peer_generation: connection.peer_generation,
        attested: connection.attested,
        proof_seq: connection.proof_seq,
        proof_mac: connection.proof_mac,
        confirmed: connection.confirmed,
        data_seen: connection.data_seen,
        class: match connection.class {
            Class::Identity => ConnectionClass::Identity,
            Class::Address => ConnectionClass::Address,
            Class::Adopted => ConnectionClass::Adopted,
        },
        syn_ack: connection.syn_ack,
    }
}

/// And back.
pub(crate) const fn connection(entry: &ConnectionEntry) -> Connection {
    Connection {
        role: role_of(entry.role),
        class: match entry.class {
            ConnectionClass::Identity => Class::Identity,
            ConnectionClass::Address => Class::Address,
            ConnectionClass::Adopted => Class::Adopted,
        },
        epoch: entry.epoch,
        peer_token: entry.peer_token.0,
        peer_slot: entry.peer_slot,
        peer_generation: entry.peer_generation,
        attested: entry.attested,
        proof_seq: entry.proof_seq,
        proof_mac: entry.proof_mac,
        confirmed: entry.confirmed,
        syn_ack: entry.syn_ack,
        data_seen: entry.data_seen,
    }
}

/// A handshake handed over, in the engine's words.
pub(crate) fn half_open(handed: &HalfOpen) -> HalfOpenEntry {
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
