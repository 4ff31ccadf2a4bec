//! The BPF object and its loading.

use std::fs;
use std::path::Path;

use aya::maps::{MapInfo, MapType};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

use crate::error::Cause;
use crate::pins::Pins;
use crate::{OpenError, Sizes};

/// The object with the alignment an ELF reader needs.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/trireme.bpf.o")));

/// What is set in a copy of the object before it is loaded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Constants {
    /// See `edge_key` in maps.h.
    pub(crate) edge_key: u32,
    /// See `inject_secret` in maps.h.
    pub(crate) secret: [u64; 2],
}

/// Loads a copy of the object over the pinned maps; programs are loaded one by one with [`program`].
pub(crate) fn load(pins: &Pins, sizes: &Sizes, constants: Constants) -> Result<Ebpf, Cause> {
    let mut loader = EbpfLoader::new();
    loader.btf(None).verifier_log_level(VerifierLogLevel::DISABLE).default_map_pin_directory(pins.maps());
    for (name, wanted) in map_sizes(sizes) {
        loader.map_max_entries(name, pinned_size(&pins.maps().join(name)).unwrap_or(wanted));
    }
    loader.override_global("edge_key", &constants.edge_key, true);
    loader.override_global("inject_secret", &constants.secret, true);
    Ok(loader.load(&OBJECT.0)?)
}

/// Loads one program of a copy of the object.
pub(crate) fn program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Cause> {
    let program = object.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}

/// Refuses sizes that the kernel would refuse later or silently change.
pub(crate) fn check_sizes(sizes: &Sizes) -> Result<(), OpenError> {
    let Sizes { pus, connections, closing, ring_bytes } = *sizes;
    for (field, value) in [("pus", pus), ("connections", connections), ("closing", closing)] {
        if value == 0 || value > 1 << 24 {
            return Err(OpenError::Size { field, must: "1 to 16,777,216" });
        }
    }
    if !ring_bytes.is_power_of_two() || !(1 << 17..=1 << 30).contains(&ring_bytes) {
        return Err(OpenError::Size { field: "ring_bytes", must: "a power of two from 128 KiB to 1 GiB" });
    }
    Ok(())
}

fn map_sizes(sizes: &Sizes) -> [(&'static str, u32); 8] {
    [
        ("pus", sizes.pus),
        ("edges", sizes.pus),
        // One more for what belongs to no PU.
        ("counters", sizes.pus.saturating_add(1)),
        ("limits", sizes.pus.saturating_mul(3)),
        ("connections", sizes.connections),
        ("closing", sizes.closing),
        ("ring_from", sizes.ring_bytes),
        ("ring_to", sizes.ring_bytes),
    ]
}

/// Size of a map that is pinned already.
fn pinned_size(path: &Path) -> Option<u32> {
    if !fs::exists(path).ok()? {
        return None;
    }
    let info = MapInfo::from_pin(path).ok()?;
    (info.map_type().ok()? != MapType::Unspecified).then(|| info.max_entries())
}
