//! The connection table that the kernel's programs keep in front of the engine, as a plain data structure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use trireme_datapath::Hook;
use trireme_flow::{ConnectionEntry, FlowKey, PuSlot};
use trireme_token::Role;

use crate::packets::{ACK, FIN, RST, SYN, TcpView};

/// What the kernel does with a packet by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelVerdict {
    /// The packet goes on untouched.
    Pass,
    /// The engine decides; the entry is what the table held.
    Punt(Option<ConnectionEntry>),
}

/// Live and closing connections of one node.
#[derive(Debug)]
pub struct KernelModel {
    epochs: BTreeMap<PuSlot, u32>,
    live: BTreeMap<FlowKey, ConnectionEntry>,
    closing: BTreeMap<FlowKey, Closing>,
    fins: BTreeMap<FlowKey, Fins>,
    closing_capacity: usize,
    uses: u64,
}

/// The FINs of a connection: whether the unit sent one, and the number behind the one it was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Fins {
    from: bool,
    to: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    entry: ConnectionEntry,
    last_use: u64,
}

impl KernelModel {
    /// An empty table that remembers at most `closing_capacity` connections after their end.
    #[must_use]
    pub const fn new(closing_capacity: usize) -> Self {
        Self {
            epochs: BTreeMap::new(),
            live: BTreeMap::new(),
            closing: BTreeMap::new(),
            fins: BTreeMap::new(),
            closing_capacity,
            uses: 0,
        }
    }

    /// Sets the policy epoch of a unit; entries of other epochs go to the engine.
    pub fn set_epoch(&mut self, pu: PuSlot, epoch: u32) {
        self.epochs.insert(pu, epoch);
    }

    /// The policy epoch of a unit.
    #[must_use]
    pub fn epoch(&self, pu: PuSlot) -> Option<u32> {
        self.epochs.get(&pu).copied()
    }

    /// What is known about a connection, live or closing.
    #[must_use]
    pub fn get(&self, key: &FlowKey) -> Option<ConnectionEntry> {
        self.live.get(key).copied().or_else(|| self.closing.get(key).map(|closing| closing.entry))
    }

    /// Changes a connection, live or closing.
    pub fn change(&mut self, key: &FlowKey, change: impl FnOnce(&mut ConnectionEntry)) {
        let closing = self.closing.get_mut(key).map(|closing| &mut closing.entry);
        if let Some(entry) = self.live.get_mut(key).or(closing) {
            change(entry);
        }
    }

    /// Adds or replaces a live connection.
    pub fn install(&mut self, key: FlowKey, entry: ConnectionEntry) {
        self.closing.remove(&key);
        self.fins.remove(&key);
        self.live.insert(key, entry);
    }

    /// Forgets a connection.
    pub fn remove(&mut self, key: &FlowKey) {
        self.live.remove(key);
        self.closing.remove(key);
        self.fins.remove(key);
    }

    /// Forgets every connection for which `is_gone` says so; returns how many.
    pub fn collect(&mut self, is_gone: impl Fn(&FlowKey) -> bool) -> usize {
        let before = self.len();
        self.live.retain(|key, _| !is_gone(key));
        self.closing.retain(|key, _| !is_gone(key));
        self.fins.retain(|key, _| !is_gone(key));
        before - self.len()
    }

    /// Live and closing connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len() + self.closing.len()
    }

    /// Whether no connection is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys of all connections, live ones first.
    pub fn keys(&self) -> impl Iterator<Item = &FlowKey> {
        self.live.keys().chain(self.closing.keys())
    }

    /// Decides about a packet at the edge of `pu`.
    #[must_use]
    pub fn classify(&mut self, pu: PuSlot, hook: Hook, packet: &[u8]) -> KernelVerdict {
        // What this table cannot read, it does not judge.
        let Some(view) = TcpView::parse(packet) else { return KernelVerdict::Punt(None) };
        let key = flow_key(pu, hook, &view);
        let found =
            self.live.get(&key).copied().or_else(|| self.closing.get(&key).map(|closing| closing.entry));
        let Some(mut entry) = found else { return KernelVerdict::Punt(None) };
        if view.flags & SYN != 0 || self.epochs.get(&pu) != Some(&entry.epoch) {
            return KernelVerdict::Punt(Some(entry));
        }
        match hook {
            Hook::ToPu if is_known_proof(&view, &entry) => return KernelVerdict::Punt(Some(entry)),
            Hook::ToPu => entry.confirmed = true,
            Hook::FromPu if !entry.confirmed && entry.role == Role::Initiator => {
                let occupies = !view.payload.is_empty() || view.flags & FIN != 0;
                if !occupies && view.flags & (RST | ACK) == ACK {
                    return KernelVerdict::Punt(Some(entry));
                }
                if occupies && view.seq == entry.proof_seq {
                    if entry.data_seen {
                        return KernelVerdict::Punt(Some(entry));
                    }
                    entry.data_seen = true;
                }
            }
            Hook::FromPu => {}
        }
        let ends = self.ends(key, hook, &view);
        self.store(key, entry, hook, ends);
        KernelVerdict::Pass
    }

    /// A reset ends a connection, and the second of its two FINs; the unit's acknowledgement of the peer's FIN behind its
    /// own leaves it ended.
    fn ends(&mut self, key: FlowKey, hook: Hook, view: &TcpView<'_>) -> bool {
        if view.has(FIN) {
            let fins = self.fins.entry(key).or_default();
            match hook {
                Hook::FromPu => fins.from = true,
                Hook::ToPu => {
                    let len = u32::try_from(view.payload.len()).unwrap_or(0);
                    fins.to = Some(view.seq.wrapping_add(len).wrapping_add(1));
                }
            }
        }
        if view.has(RST) {
            return true;
        }
        let Some(Fins { from: true, to: Some(behind) }) = self.fins.get(&key) else { return false };
        view.has(FIN) || (view.payload.is_empty() && view.ack == *behind)
    }

    fn store(&mut self, key: FlowKey, entry: ConnectionEntry, hook: Hook, ends: bool) {
        let was_closing = self.closing.contains_key(&key);
        self.uses += 1;
        if ends || (was_closing && hook == Hook::ToPu) {
            self.live.remove(&key);
            self.closing.insert(key, Closing { entry, last_use: self.uses });
            self.evict();
        } else {
            self.closing.remove(&key);
            self.live.insert(key, entry);
        }
    }

    fn evict(&mut self) {
        while self.closing.len() > self.closing_capacity {
            let oldest = self.closing.iter().min_by_key(|(_, closing)| closing.last_use).map(|(key, _)| *key);
            let Some(key) = oldest else { return };
            self.closing.remove(&key);
            self.fins.remove(&key);
        }
    }
}

/// The key of a segment at the edge of `pu`.
#[must_use]
pub fn flow_key(pu: PuSlot, hook: Hook, view: &TcpView<'_>) -> FlowKey {
    let (local, remote) = match hook {
        Hook::FromPu => (view.src, view.dst),
        Hook::ToPu => (view.dst, view.src),
    };
    let end = |at: SocketAddr| (at.ip(), at.port());
    FlowKey::tcp(pu, end(local), end(remote))
}

fn is_known_proof(view: &TcpView<'_>, entry: &ConnectionEntry) -> bool {
    view.seq == entry.proof_seq && view.tap_kind() == Some(3) && view.payload[40..56] == entry.proof_mac
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use trireme_flow::ConnectionClass;
    use trireme_token::TokenId;

    use super::*;
    use crate::packets::{PSH, TAP_HEADER_LEN, TAP_MAGIC, TcpPacket};

    const PU: PuSlot = PuSlot(1);
    const PROOF_SEQ: u32 = 1001;
    const MAC: [u8; 16] = [9; 16];

    fn local() -> SocketAddr {
        "10.0.0.1:4000".parse().unwrap()
    }

    fn remote() -> SocketAddr {
        "10.0.0.2:80".parse().unwrap()
    }

    fn entry(role: Role, confirmed: bool) -> ConnectionEntry {
        ConnectionEntry {
            role,
            epoch: 1,
            peer_token: TokenId([0; 16]),
            peer_slot: 0,
            peer_generation: 0,
            attested: None,
            proof_seq: PROOF_SEQ,
            proof_mac: MAC,
            confirmed,
            data_seen: false,
            class: ConnectionClass::Identity,
            syn_ack: 0,
        }
    }

    fn table(entry: ConnectionEntry) -> KernelModel {
        let mut table = KernelModel::new(2);
        table.set_epoch(PU, 1);
        let key = flow_key(PU, Hook::FromPu, &TcpView::parse(&from(ACK, 1, b"")).unwrap());
        table.install(key, entry);
        table
    }

    fn from(flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
        TcpPacket { flags, payload: payload.to_vec(), ..TcpPacket::syn(local(), remote(), seq) }.build()
    }

    fn to(flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
        TcpPacket { flags, payload: payload.to_vec(), ..TcpPacket::syn(remote(), local(), seq) }.build()
    }

    fn proof() -> Vec<u8> {
        let mut proof = vec![0; TAP_HEADER_LEN];
        proof[..4].copy_from_slice(&TAP_MAGIC);
        proof[4] = 3;
        proof[40..56].copy_from_slice(&MAC);
        proof
    }

    #[test]
    fn segments_without_an_entry_and_every_syn_go_to_the_engine() {
        let mut table = KernelModel::new(2);
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, 5, b"x")), KernelVerdict::Punt(None));
        let held = entry(Role::Responder, true);
        let mut table = self::table(held);
        for flags in [SYN, SYN | ACK] {
            assert_eq!(
                table.classify(PU, Hook::FromPu, &from(flags, 5, b"")),
                KernelVerdict::Punt(Some(held))
            );
            assert_eq!(table.classify(PU, Hook::ToPu, &to(flags, 5, b"")), KernelVerdict::Punt(Some(held)));
        }
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, 5, b"x")), KernelVerdict::Pass);
    }

    #[test]
    fn an_entry_of_another_epoch_goes_to_the_engine() {
        let held = entry(Role::Responder, true);
        let mut table = table(held);
        table.set_epoch(PU, 2);
        assert_eq!(table.classify(PU, Hook::FromPu, &from(ACK, 5, b"x")), KernelVerdict::Punt(Some(held)));
    }

    #[test]
    fn only_the_known_proof_at_its_place_goes_to_the_engine() {
        let held = entry(Role::Responder, true);
        let mut table = table(held);
        assert_eq!(
            table.classify(PU, Hook::ToPu, &to(ACK, PROOF_SEQ, &proof())),
            KernelVerdict::Punt(Some(held))
        );
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, PROOF_SEQ + 1, &proof())), KernelVerdict::Pass);
        let mut other = proof();
        other[41] ^= 1;
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, PROOF_SEQ, &other)), KernelVerdict::Pass);
    }

    #[test]
    fn until_it_is_confirmed_the_initiator_repeats_its_proof() {
        let held = entry(Role::Initiator, false);
        let mut table = table(held);
        assert_eq!(
            table.classify(PU, Hook::FromPu, &from(ACK, PROOF_SEQ, b"")),
            KernelVerdict::Punt(Some(held))
        );
        let data = from(ACK | PSH, PROOF_SEQ, b"data");
        assert_eq!(table.classify(PU, Hook::FromPu, &data), KernelVerdict::Pass);
        let seen = ConnectionEntry { data_seen: true, ..held };
        assert_eq!(table.classify(PU, Hook::FromPu, &data), KernelVerdict::Punt(Some(seen)));
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, 1, b"")), KernelVerdict::Pass);
        assert_eq!(table.classify(PU, Hook::FromPu, &data), KernelVerdict::Pass);
        assert_eq!(table.classify(PU, Hook::FromPu, &from(ACK, PROOF_SEQ, b"")), KernelVerdict::Pass);
    }

    #[test]
    fn ended_connections_make_room_for_each_other_and_never_push_out_live_ones() {
        let mut table = table(entry(Role::Responder, true));
        let live = *table.keys().next().unwrap();
        for port in 1..=5 {
            let packet =
                TcpPacket { flags: RST, ..TcpPacket::syn(SocketAddr::new(remote().ip(), port), local(), 5) }
                    .build();
            let key = flow_key(PU, Hook::ToPu, &TcpView::parse(&packet).unwrap());
            table.install(key, entry(Role::Responder, true));
            assert_eq!(table.classify(PU, Hook::ToPu, &packet), KernelVerdict::Pass);
        }
        assert_eq!(table.len(), 3);
        assert_eq!(table.keys().next(), Some(&live));
    }

    #[test]
    fn a_segment_from_the_unit_brings_an_ended_connection_back_and_one_to_it_does_not() {
        let mut table = table(entry(Role::Responder, true));
        let states = |table: &KernelModel| (table.live.len(), table.closing.len());
        assert_eq!(table.classify(PU, Hook::ToPu, &to(RST, 5, b"")), KernelVerdict::Pass);
        assert_eq!(states(&table), (0, 1));
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, 5, b"x")), KernelVerdict::Pass);
        assert_eq!(states(&table), (0, 1));
        assert_eq!(table.classify(PU, Hook::FromPu, &from(ACK, 5, b"x")), KernelVerdict::Pass);
        assert_eq!(states(&table), (1, 0));
    }
    #[test]
    fn a_half_closed_connection_stays_live_and_the_second_fin_ends_it() {
        let mut table = table(entry(Role::Responder, true));
        let states = |table: &KernelModel| (table.live.len(), table.closing.len());
        assert_eq!(table.classify(PU, Hook::FromPu, &from(FIN | ACK, 5, b"")), KernelVerdict::Pass);
        assert_eq!(states(&table), (1, 0));
        assert_eq!(table.classify(PU, Hook::ToPu, &to(ACK, 5, b"more")), KernelVerdict::Pass);
        assert_eq!(table.classify(PU, Hook::ToPu, &to(FIN | ACK, 9, b"")), KernelVerdict::Pass);
        assert_eq!(states(&table), (0, 1));
    }
}
