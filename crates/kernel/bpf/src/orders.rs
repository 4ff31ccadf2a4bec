//! What the programs' own table holds: read entry by entry, changed only by the program that takes orders.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::Map as AyaMap;
use trireme_bpf_abi::{self as abi, FlowKey, Order, entry_state, order_kind};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::batch::{Batched, Cursor, Reading};
use crate::error::Cause;
use crate::run::run;
use crate::{PlaneError, object};

/// Bytes of an Ethernet header, which the kernel wants in front of what a program is run on.
const ETHERNET: usize = 14;

/// Entries per call of the kernel.
const CHUNK: u32 = 256;

/// The lower bits of an entry's word, which say what it is.
const STATE: u64 = (1 << 24) - 1;

/// The way to the programs' own table.
pub(crate) struct Orders {
    program: OwnedFd,
    entries: Batched,
    seats: u32,
}

impl Orders {
    /// Finds what it needs in a loaded object.
    pub(crate) fn of(object: &mut Ebpf) -> Result<Self, Cause> {
        let program = object::program(object, "take_order")?.fd()?.as_fd().try_clone_to_owned()?;
        let map = object.map("entries").ok_or("the object has no map entries")?;
        let AyaMap::Array(data) = map else { return Err("map entries is no array".into()) };
        let seats = data.info()?.max_entries();
        Ok(Self { program, entries: Batched::new(data.fd().as_fd().try_clone_to_owned()?)?, seats })
    }

    /// The connection, if it is live and lies there; `edge` is the key of its unit's state.
    pub(crate) fn read(&self, edge: u32, key: FlowKey) -> Result<Option<abi::Connection>, PlaneError> {
        let (found, order) = self.give(Order { kind: order_kind::READ, edge, key, ..Order::default() })?;
        Ok((found > 0).then_some(order.held))
    }

    /// Has a connection forgotten there, because the map is to say what becomes of it; true if it was live.
    pub(crate) fn forget(&self, edge: u32, key: FlowKey) -> Result<bool, PlaneError> {
        let (found, _) = self.give(Order { kind: order_kind::YIELD, edge, key, ..Order::default() })?;
        Ok(found > 0)
    }

    /// Moves connections to the map that had no packet since `before`; returns how many live ones are left. Looking at
    /// the default number of entries takes about a millisecond.
    pub(crate) fn settle(&self, before: u64) -> Result<usize, PlaneError> {
        let order = Order { kind: order_kind::IDLE, count: self.seats, before, ..Order::default() };
        let (left, _) = self.give(order)?;
        Ok(usize::try_from(left).unwrap_or(0))
    }

    /// Has everything of a unit forgotten, which is named as in the keys of its connections.
    pub(crate) fn forget_unit(&self, unit: u32) -> Result<(), PlaneError> {
        let key = FlowKey { unit, ..FlowKey::default() };
        let order = Order { kind: order_kind::UNIT, count: self.seats, key, ..Order::default() };
        self.give(order).map(drop)
    }

    /// Tells the programs that connections are about to be written to the map for which they have nothing in their table.
    pub(crate) fn expect_settled(&self) -> Result<(), PlaneError> {
        self.give(Order { kind: order_kind::SETTLED, count: self.seats, ..Order::default() }).map(drop)
    }

    /// Shows every live connection.
    pub(crate) fn each(&self, mut see: impl FnMut(&FlowKey, &abi::Connection)) -> Result<(), PlaneError> {
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let slice = self.entries.read(Reading::Keep, from, CHUNK).map_err(failed)?;
            for bytes in slice.values.chunks(self.entries.value) {
                let Ok(entry) = abi::Entry::ref_from_bytes(bytes) else { continue };
                if entry.word & STATE == u64::from(entry_state::CONNECTION) {
                    see(&entry.key, &entry.connection);
                }
            }
            cursor = slice.next;
        }
        Ok(())
    }

    fn give(&self, order: Order) -> Result<(i32, Order), PlaneError> {
        let mut frame = vec![0; ETHERNET];
        frame.extend(order.as_bytes());
        let (verdict, frame) = run(self.program.as_fd(), &[], &frame, 0).map_err(failed)?;
        let answer = frame.get(ETHERNET..).and_then(|bytes| Order::read_from_bytes(bytes).ok());
        match answer {
            Some(answer) if verdict >= 0 => Ok((verdict, answer)),
            _ => Err(failed(io::Error::other("the program did not understand"))),
        }
    }
}

fn failed(source: io::Error) -> PlaneError {
    PlaneError::Map { map: "entries", source: source.into() }
}
