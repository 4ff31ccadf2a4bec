//! Between the engine's words and the kernel half's.

pub(super) mod fast;

use trireme_bpf::{Class, Connection, Injection, PuntReason, Slot};
use trireme_datapath::{Hook, Packet, Toward};
use trireme_flow::{ConnectionClass, ConnectionEntry, FlowKey, PuSlot};
use trireme_token::{Role, TokenId};

pub(super) const fn slot(slot: PuSlot) -> Slot {
    Slot(slot.0)
}

pub(super) const fn pu_slot(slot: Slot) -> PuSlot {
    PuSlot(slot.0)
}

pub(super) const fn key(key: &FlowKey) -> trireme_bpf::FlowKey {
    trireme_bpf::FlowKey { slot: slot(key.pu), local: key.local, remote: key.remote }
}

pub(super) fn packet(punt: &trireme_bpf::Punt<'_>) -> Packet {
    Packet {
        pu: pu_slot(punt.slot),
        hook: match punt.hook {
            trireme_bpf::Hook::FromPu => Hook::FromPu,
            trireme_bpf::Hook::ToPu => Hook::ToPu,
        },
        bytes: punt.bytes.to_vec(),
        gso_size: punt.gso_size,
        connection: punt.connection.as_ref().map(|(connection, _)| entry(connection)),
        half_open: punt.half_open.as_ref().map(fast::half_open),
        renewal: punt.reason == PuntReason::Renewal,
        token: punt.token,
    }
}

pub(super) fn passed(packet: Packet) -> Injection {
    let Packet { pu, hook, bytes, gso_size, token, connection: _, half_open: _, renewal: _ } = packet;
    Injection { slot: slot(pu), toward: toward(hook.into()), bytes, gso_size, token: Some(token) }
}

pub(super) const fn emitted(
    pu: PuSlot,
    direction: Toward,
    bytes: Vec<u8>,
    gso_size: Option<u16>,
) -> Injection {
    Injection { slot: slot(pu), toward: toward(direction), bytes, gso_size, token: None }
}

const fn toward(direction: Toward) -> trireme_bpf::Toward {
    match direction {
        Toward::Pu => trireme_bpf::Toward::Pu,
        Toward::Network => trireme_bpf::Toward::Network,
    }
}

pub(super) const fn connection(entry: &ConnectionEntry) -> Connection {
    let ConnectionEntry {
        role,
        epoch,
        peer_token,
        peer_slot,
        peer_generation,
        attested,
        proof_seq,
        proof_mac,
        confirmed,
        data_seen,
        class,
        syn_ack,
    } = *entry;
    Connection {
        role: match role {
            Role::Initiator => trireme_bpf::Role::Initiator,
            Role::Responder => trireme_bpf::Role::Responder,
        },
        class: match class {
            ConnectionClass::Identity => Class::Identity,
            ConnectionClass::Address => Class::Address,
            ConnectionClass::Adopted => Class::Adopted,
        },
        epoch,
        peer_token: peer_token.0,
        peer_slot,
        peer_generation,
        attested,
        proof_seq,
        proof_mac,
        confirmed,
        data_seen,
        syn_ack,
    }
}

pub(super) const fn entry(connection: &Connection) -> ConnectionEntry {
    let Connection {
        role,
        class,
        epoch,
        peer_token,
        peer_slot,
        peer_generation,
        attested,
        proof_seq,
        proof_mac,
        confirmed,
        data_seen,
        syn_ack,
    } = *connection;
    ConnectionEntry {
        role: match role {
            trireme_bpf::Role::Initiator => Role::Initiator,
            trireme_bpf::Role::Responder => Role::Responder,
        },
        epoch,
        peer_token: TokenId(peer_token),
        peer_slot,
        peer_generation,
        attested,
        proof_seq,
        proof_mac,
        confirmed,
        data_seen,
        class: match class {
            Class::Identity => ConnectionClass::Identity,
            Class::Address => ConnectionClass::Address,
            Class::Adopted => ConnectionClass::Adopted,
        },
        syn_ack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_the_way_to_the_kernel_and_back() {
        let original = ConnectionEntry {
            role: Role::Initiator,
            epoch: 3,
            peer_token: TokenId([7; 16]),
            peer_slot: 5,
            peer_generation: 9,
            attested: Some(([10, 0, 0, 1].into(), 80)),
            proof_seq: 11,
            proof_mac: [13; 16],
            confirmed: false,
            data_seen: true,
            class: ConnectionClass::Identity,
            syn_ack: 0,
        };
        assert_eq!(entry(&connection(&original)), original);
        let other = ConnectionEntry {
            role: Role::Responder,
            confirmed: true,
            data_seen: false,
            class: ConnectionClass::Address,
            attested: None,
            syn_ack: 17,
            ..original
        };
        assert_eq!(entry(&connection(&other)), other);
        let adopted = ConnectionEntry { class: ConnectionClass::Adopted, ..other };
        assert_eq!(entry(&connection(&adopted)), adopted);
    }
}
