//! Typed access to the maps; keys and values are the bytes of the layouts.

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::util::nr_cpus;
use rustix::io::Errno;
use trireme_bpf_abi as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::error::Cause;
use crate::{CounterSet, PlaneError};

type Table<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;

/// All maps that user space works on.
pub(crate) struct Maps {
    pub(crate) pus: Map<abi::Pu, 4, 16>,
    pub(crate) edges: Map<abi::EdgeRecord, 4, 256>,
    pub(crate) limits: Map<abi::Limit, 8, 24>,
    pub(crate) connections: Map<abi::Connection, 40, 120>,
    pub(crate) closing: Map<abi::Connection, 40, 120>,
    pub(crate) counters: CounterMap,
    control: Array<MapData, u64>,
    pub(crate) ring_from: RingBuf<MapData>,
    pub(crate) ring_to: RingBuf<MapData>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, Cause> {
        let mut take = |name: &'static str| {
            object.take_map(name).ok_or_else(|| Cause::from(format!("the object has no map {name}")))
        };
        Ok(Self {
            pus: Map::new("pus", take("pus")?.try_into()?),
            edges: Map::new("edges", take("edges")?.try_into()?),
            limits: Map::new("limits", take("limits")?.try_into()?),
            connections: Map::new("connections", take("connections")?.try_into()?),
            closing: Map::new("closing", take("closing")?.try_into()?),
            counters: CounterMap { inner: take("counters")?.try_into()? },
            control: take("control")?.try_into()?,
            ring_from: take("ring_from")?.try_into()?,
            ring_to: take("ring_to")?.try_into()?,
        })
    }
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
        let failed = |error: MapError| PlaneError::Map { map: "control", source: error.into() };
        self.control.set(0, awake, 0).map_err(failed)
    }
}

/// A hash map with values of type `T`.
pub(crate) struct Map<T, const K: usize, const V: usize> {
    name: &'static str,
    inner: Table<K, V>,
    value: std::marker::PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + Copy, const K: usize, const V: usize> Map<T, K, V> {
    pub(crate) fn new(name: &'static str, inner: Table<K, V>) -> Self {
        const { assert!(size_of::<T>() == V) };
        Self { name, inner, value: std::marker::PhantomData }
    }

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
        let mut bytes = [0; V];
        for (to, from) in bytes.iter_mut().zip(value.as_bytes()) {
            *to = *from;
        }
        self.inner.insert(key, bytes, 0).map_err(|error| self.failed(error))
    }

    /// Removes the value; true if there was one.
    pub(crate) fn remove(&mut self, key: &[u8; K]) -> Result<bool, PlaneError> {
        match self.inner.remove(key) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(NOT_FOUND) => {
                Ok(false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// All keys, as of some moments.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Result<[u8; K], PlaneError>> + '_ {
        self.inner.keys().map(|key| key.map_err(|error| self.failed(error)))
    }

    fn failed(&self, error: MapError) -> PlaneError {
        let full = [Errno::TOOBIG.raw_os_error(), Errno::NOSPC.raw_os_error()];
        if let MapError::SyscallError(error) = &error
            && error.io_error.raw_os_error().is_some_and(|code| full.contains(&code))
        {
            return PlaneError::Full { map: self.name };
        }
        PlaneError::Map { map: self.name, source: error.into() }
    }
}

const NOT_FOUND: i32 = Errno::NOENT.raw_os_error();

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
        let cpus = nr_cpus().map_err(|(_, error)| failed(error))?;
        let zero = PerCpuValues::try_from(vec![[0; abi::COUNTERS]; cpus]).map_err(failed)?;
        self.inner.insert(slot, zero, 0).map_err(failed)
    }

    pub(crate) fn get(&self, slot: u32) -> Result<CounterSet, PlaneError> {
        let mut sum = CounterSet::default();
        match self.inner.get(&slot, 0) {
            Ok(values) => {
                values.iter().for_each(|cpu| sum.add(&transmute!(*cpu)));
                Ok(sum)
            }
            Err(MapError::KeyNotFound) => Ok(sum),
            Err(error) => Err(failed(error)),
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Result<(), PlaneError> {
        match self.inner.remove(&slot) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(NOT_FOUND) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: impl Into<Cause>) -> PlaneError {
    PlaneError::Map { map: "counters", source: error.into() }
}
