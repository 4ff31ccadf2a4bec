//! Typed access to the maps; keys and values are the bytes of the layouts.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map as AyaMap, MapData, MapError, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::util::nr_cpus;
use rustix::io::Errno;
use trireme_bpf_abi as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::batch::{Batched, Cursor, Reading};
use crate::error::Cause;
use crate::{CounterSet, PlaneError};

/// Entries per call where a whole map is read.
const CHUNK: u32 = 1024;

/// All maps that user space works on.
pub(crate) struct Maps {
    pub(crate) pus: Map<abi::Pu, 4, 104>,
    pub(crate) edges: Map<abi::EdgeRecord, 4, 256>,
    pub(crate) limits: Map<abi::Limit, 8, 24>,
    pub(crate) quotas: Map<abi::Quota, 8, 32>,
    pub(crate) connections: Map<abi::Connection, 40, 128>,
    pub(crate) closing: Map<abi::Connection, 40, 128>,
    pub(crate) own_tokens: Map<abi::OwnToken, 16, 1088>,
    pub(crate) peers: Map<abi::Peer, 16, 64>,
    pub(crate) pair_keys: Map<abi::Pair, 40, 32>,
    pub(crate) verdicts: Map<abi::Verdict, 12, 12>,
    pub(crate) destinations: Map<abi::Destination, 24, 40>,
    pub(crate) refusals: Map<abi::Refusal, 24, 24>,
    pub(crate) opening: Map<abi::Opening, 40, 168>,
    pub(crate) answering: Map<abi::Answering, 48, 160>,
    pub(crate) events: [Map<abi::Event, 52, 72>; 2],
    pub(crate) reasons: Map<u64, 8, 8>,
    pub(crate) counters: CounterMap,
    control: Array<MapData, u64>,
    clock: Array<MapData, [u8; 24]>,
    pub(crate) ring_from: RingBuf<MapData>,
    pub(crate) ring_to: RingBuf<MapData>,
    pub(crate) ring_unknown: RingBuf<MapData>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, Cause> {
        let mut take = |name: &'static str| {
            let map = object.take_map(name).ok_or_else(|| format!("the object has no map {name}"))?;
            Ok::<_, Cause>(Named { name, map })
        };
        Ok(Self {
            pus: take("pus")?.table()?,
            edges: take("edges")?.table()?,
            limits: take("limits")?.table()?,
            quotas: take("quotas")?.table()?,
            connections: take("connections")?.table()?,
            closing: take("closing")?.table()?,
            own_tokens: take("own_tokens")?.table()?,
            peers: take("peers")?.table()?,
            pair_keys: take("pair_keys")?.table()?,
            verdicts: take("verdicts")?.table()?,
            destinations: take("destinations")?.table()?,
            refusals: take("refusals")?.table()?,
            opening: take("opening")?.table()?,
            answering: take("answering")?.table()?,
            events: [take("events_0")?.table()?, take("events_1")?.table()?],
            reasons: take("reasons")?.table()?,
            counters: CounterMap { inner: take("counters")?.map.try_into()? },
            control: take("control")?.map.try_into()?,
            clock: take("clock")?.map.try_into()?,
            ring_from: take("ring_from")?.map.try_into()?,
            ring_to: take("ring_to")?.map.try_into()?,
            ring_unknown: take("ring_unknown")?.map.try_into()?,
        })
    }
}

/// A map on its way into a typed form.
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) map: AyaMap,
}

impl Named {
    /// The map as a table; refused if its type or sizes differ.
    pub(crate) fn table<T, const K: usize, const V: usize>(self) -> Result<Map<T, K, V>, Cause>
    where
        T: FromBytes + IntoBytes + Immutable + Copy,
    {
        const { assert!(size_of::<T>() == V) };
        let (AyaMap::HashMap(data) | AyaMap::LruHashMap(data)) = &self.map else {
            return Err(format!("map {} is no hash map", self.name).into());
        };
        let batched = Batched::new(data.fd().as_fd().try_clone_to_owned()?)?;
        if (batched.key, batched.value) != (K, V) {
            return Err(format!("map {} has other sizes", self.name).into());
        }
        let inner = self.map.try_into()?;
        Ok(Map { name: self.name, inner, batched, value: std::marker::PhantomData })
    }
}

/// Some entries of a map.
pub(crate) struct Entries<T, const K: usize> {
    pub(crate) entries: Vec<([u8; K], T)>,
    /// None at the end of the map.
    pub(crate) next: Option<Cursor>,
}

/// Whether the programs have to wake user space.
#[derive(Clone, Copy)]
pub(crate) enum Attention {
    /// It looks at the rings before it sleeps.
    Awake,
    /// It sleeps, or is about to.
    Asleep,
}

impl Maps {
    /// Tells the programs.
    pub(crate) fn set_attention(&mut self, attention: Attention) -> Result<(), PlaneError> {
        let awake = match attention {
            Attention::Awake => 1,
            Attention::Asleep => 0,
        };
        self.control.set(0, awake, 0).map_err(|error| failed("control", error))
    }

    /// Returns what the programs know about time.
    pub(crate) fn clock(&self) -> Result<abi::Clock, PlaneError> {
        let bytes = self.clock.get(&0, 0).map_err(|error| failed("clock", error))?;
        Ok(transmute!(bytes))
    }

    /// Tells the programs the time.
    pub(crate) fn set_clock(&mut self, clock: abi::Clock) -> Result<(), PlaneError> {
        let bytes: [u8; 24] = transmute!(clock);
        self.clock.set(0, bytes, 0).map_err(|error| failed("clock", error))
    }
}

/// A hash map with values of type `T`.
pub(crate) struct Map<T, const K: usize, const V: usize> {
    name: &'static str,
    inner: HashMap<MapData, [u8; K], [u8; V]>,
    batched: Batched,
    value: std::marker::PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy, const K: usize, const V: usize> Map<T, K, V> {
    /// Returns the value, None if there is none.
    pub(crate) fn get(&self, key: &[u8; K]) -> Result<Option<T>, PlaneError> {
        match self.inner.get(key, 0) {
            Ok(bytes) => Ok(T::read_from_bytes(&bytes).ok()),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes the value, new or not.
    pub(crate) fn insert(&mut self, key: &[u8; K], value: &T) -> Result<(), PlaneError> {
        self.write(key, value, 0).map_err(|error| self.failed(error))
    }

    /// Writes the value unless there is one; true if it was written.
    pub(crate) fn insert_new(&mut self, key: &[u8; K], value: &T) -> Result<bool, PlaneError> {
        const NOEXIST: u64 = 1;
        match self.write(key, value, NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if code(&error) == Some(Errno::EXIST.raw_os_error()) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Removes the value; true if there was one.
    pub(crate) fn remove(&mut self, key: &[u8; K]) -> Result<bool, PlaneError> {
        match self.inner.remove(key) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Some entries, about `wanted`.
    pub(crate) fn slice(
        &self,
        reading: Reading,
        cursor: Cursor,
        wanted: u32,
    ) -> Result<Entries<T, K>, PlaneError> {
        let slice = self
            .batched
            .read(reading, cursor, wanted)
            .map_err(|source| PlaneError::Map { map: self.name, source: source.into() })?;
        let (keys, values) = (slice.keys.as_chunks::<K>().0, slice.values.as_chunks::<V>().0);
        let entries = keys.iter().zip(values).filter_map(|(k, v)| Some((*k, T::read_from_bytes(v).ok()?)));
        Ok(Entries { entries: entries.collect(), next: slice.next })
    }

    /// All entries; those that come and go meanwhile may be missing.
    pub(crate) fn entries(&self) -> Result<Vec<([u8; K], T)>, PlaneError> {
        let mut all = Vec::new();
        self.walk(|key, value| all.push((*key, *value)))?;
        Ok(all)
    }

    /// Number of entries, counted one by one.
    pub(crate) fn count(&self) -> Result<usize, PlaneError> {
        let mut count = 0;
        self.walk(|_, _| count += 1)?;
        Ok(count)
    }

    /// Removes the entries whose key `unwanted` accepts.
    pub(crate) fn forget(&mut self, unwanted: impl Fn(&[u8; K]) -> bool) -> Result<(), PlaneError> {
        let mut keys = Vec::new();
        self.walk(|key, _| keys.extend(unwanted(key).then_some(*key)))?;
        keys.iter().try_for_each(|key| self.remove(key).map(drop))
    }

    fn walk(&self, mut see: impl FnMut(&[u8; K], &T)) -> Result<(), PlaneError> {
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let slice = self.slice(Reading::Keep, from, CHUNK)?;
            slice.entries.iter().for_each(|(key, value)| see(key, value));
            cursor = slice.next;
        }
        Ok(())
    }

    fn write(&mut self, key: &[u8; K], value: &T, flags: u64) -> Result<(), MapError> {
        let mut bytes = [0; V];
        for (to, from) in bytes.iter_mut().zip(value.as_bytes()) {
            *to = *from;
        }
        self.inner.insert(key, bytes, flags)
    }

    fn failed(&self, error: MapError) -> PlaneError {
        let full = [Errno::TOOBIG, Errno::NOSPC].map(Errno::raw_os_error);
        if code(&error).is_some_and(|code| full.contains(&code)) {
            return PlaneError::Full { map: self.name };
        }
        failed(self.name, error)
    }
}

/// The per-CPU counters.
pub(crate) struct CounterMap {
    inner: PerCpuHashMap<MapData, u32, [u64; abi::COUNTERS]>,
}

impl CounterMap {
    /// Sets all counters of a slot to zero, on all CPUs, unless it has some.
    pub(crate) fn ensure(&mut self, slot: u32) -> Result<(), PlaneError> {
        if self.inner.get(&slot, 0).is_ok() {
            return Ok(());
        }
        let cpus = nr_cpus().map_err(|(_, error)| failed("counters", error))?;
        let zero = PerCpuValues::try_from(vec![[0; abi::COUNTERS]; cpus])
            .map_err(|error| failed("counters", error))?;
        self.inner.insert(slot, zero, 0).map_err(|error| failed("counters", error))
    }

    pub(crate) fn get(&self, slot: u32) -> Result<CounterSet, PlaneError> {
        let mut sum = CounterSet::default();
        match self.inner.get(&slot, 0) {
            Ok(values) => {
                values.iter().for_each(|cpu| sum.add(&transmute!(*cpu)));
                Ok(sum)
            }
            Err(MapError::KeyNotFound) => Ok(sum),
            Err(error) => Err(failed("counters", error)),
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Result<(), PlaneError> {
        match self.inner.remove(&slot) {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed("counters", error)),
        }
    }
}

fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || code(error) == Some(Errno::NOENT.raw_os_error())
}

fn code(error: &MapError) -> Option<i32> {
    let MapError::SyscallError(error) = error else { return None };
    error.io_error.raw_os_error()
}

fn failed(map: &'static str, error: impl Into<Cause>) -> PlaneError {
    PlaneError::Map { map, source: error.into() }
}
