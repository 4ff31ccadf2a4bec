//! The BPF object and its loading.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use aya::maps::{MapError, MapInfo};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use rustix::io::Errno;
use trireme_bpf_abi::LIMIT_WINDOW_NANOS;
use zerocopy::IntoBytes as _;

use crate::error::Cause;
use crate::pins::Pins;
use crate::{OpenError, PlaneConfig, Sizes, random};

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
///
/// Every copy draws the key of its nonces anew.
pub(crate) fn load(pins: &Pins, config: &PlaneConfig, constants: Constants) -> Result<Ebpf, Cause> {
    let mut nonce_key = [0_u64; 2];
    random::fill(nonce_key.as_mut_bytes())?;
    let source_limit = per_window(config.limits.unknown_per_source_per_sec);
    let mut loader = EbpfLoader::new();
    // The loader tries a second time with a log; at level 0 the kernel would refuse that and hide why the first try
    // failed.
    loader.btf(None).verifier_log_level(VerifierLogLevel::STATS).default_map_pin_directory(pins.maps());
    let sizes = map_sizes(&config.sizes).map(|(name, wanted)| {
        let pinned = pinned_size(&pins.maps().join(name));
        (name, pinned.unwrap_or(wanted))
    });
    for (name, size) in sizes {
        loader.map_max_entries(name, size);
    }
    loader.override_global("edge_key", &constants.edge_key, true);
    loader.override_global("inject_secret", &constants.secret, true);
    loader.override_global("nonce_key", &nonce_key, true);
    loader.override_global("source_limit", &source_limit, true);
    let mask = |map| size_of(map, &sizes).unwrap_or(1).saturating_sub(1);
    let (bucket_mask, seat_mask) = (mask("buckets"), mask("entries"));
    loader.override_global("bucket_mask", &bucket_mask, true);
    loader.override_global("seat_mask", &seat_mask, true);
    Ok(loader.load(&OBJECT.0)?)
}

/// A limit per second as a limit per window, at least one.
pub(crate) fn per_window(per_sec: u64) -> u64 {
    (per_sec.saturating_mul(LIMIT_WINDOW_NANOS) / 1_000_000_000).max(1)
}

/// Names the map where the kernel has no memory.
pub(crate) fn load_error(what: &str, sizes: &Sizes, error: Cause) -> OpenError {
    let no_memory = |error: &io::Error| error.raw_os_error() == Some(Errno::NOMEM.raw_os_error());
    if let Some(EbpfError::MapError(MapError::CreateError { name, io_error })) = error.downcast_ref()
        && no_memory(io_error)
    {
        let entries = size_of(name, &map_sizes(sizes));
        let source = io::Error::from_raw_os_error(Errno::NOMEM.raw_os_error());
        return OpenError::Memory { map: name.clone(), entries: entries.unwrap_or(1), source };
    }
    OpenError::Load { what: what.to_owned(), source: error }
}

/// How often a program is loaded whose verification a signal interrupts, a little later each time: 2 s in all.
///
/// Whoever freezes or traces the process keeps a signal pending for a while, and the verifier gives up at the sight.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Loads one program of a copy of the object.
pub(crate) fn program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Cause> {
    let program = object.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    let mut failed = 0;
    while program.fd().is_err() {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if failed < TRIES && io_error.kind() == io::ErrorKind::WouldBlock =>
            {
                failed += 1;
                thread::sleep(PAUSE * failed);
            }
            other => other?,
        }
    }
    Ok(program)
}

/// Refuses sizes that the kernel would refuse later or silently change.
pub(crate) fn check_sizes(sizes: &Sizes) -> Result<(), OpenError> {
    let ring_bytes = sizes.ring_bytes;
    if !ring_bytes.is_power_of_two() || !(1 << 17..=1 << 30).contains(&ring_bytes) {
        return Err(OpenError::Size { field: "ring_bytes", must: "a power of two from 128 KiB to 1 GiB" });
    }
    if !(1..=1 << 20).contains(&sizes.pus) {
        return Err(OpenError::Size { field: "pus", must: "1 to 1,048,576" });
    }
    for (field, value) in map_sizes(sizes) {
        if value == 0 || value > 1 << 24 && !field.starts_with("ring") {
            return Err(OpenError::Size { field, must: "1 to 16,777,216" });
        }
    }
    Ok(())
}

fn map_sizes(sizes: &Sizes) -> [(&'static str, u32); 21] {
    let pus = sizes.pus;
    let own_tokens = if sizes.own_tokens == 0 { pus.saturating_mul(6) } else { sizes.own_tokens };
    [
        ("connections", sizes.connections),
        ("own_tokens", own_tokens),
        ("peers", sizes.peers),
        ("pair_keys", sizes.pair_keys),
        ("verdicts", sizes.verdicts),
        ("destinations", sizes.destinations),
        ("refusals", sizes.refusals),
        ("buckets", (entries(sizes.handshakes) / BUCKET_SHARE).max(1)),
        ("entries", entries(sizes.handshakes)),
        ("events_0", sizes.events),
        ("events_1", sizes.events),
        ("reasons", sizes.reasons),
        ("pus", pus),
        ("edges", pus),
        // One more for what belongs to no PU.
        ("counters", pus.saturating_add(1)),
        ("limits", pus.saturating_mul(4)),
        ("quotas", pus.saturating_mul(2)),
        ("ring_from", sizes.ring_bytes),
        ("ring_to", sizes.ring_bytes),
        // Nobody waits for what is in it.
        ("ring_unknown", (sizes.ring_bytes / 4).max(1 << 17)),
        ("sources", trireme_bpf_abi::SOURCES),
    ]
}

fn size_of(map: &str, sizes: &[(&'static str, u32)]) -> Option<u32> {
    sizes.iter().find_map(|(name, size)| (*name == map).then_some(*size))
}

/// Entries for each bucket of seven tags: few enough buckets to stay in the processor's cache, and room for nearly all
/// entries.
const BUCKET_SHARE: u32 = 8;

/// The programs' own table is a ring, whose size is a power of two.
fn entries(wanted: u32) -> u32 {
    wanted.checked_next_power_of_two().unwrap_or(u32::MAX)
}

/// Size of a map that is pinned already.
fn pinned_size(path: &Path) -> Option<u32> {
    if !fs::exists(path).ok()? {
        return None;
    }
    Some(MapInfo::from_pin(path).ok()?.max_entries())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::shape::SHAPES;

    #[test]
    fn refused_memory_names_the_map_and_its_size() {
        let io_error = io::Error::from_raw_os_error(libc::ENOMEM);
        let error: Cause =
            EbpfError::MapError(MapError::CreateError { name: "connections".into(), io_error }).into();

        let error = load_error("the maps", &Sizes::default(), error);

        let text = error.to_string();
        assert!(text.starts_with("no memory for map connections of 65536 entries: lower its size"), "{text}");
    }

    #[test]
    fn every_size_is_one_of_a_map_and_a_wrong_one_is_named() {
        for (name, _) in map_sizes(&Sizes::default()) {
            assert!(SHAPES.iter().any(|shape| shape.name == name), "{name}");
        }
        check_sizes(&Sizes::default()).unwrap();
        check_sizes(&Sizes { connections: 1 << 20, ..Sizes::default() }).unwrap();
        let error = check_sizes(&Sizes { peers: 0, ..Sizes::default() }).unwrap_err().to_string();
        assert_eq!(error, "peers must be 1 to 16,777,216");
    }

    #[test]
    fn limits_per_second_become_limits_per_window() {
        assert_eq!(per_window(1000), 134);
        assert_eq!(per_window(0), 1);
    }
}
