//! What versions 1 and 2 of the layouts left: units, edges, connections.

use std::path::Path;

use aya::maps::{Map as AyaMap, MapData, MapType};
use trireme_bpf_abi::{Connection, EdgeRecord, Own, Pu};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::PlaneError;
use crate::error::Cause;
use crate::maps::{Map, Maps, Named};
use crate::shape::Shape;

const fn hash(name: &'static str, key: u32, value: u32) -> Shape {
    Shape { name, kind: MapType::Hash, key, value }
}

const V1: [Shape; 4] = [
    hash("pus", 4, 16),
    hash("edges", 4, 256),
    hash("connections", 40, 120),
    Shape { name: "closing", kind: MapType::LruHash, key: 40, value: 120 },
];

const V2: [Shape; 3] = [hash("pus", 4, 112), hash("edges", 4, 256), hash("connections", 40, 128)];

/// What must be there to read the pins of a version; None for one that is not known.
pub(super) fn shapes(version: u32) -> Option<&'static [Shape]> {
    match version {
        1 => Some(&V1),
        2 => Some(&V2),
        _ => None,
    }
}

/// State of a PU in version 1.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct PuV1 {
    slot: u32,
    epoch: u32,
    mode: u8,
    other: u8,
    pad: [u8; 2],
    ifindex: u32,
}

/// State of a PU in version 2.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct PuV2 {
    slot: u32,
    epoch: u32,
    mode: u8,
    other: u8,
    fail: u8,
    flags: u8,
    ifindex: u32,
    fail_nanos: u64,
    incarnation: u64,
    own: [Own; 2],
}

/// A connection in version 1.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct ConnectionV1 {
    head: Head,
    tail: Tail,
}

/// A connection in version 2.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct ConnectionV2 {
    head: Head,
    syn_ack: u32,
    pad: u32,
    tail: Tail,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Head {
    epoch: u32,
    flags: u32,
    peer_slot: u32,
    peer_generation: u32,
    proof_seq: u32,
    fin_to: u32,
    attested_port: u16,
    attested_family: u8,
    role: u8,
    class: u8,
    pad: [u8; 3],
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Tail {
    attested_address: [u8; 16],
    proof_mac: [u8; 16],
    peer_token: [u8; 16],
    last_seen: u64,
    packets_from: u64,
    bytes_from: u64,
    packets_to: u64,
    bytes_to: u64,
}

/// States of PUs.
enum Pus {
    V1(Map<PuV1, 4, 16>),
    V2(Map<PuV2, 4, 112>),
}

/// Connections.
pub(super) enum Connections {
    V1(Map<ConnectionV1Bytes, 40, 120>),
    V2(Map<ConnectionV2Bytes, 40, 128>),
}

type ConnectionV1Bytes = [u8; 120];
type ConnectionV2Bytes = [u8; 128];

/// What can be read of a version.
pub(super) struct Tables {
    pus: Pus,
    edges: Map<EdgeRecord, 4, 256>,
    pub(super) connections: Connections,
    /// Connections that were closing, where they can be told.
    pub(super) closing: Option<Connections>,
}

impl Tables {
    /// Opens the pins of a version that [`shapes`] knows.
    pub(super) fn open(version: u32, directory: &Path) -> Result<Self, Cause> {
        let pinned = |name| pinned(directory, name);
        let edges = pinned("edges")?.table()?;
        if version == 1 {
            return Ok(Self {
                pus: Pus::V1(pinned("pus")?.table()?),
                edges,
                connections: Connections::V1(pinned("connections")?.table()?),
                closing: Some(Connections::V1(pinned("closing")?.table()?)),
            });
        }
        Ok(Self {
            pus: Pus::V2(pinned("pus")?.table()?),
            edges,
            connections: Connections::V2(pinned("connections")?.table()?),
            closing: None,
        })
    }

    /// True if the link's PU is recorded.
    pub(super) fn knows(&self, link: &str) -> bool {
        let slot = link.split('-').next().and_then(|slot| slot.parse::<u32>().ok());
        slot.is_some_and(|slot| self.edges.get(&slot.to_ne_bytes()).is_ok_and(|record| record.is_some()))
    }

    /// Where PUs are attached.
    pub(super) fn edges(&self) -> Result<Vec<([u8; 4], EdgeRecord)>, PlaneError> {
        self.edges.entries()
    }

    /// States of PUs, by their keys.
    pub(super) fn pus(&self) -> Result<Vec<(u32, Pu)>, PlaneError> {
        let mut all = Vec::new();
        match &self.pus {
            Pus::V1(pus) => pus.each(|key, pu| {
                all.push((u32::from_ne_bytes(*key), pu.to_new()));
                Ok(())
            })?,
            Pus::V2(pus) => pus.each(|key, pu| {
                all.push((u32::from_ne_bytes(*key), pu.to_new()));
                Ok(())
            })?,
        }
        Ok(all)
    }
}

impl Connections {
    /// Shows every connection with the slot of its PU, under its key of today.
    pub(super) fn each(
        &self,
        mut see: impl FnMut([u8; 4], &[u8; 40], &Connection) -> Result<(), PlaneError>,
    ) -> Result<(), PlaneError> {
        let mut show = |key: &[u8; 40], head: Head, syn_ack: u32, tail: Tail| {
            let slot = key.first_chunk().copied().unwrap_or_default();
            see(slot, &with_protocol(*key), &connection(head, syn_ack, tail))
        };
        match self {
            Self::V1(table) => table.each(|key, bytes| {
                let ConnectionV1 { head, tail } = zerocopy::transmute!(*bytes);
                show(key, head, 0, tail)
            }),
            Self::V2(table) => table.each(|key, bytes| {
                let ConnectionV2 { head, syn_ack, tail, .. } = zerocopy::transmute!(*bytes);
                show(key, head, syn_ack, tail)
            }),
        }
    }
}

/// Copies what version 2 knew of identities and had not told yet: its layouts are those of today.
pub(super) fn copy_knowledge(directory: &Path, maps: &mut Maps) -> Result<(), PlaneError> {
    let [events_0, events_1] = &mut maps.events;
    copy(directory, "own_tokens", &mut maps.own_tokens)?;
    copy(directory, "peers", &mut maps.peers)?;
    copy(directory, "pair_keys", &mut maps.pair_keys)?;
    copy(directory, "verdicts", &mut maps.verdicts)?;
    copy(directory, "destinations", &mut maps.destinations)?;
    copy(directory, "reasons", &mut maps.reasons)?;
    copy(directory, "events_0", events_0)?;
    copy(directory, "events_1", events_1)
}

/// What finds no room, the engine teaches again.
fn copy<T, const K: usize, const V: usize>(
    directory: &Path,
    name: &'static str,
    to: &mut Map<T, K, V>,
) -> Result<(), PlaneError>
where
    T: FromBytes + IntoBytes + Immutable + Copy,
{
    if !directory.join(name).exists() {
        return Ok(());
    }
    let failed = |source| PlaneError::Map { map: name, source };
    let from: Map<T, K, V> = pinned(directory, name).and_then(Named::table).map_err(failed)?;
    from.each(|key, value| match to.insert_new(key, value) {
        Err(PlaneError::Full { .. }) => Ok(()),
        result => result.map(drop),
    })
}

fn pinned(directory: &Path, name: &'static str) -> Result<Named, Cause> {
    let map = AyaMap::from_map_data(MapData::from_pin(directory.join(name))?)?;
    Ok(Named { name, map })
}

/// Older keys had only TCP, and no place for its number.
fn with_protocol(mut key: [u8; 40]) -> [u8; 40] {
    const TCP: u8 = 6;
    if let Some(protocol) = key.get_mut(3) {
        *protocol = TCP;
    }
    key
}

impl PuV1 {
    fn to_new(self) -> Pu {
        let Self { slot, epoch, mode, other, ifindex, .. } = self;
        Pu { slot, epoch, mode, other, ifindex, ..Pu::default() }
    }
}

impl PuV2 {
    fn to_new(self) -> Pu {
        let Self { slot, epoch, mode, other, fail, flags, ifindex, fail_nanos, incarnation, own } = self;
        Pu { slot, epoch, mode, other, fail, flags, ifindex, fail_nanos, incarnation, own, pad: [0; 2] }
    }
}

fn connection(head: Head, syn_ack: u32, tail: Tail) -> Connection {
    let Head { epoch, flags, peer_slot, peer_generation, proof_seq, fin_to, .. } = head;
    let Head { attested_port, attested_family, role, class, .. } = head;
    let Tail { attested_address, proof_mac, peer_token, last_seen, .. } = tail;
    let Tail { packets_from, bytes_from, packets_to, bytes_to, .. } = tail;
    Connection {
        epoch,
        flags,
        last_seen,
        packets_from,
        bytes_from,
        packets_to,
        bytes_to,
        proof_seq,
        fin_to,
        peer_slot,
        peer_generation,
        syn_ack,
        attested_port,
        attested_family,
        role,
        class,
        pad: [0; 7],
        attested_address,
        proof_mac,
        peer_token,
    }
}
