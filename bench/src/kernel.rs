//! The pinned maps of one agent: counters read, entries of many peers and connections written.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use trireme_bpf_abi::{
    COUNTERS, Connection, Counter, Destination, DestinationKey, FlowKey, Pair, PairKey, Peer, Pu, Verdict,
    VerdictKey, connection_flag,
};
use trireme_testkit::lab::Side;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::bed::Bed;

/// Places in the engine's peer table are given from below; the invented ones lie far above.
const FIRST_PLACE: u32 = 1 << 24;

/// The maps of the agent of one node.
pub(crate) struct Maps {
    dir: PathBuf,
}

impl Maps {
    /// Finds the pins.
    pub(crate) fn of(bed: &Bed, side: Side) -> anyhow::Result<Self> {
        let instance = bed.lab.bpffs().join("trireme").join(format!("lab-{}-{side}", bed.lab.id()));
        let versions = fs::read_dir(&instance).with_context(|| format!("reading {}", instance.display()))?;
        let dir = versions
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join("connections").exists())
            .with_context(|| format!("no maps below {}", instance.display()))?;
        Ok(Self { dir })
    }

    /// The sum of one counter over all units.
    pub(crate) fn count(&self, counters: &[Counter]) -> anyhow::Result<u64> {
        let map = self.open("counters")?;
        let map = PerCpuArray::<_, [u64; COUNTERS]>::try_from(map).context("opening the counters")?;
        let mut sum = 0;
        for slot in 0..map.len() {
            let values = map.get(&slot, 0).context("reading the counters")?;
            let places = counters.iter().map(|counter| counter.index());
            sum += places.flat_map(|place| values.iter().filter_map(move |cpu| cpu.get(place))).sum::<u64>();
        }
        Ok(sum)
    }

    /// Packets of all units that went to user space.
    pub(crate) fn punts(&self) -> anyhow::Result<u64> {
        self.count(&[Counter::PuntedFrom, Counter::PuntedTo])
    }

    /// Invents peers that every unit has met: their keys, a verdict in each direction, an address they are found at.
    pub(crate) fn insert_peers(&self, count: u32) -> anyhow::Result<()> {
        let units = self.units()?;
        let [own, _] = units.first().context("no unit is attached")?.own;
        let (own_key, own_token) = (own.key, own.token);
        let mut peers = self.hash::<16, { size_of::<Peer>() }>("peers")?;
        let mut pairs = self.hash::<40, { size_of::<Pair>() }>("pair_keys")?;
        let mut verdicts = self.hash::<12, { size_of::<Verdict>() }>("verdicts")?;
        let mut destinations = self.hash::<24, { size_of::<Destination>() }>("destinations")?;
        for number in 0..count {
            let name = invented(number);
            let unit = units.get(number as usize % units.len()).copied().unwrap_or_default();
            let place = FIRST_PLACE + number;
            let peer =
                Peer { slot: place, generation: 1, until: u64::MAX, key: name, own_key, tried_key: own_key };
            peers.insert(name, bytes(&peer), 0).context("inserting a peer")?;
            for role in [0, 1] {
                let key = PairKey { own: own_key, peer: name, role, pad: 0 };
                let pair = Pair { initiator: name, responder: invented(!number) };
                pairs.insert(bytes::<_, 40>(&key), bytes(&pair), 0).context("inserting a pair of keys")?;
            }
            for direction in [0, 1] {
                let port = 9000_u16.to_be_bytes();
                let key = VerdictKey { slot: unit.slot, peer_slot: place, port, direction, protocol: 6 };
                let verdict = Verdict { epoch: unit.epoch, generation: 1, rule: 1, reason: 0 };
                verdicts.insert(bytes::<_, 12>(&key), bytes(&verdict), 0).context("inserting a verdict")?;
            }
            let key = DestinationKey { slot: unit.slot, port: [0x23, 0x28], pad: 0, address: name };
            let destination = Destination { epoch: unit.epoch, pad: 0, peer: name, own_token };
            destinations
                .insert(bytes::<_, 24>(&key), bytes(&destination), 0)
                .context("inserting a destination")?;
        }
        Ok(())
    }

    /// Invents connections that were just active.
    pub(crate) fn insert_connections(&self, count: u32) -> anyhow::Result<()> {
        let units = self.units()?;
        let mut connections = self.hash::<40, { size_of::<Connection>() }>("connections")?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000;
        for number in 0..count {
            let unit = units.get(number as usize % units.len()).copied().unwrap_or_default();
            let key = FlowKey {
                unit: unit.slot | 6 << trireme_bpf_abi::SLOT_BITS,
                local_port: [0x23, 0x28],
                remote_port: [0x80, 0],
                local: invented(u32::MAX),
                remote: invented(number),
            };
            let value = Connection {
                epoch: unit.epoch,
                flags: connection_flag::CONFIRMED,
                role: 1,
                last_seen: now,
                ..Connection::default()
            };
            connections
                .insert(bytes::<_, 40>(&key), bytes(&value), 0)
                .with_context(|| format!("inserting connection {number}"))?;
        }
        Ok(())
    }

    /// The newest token of each unit.
    pub(crate) fn newest_tokens(&self) -> anyhow::Result<Vec<[u8; 16]>> {
        Ok(self.units()?.iter().map(|unit| unit.own[0].token).collect())
    }

    fn units(&self) -> anyhow::Result<Vec<Pu>> {
        let pus = self.hash::<4, { size_of::<Pu>() }>("pus")?;
        let units: Vec<Pu> =
            pus.iter().flatten().filter_map(|(_, value)| Pu::read_from_bytes(&value).ok()).collect();
        ensure!(!units.is_empty(), "no unit is attached");
        Ok(units)
    }

    fn hash<const K: usize, const V: usize>(
        &self,
        name: &str,
    ) -> anyhow::Result<HashMap<MapData, [u8; K], [u8; V]>> {
        HashMap::try_from(self.open(name)?).with_context(|| format!("opening map {name}"))
    }

    fn open(&self, name: &str) -> anyhow::Result<Map> {
        let path = self.dir.join(name);
        let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        Map::from_map_data(data).with_context(|| format!("opening {}", path.display()))
    }
}

/// Sixteen bytes that no real key or token has.
fn invented(number: u32) -> [u8; 16] {
    let mut name = [0xbe; 16];
    for (to, from) in name.iter_mut().zip(number.wrapping_mul(0x9e37_79b1).to_le_bytes()) {
        *to = from;
    }
    for (to, from) in name.iter_mut().rev().zip(number.to_be_bytes()) {
        *to = from;
    }
    name
}

/// The bytes of a map's key or value; zeros if the lengths differ, which the kernel would refuse anyway.
fn bytes<T: IntoBytes + Immutable, const N: usize>(value: &T) -> [u8; N] {
    value.as_bytes().try_into().unwrap_or([0; N])
}
