//! What every map must be; pins of anything else are not ours.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use aya::maps::{MapData, MapType};

use crate::{OpenError, sys};

/// Type and sizes of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) kind: MapType,
    pub(crate) key: u32,
    pub(crate) value: u32,
}

const fn hash(name: &'static str, key: u32, value: u32) -> Shape {
    Shape { name, kind: MapType::Hash, key, value }
}

const fn lru(name: &'static str, key: u32, value: u32) -> Shape {
    Shape { name, kind: MapType::LruHash, key, value }
}

const fn array(name: &'static str, value: u32) -> Shape {
    Shape { name, kind: MapType::Array, key: 4, value }
}

const fn ring(name: &'static str) -> Shape {
    Shape { name, kind: MapType::RingBuf, key: 0, value: 0 }
}

/// All maps of this ABI version.
pub(crate) const SHAPES: [Shape; 27] = [
    hash("pus", 4, 128),
    hash("edges", 4, 256),
    array("near", 128),
    array("limits", 24),
    array("quotas", 32),
    hash("connections", 40, 128),
    hash("own_tokens", 16, 1088),
    hash("peers", 16, 64),
    lru("pair_keys", 40, 32),
    lru("verdicts", 12, 12),
    lru("destinations", 24, 40),
    lru("refusals", 24, 24),
    array("buckets", 64),
    array("entries", 320),
    array("seats", 8),
    hash("events_0", 52, 72),
    hash("events_1", 52, 72),
    hash("reasons", 8, 8),
    Shape { name: "counters", kind: MapType::PerCpuArray, key: 4, value: 256 },
    Shape { name: "turns_of", kind: MapType::PerCpuArray, key: 4, value: 16 },
    array("sources", 16),
    array("control", 8),
    array("clock", 24),
    array("tickets", 8),
    ring("ring_from"),
    ring("ring_to"),
    ring("ring_unknown"),
];

/// Refuses pins of maps that are somebody else's; those that are absent are made later.
pub(crate) fn check(maps: &Path, shapes: &[Shape]) -> Result<(), OpenError> {
    for shape in shapes {
        let path = maps.join(shape.name);
        let failed = |source: io::Error| OpenError::Pins { path: path.clone(), source };
        if !fs::exists(&path).map_err(failed)? {
            continue;
        }
        let pinned = sys::open(&path).map_err(failed)?;
        let found = describe(pinned).map_err(failed)?;
        let wanted = text(shape.kind, shape.key, shape.value);
        if found != wanted {
            return Err(OpenError::Foreign { path, found, wanted });
        }
    }
    Ok(())
}

/// What lies behind a descriptor of bpf(), in words.
pub(crate) fn describe(object: OwnedFd) -> io::Result<String> {
    let link = fs::read_link(format!("/proc/self/fd/{}", object.as_fd().as_raw_fd()))?;
    match link.to_string_lossy().rsplit_once("bpf") {
        Some((_, "-map")) => {}
        Some((_, "-prog")) => return Ok("a program".to_owned()),
        Some((_, "_link" | "-link")) => return Ok("a link".to_owned()),
        _ => return Ok("something else".to_owned()),
    }
    let info = MapData::from_fd(object).and_then(|map| map.info()).map_err(io::Error::other)?;
    match info.map_type() {
        Ok(kind) => Ok(text(kind, info.key_size(), info.value_size())),
        Err(_) => Ok("a map of an unknown type".to_owned()),
    }
}

fn text(kind: MapType, key: u32, value: u32) -> String {
    format!("a map of type {kind:?} with keys of {key} and values of {value} bytes")
}
