//! Reading maps many entries at a time.

#![expect(unsafe_code, reason = "the loader has no batch operations")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::maps::{MapData, MapType};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sys::{self, Attributes, address, address_mut};

const LOOKUP_BATCH: libc::c_long = 24;
const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;

/// Most entries of one bucket that are believed in; the kernel says when a bucket has more than asked for.
const LARGEST: u32 = 1 << 20;

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

impl Attributes for BatchAttributes {}

/// What happens to entries that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// They stay.
    Keep,
    /// They are removed.
    Take,
}

/// Where a walk over a map goes on; the start by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor(Option<u32>);

/// Some entries of a map, as bytes.
pub(crate) struct Slice {
    pub(crate) keys: Vec<u8>,
    pub(crate) values: Vec<u8>,
    /// None at the end of the map.
    pub(crate) next: Option<Cursor>,
}

/// A hash map, LRU or not, or an array; none per CPU.
pub(crate) struct Batched {
    map: MapData,
    pub(crate) key: usize,
    pub(crate) value: usize,
}

impl Batched {
    /// Asks the kernel what the map is; refuses any other kind.
    pub(crate) fn new(map: OwnedFd) -> io::Result<Self> {
        let map = MapData::from_fd(map).map_err(io::Error::other)?;
        let info = map.info().map_err(io::Error::other)?;
        if !matches!(info.map_type(), Ok(MapType::Hash | MapType::LruHash | MapType::Array)) {
            return Err(io::Error::other("no map whose entries can be read together"));
        }
        let size = |size: u32| usize::try_from(size).map_err(io::Error::other);
        Ok(Self { key: size(info.key_size())?, value: size(info.value_size())?, map })
    }

    /// Reads some entries, about `wanted`, from `cursor` on.
    ///
    /// Entries that come, go or move meanwhile may be missing, none is there twice.
    pub(crate) fn read(&self, reading: Reading, cursor: Cursor, wanted: u32) -> io::Result<Slice> {
        let mut wanted = wanted.max(1);
        loop {
            match self.read_once(reading, cursor, wanted) {
                // A single bucket has more.
                Err(error) if is(&error, Errno::NOSPC) && wanted < LARGEST => wanted *= 2,
                Err(error) if is(&error, Errno::INTR) || is(&error, Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    fn read_once(&self, reading: Reading, cursor: Cursor, wanted: u32) -> io::Result<Slice> {
        let room = usize::try_from(wanted).map_err(io::Error::other)?;
        let mut keys = vec![0_u8; room * self.key];
        let mut values = vec![0_u8; room * self.value];
        let from = [cursor.0.unwrap_or(0)];
        let mut to = [0_u32; 1];
        let mut attributes = BatchAttributes {
            in_batch: cursor.0.map_or(0, |_| address(&from)),
            out_batch: address_mut(&mut to),
            keys: address_mut(&mut keys),
            values: address_mut(&mut values),
            count: wanted,
            map: u32::try_from(self.map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX),
            element_flags: 0,
            flags: 0,
        };
        let command = match reading {
            Reading::Keep => LOOKUP_BATCH,
            Reading::Take => LOOKUP_AND_DELETE_BATCH,
        };
        // SAFETY: the kernel writes at most `count` keys and values of the sizes that it named itself, which is what
        // `keys` and `values` have room for, as the map is no per-CPU map; the cursor of a hash map is the 4 bytes of
        // `from` and `to`. All of them outlive the call, and any bytes are a value of theirs.
        let result = unsafe { sys::bpf(command, &mut attributes) };
        let next = match result {
            Ok(_) => Some(Cursor(to.first().copied())),
            Err(error) if is(&error, Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        let count = usize::try_from(attributes.count).unwrap_or(0);
        keys.truncate(count * self.key);
        values.truncate(count * self.value);
        Ok(Slice { keys, values, next })
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
