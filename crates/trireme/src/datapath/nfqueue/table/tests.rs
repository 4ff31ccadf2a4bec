use trireme_flow::{ConnectionClass, PuSlot};
use trireme_token::TokenId;
use trireme_wire::build::{TcpSpec, tcp};
use trireme_wire::tuple::Endpoint;

use super::*;

const EPOCH: u32 = 3;
const PROOF_SEQ: u32 = 1001;

fn key() -> FlowKey {
    FlowKey::tcp(PuSlot(1), ([10, 0, 0, 1].into(), 4000), ([10, 0, 0, 2].into(), 80))
}

fn entry(role: Role, confirmed: bool) -> ConnectionEntry {
    ConnectionEntry {
        role,
        epoch: EPOCH,
        peer_token: TokenId([0; 16]),
        peer_slot: 0,
        peer_generation: 0,
        attested: None,
        proof_seq: PROOF_SEQ,
        proof_mac: [9; 16],
        confirmed,
        data_seen: false,
        class: ConnectionClass::Identity,
        syn_ack: 0,
    }
}

fn empty(capacity: usize) -> Table {
    let folder = tempfile::tempdir().unwrap();
    Table::open(folder.path(), capacity).unwrap()
}

fn table(entry: ConnectionEntry) -> Table {
    let mut table = empty(2);
    assert!(table.insert(key(), entry, Instant(0)));
    table
}

fn packet(hook: Hook, flags: Flags, seq: u32, payload: &[u8]) -> Vec<u8> {
    let end = |(addr, port)| Endpoint { addr, port };
    let (local, remote) = (end(key().local), end(key().remote));
    let (src, dst) = if hook == Hook::FromPu { (local, remote) } else { (remote, local) };
    tcp(&TcpSpec { payload, ..TcpSpec::new(src, dst, seq, 1, flags) }).unwrap()
}

fn judge(table: &mut Table, hook: Hook, flags: Flags, seq: u32, payload: &[u8]) -> Judged {
    let bytes = packet(hook, flags, seq, payload);
    table.judge(EPOCH, hook, &key(), &Segment::parse(&bytes).unwrap(), &bytes)
}

fn is_released(table: &Table, hook: Hook, payload: &[u8]) -> bool {
    let bytes = packet(hook, Flags::ACK, PROOF_SEQ, payload);
    table.is_released(EPOCH, hook, &key(), &Segment::parse(&bytes).unwrap())
}

#[test]
fn what_is_unknown_opens_or_is_odd_goes_to_the_engine() {
    let held = entry(Role::Responder, true);
    assert_eq!(judge(&mut empty(1), Hook::ToPu, Flags::ACK, 5, b"x"), Judged::Ask(None));
    let mut table = table(held);
    for hook in [Hook::FromPu, Hook::ToPu] {
        for flags in [Flags::SYN, Flags::SYN_ACK, Flags::FIN] {
            assert_eq!(judge(&mut table, hook, flags, 5, b""), Judged::Ask(Some(held)));
        }
        assert_eq!(judge(&mut table, hook, Flags::ACK, 5, b"x"), Judged::Released);
    }
}

#[test]
fn another_epoch_and_a_message_at_the_place_of_the_proof_go_to_the_engine() {
    let old = ConnectionEntry { epoch: EPOCH - 1, ..entry(Role::Responder, true) };
    assert_eq!(judge(&mut table(old), Hook::FromPu, Flags::ACK, 5, b"x"), Judged::Ask(Some(old)));
    assert!(!is_released(&table(old), Hook::FromPu, b"x"));
    let held = entry(Role::Responder, true);
    let mut table = table(held);
    let proof = [&tap::MAGIC[..], &[3; 68]].concat();
    assert_eq!(judge(&mut table, Hook::ToPu, Flags::ACK, PROOF_SEQ, &proof), Judged::Ask(Some(held)));
    assert_eq!(judge(&mut table, Hook::ToPu, Flags::ACK, PROOF_SEQ + 1, &proof), Judged::Released);
    assert!(is_released(&table, Hook::FromPu, b"x"));
}

#[test]
fn an_initiator_is_released_when_its_responder_speaks() {
    let held = entry(Role::Initiator, false);
    let mut table = table(held);
    assert_eq!(judge(&mut table, Hook::FromPu, Flags::ACK, PROOF_SEQ, b""), Judged::Ask(Some(held)));
    assert_eq!(judge(&mut table, Hook::FromPu, Flags::ACK, PROOF_SEQ, b"data"), Judged::Pass);
    let seen = ConnectionEntry { data_seen: true, ..held };
    assert_eq!(judge(&mut table, Hook::FromPu, Flags::ACK, PROOF_SEQ, b"data"), Judged::Ask(Some(seen)));
    assert_eq!(judge(&mut table, Hook::FromPu, Flags::RST, PROOF_SEQ, b""), Judged::Pass);
    assert!(!is_released(&table, Hook::FromPu, b"x"));
    assert_eq!(judge(&mut table, Hook::ToPu, Flags::ACK, 1, b""), Judged::Released);
    assert_eq!(judge(&mut table, Hook::FromPu, Flags::ACK, PROOF_SEQ, b""), Judged::Released);
    assert!(is_released(&table, Hook::FromPu, b"x"));
}

#[test]
fn a_responder_is_released_by_data_and_not_by_what_makes_its_socket() {
    let mut responder = table(entry(Role::Responder, true));
    assert!(!is_released(&responder, Hook::ToPu, b""));
    assert_eq!(judge(&mut responder, Hook::ToPu, Flags::ACK, PROOF_SEQ, b""), Judged::Pass);
    for hook in [Hook::ToPu, Hook::FromPu] {
        assert!(is_released(&responder, hook, b"x"));
        assert_eq!(judge(&mut responder, hook, Flags::ACK, PROOF_SEQ, b"x"), Judged::Released);
    }
    assert!(is_released(&table(entry(Role::Initiator, true)), Hook::ToPu, b""));
}

#[test]
fn a_full_table_takes_no_new_connection_and_gives_back_those_that_are_gone() {
    let other = |port| FlowKey { local: ([10, 0, 0, 1].into(), port), ..key() };
    let mut table = table(entry(Role::Responder, true));
    assert!(table.insert(other(1), entry(Role::Responder, true), Instant(10)));
    assert!(!table.insert(other(2), entry(Role::Responder, true), Instant(20)));
    assert!(table.insert(key(), entry(Role::Initiator, true), Instant(5)), "an entry is replaced");

    let young = table.collect(Instant(5), |_| true);
    let gone = table.collect(Instant(10), |_| true);

    assert_eq!((young.len(), gone.len(), table.len()), (0, 1, 1));
    assert_eq!(table.get(&key()), None);
}

#[test]
fn another_process_goes_on_with_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table::open(folder.path(), 2).unwrap();
    let other = FlowKey { pu: PuSlot(2), ..key() };
    for key in [key(), other] {
        assert!(table.insert(key, entry(Role::Initiator, false), Instant(0)));
    }
    table.forget(other.pu);
    drop(table);

    let table = Table::open(folder.path(), 2).unwrap();
    assert_eq!((table.len(), table.get(&other), table.unwritten()), (1, None, 0));
    assert!(is_released(&table, Hook::FromPu, b"x"), "nobody can repeat its proof any more");
}
