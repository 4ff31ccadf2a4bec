//! Typed access to the maps; keys and values are the bytes of the layouts.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map as AyaMap, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use aya::util::nr_cpus;
use rustix::io::Errno;
use trireme_bpf_abi as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::batch::{Batched, Cursor, Reading};
use crate::error::Cause;
use crate::{CounterSet, PlaneError, random};

/// Entries per call where a whole map is read.
const CHUNK: u32 = 1024;

/// All maps that user space works on.
pub(crate) struct Maps {
    pub(crate) pus: Map<abi::Pu, 4, 128>,
    pub(crate) near: Places<abi::Pu, 128>,
    pub(crate) edges: Map<abi::EdgeRecord, 4, 256>,
    pub(crate) limits: Places<abi::Limit, 24>,
    pub(crate) quotas: Places<abi::Quota, 32>,
    pub(crate) connections: Map<abi::Connection, 40, 128>,
    pub(crate) own_tokens: Map<abi::OwnToken, 16, 1088>,
    pub(crate) peers: Map<abi::Peer, 16, 64>,
    pub(crate) pair_keys: Map<abi::Pair, 40, 32>,
    pub(crate) verdicts: Map<abi::Verdict, 12, 12>,
    pub(crate) destinations: Map<abi::Destination, 24, 40>,
    pub(crate) refusals: Map<abi::Refusal, 24, 24>,
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
            near: take("near")?.places()?,
            limits: take("limits")?.places()?,
            quotas: take("quotas")?.places()?,
            connections: take("connections")?.table()?,
            own_tokens: take("own_tokens")?.table()?,
            peers: take("peers")?.table()?,
            pair_keys: take("pair_keys")?.table()?,
            verdicts: take("verdicts")?.table()?,
            destinations: take("destinations")?.table()?,
            refusals: take("refusals")?.table()?,
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

    /// The map as an array.
    fn places<T, const V: usize>(self) -> Result<Places<T, V>, Cause> {
        const { assert!(size_of::<T>() == V) };
        Ok(Places { name: self.name, inner: self.map.try_into()?, value: std::marker::PhantomData })
    }
}

/// An array with values of type `T`.
pub(crate) struct Places<T, const V: usize> {
    name: &'static str,
    inner: Array<MapData, [u8; V]>,
    value: std::marker::PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy, const V: usize> Places<T, V> {
    /// Returns the value at a place; None beyond the end.
    pub(crate) fn get(&self, place: u32) -> Result<Option<T>, PlaneError> {
        match self.inner.get(&place, 0) {
            Ok(bytes) => Ok(T::read_from_bytes(&bytes).ok()),
            Err(MapError::OutOfBounds { .. }) => Ok(None),
            Err(error) => Err(failed(self.name, error)),
        }
    }

    /// Writes the value at a place.
    pub(crate) fn set(&mut self, place: u32, value: &T) -> Result<(), PlaneError> {
        match self.inner.set(place, bytes_of(value), 0) {
            Ok(()) => Ok(()),
            Err(MapError::OutOfBounds { .. }) => Err(PlaneError::Full { map: self.name }),
            Err(error) => Err(failed(self.name, error)),
        }
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

impl Maps {
    /// Writes the state of a PU; who gets a slot anew gets another incarnation.
    pub(crate) fn write_pu(&mut self, key: u32, pu: &abi::Pu) -> Result<(), PlaneError> {
        let held =
            self.pus.get(&key.to_ne_bytes())?.filter(|held| held.slot == pu.slot && held.incarnation != 0);
        let incarnation = match held {
            Some(held) => held.incarnation,
            None => draw("pus")?,
        };
        let pu = abi::Pu { incarnation, ..*pu };
        self.pus.insert(&key.to_ne_bytes(), &pu)?;
        // Only a PU found by its interface index, and one of those that share its low bits.
        let place = key % abi::NEAR;
        let other = self.near.get(place)?.is_some_and(|near| near.ifindex != 0 && near.ifindex != key);
        if pu.ifindex == key && !other { self.near.set(place, &pu) } else { Ok(()) }
    }

    /// True if the programs find this state, whatever its incarnation.
    pub(crate) fn has_pu(&self, key: u32, wanted: &abi::Pu) -> bool {
        let same = |found: abi::Pu| abi::Pu { incarnation: 0, ..found } == *wanted;
        let near = self.near.get(key % abi::NEAR).ok().flatten().filter(|near| near.ifindex == key);
        self.pus.get(&key.to_ne_bytes()).is_ok_and(|found| found.is_some_and(same)) && near.is_none_or(same)
    }

    /// Removes the state of a PU.
    pub(crate) fn remove_pu(&mut self, key: u32) -> Result<(), PlaneError> {
        let place = key % abi::NEAR;
        if self.near.get(place)?.is_some_and(|near| near.ifindex == key) {
            self.near.set(place, &abi::Pu::default())?;
        }
        self.pus.remove(&key.to_ne_bytes()).map(drop)
    }
}

/// A number that nobody can foresee, never zero.
fn draw(map: &'static str) -> Result<u64, PlaneError> {
    let mut number = 0_u64;
    random::fill(number.as_mut_bytes()).map_err(|error| failed(map, error))?;
    Ok(number.max(1))
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
        self.each(|key, value| {
            all.push((*key, *value));
            Ok(())
        })?;
        Ok(all)
    }

    /// Number of entries, counted one by one.
    pub(crate) fn count(&self) -> Result<usize, PlaneError> {
        let mut count = 0;
        self.each(|_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Removes the entries whose key `unwanted` accepts.
    pub(crate) fn forget(&mut self, unwanted: impl Fn(&[u8; K]) -> bool) -> Result<(), PlaneError> {
        let mut keys = Vec::new();
        self.each(|key, _| {
            keys.extend(unwanted(key).then_some(*key));
            Ok(())
        })?;
        keys.iter().try_for_each(|key| self.remove(key).map(drop))
    }

    /// Shows every entry, some at a time.
    pub(crate) fn each(
        &self,
        mut see: impl FnMut(&[u8; K], &T) -> Result<(), PlaneError>,
    ) -> Result<(), PlaneError> {
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let slice = self.slice(Reading::Keep, from, CHUNK)?;
            slice.entries.iter().try_for_each(|(key, value)| see(key, value))?;
            cursor = slice.next;
        }
        Ok(())
    }

    fn write(&mut self, key: &[u8; K], value: &T, flags: u64) -> Result<(), MapError> {
        self.inner.insert(key, bytes_of(value), flags)
    }

    fn failed(&self, error: MapError) -> PlaneError {
        let full = [Errno::TOOBIG, Errno::NOSPC].map(Errno::raw_os_error);
        if code(&error).is_some_and(|code| full.contains(&code)) {
            return PlaneError::Full { map: self.name };
        }
        failed(self.name, error)
    }
}

/// The bytes of a value; `V` is its size, which whoever made the map has checked.
fn bytes_of<T: IntoBytes + Immutable, const V: usize>(value: &T) -> [u8; V] {
    let mut bytes = [0; V];
    for (to, from) in bytes.iter_mut().zip(value.as_bytes()) {
        *to = *from;
    }
    bytes
}

/// The per-CPU counters, by slot plus one.
pub(crate) struct CounterMap {
    inner: PerCpuArray<MapData, [u64; abi::COUNTERS]>,
}

impl CounterMap {
    pub(crate) fn get(&self, slot: u32) -> Result<CounterSet, PlaneError> {
        let mut sum = CounterSet::default();
        let values = self.inner.get(&slot.wrapping_add(1), 0).map_err(|error| failed("counters", error))?;
        values.iter().for_each(|cpu| sum.add(&transmute!(*cpu)));
        Ok(sum)
    }

    /// Sets all counters of a slot to zero, on all CPUs.
    pub(crate) fn clear(&mut self, slot: u32) -> Result<(), PlaneError> {
        let cpus = nr_cpus().map_err(|(_, error)| failed("counters", error))?;
        let zero = PerCpuValues::try_from(vec![[0; abi::COUNTERS]; cpus])
            .map_err(|error| failed("counters", error))?;
        self.inner.set(slot.wrapping_add(1), zero, 0).map_err(|error| failed("counters", error))
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
