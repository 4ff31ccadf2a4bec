//! How a plane is opened.

use std::path::PathBuf;
use std::time::Duration;

/// Everything [`Plane::open`](crate::Plane::open) needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneConfig {
    /// Name of the instance: 1 to 32 of `a-z A-Z 0-9 - _`. Agents of other names on the host are not touched.
    pub instance: String,
    /// Mount point of the BPF file system; default `/sys/fs/bpf`. It is mounted there if nothing is.
    pub bpffs: PathBuf,
    /// How programs are attached.
    pub attach: AttachMethod,
    /// Sizes of the maps; those of adopted maps stay what they are.
    pub sizes: Sizes,
    /// Rate limits before the rings, for every PU.
    pub limits: Limits,
    /// How long to look for packets before sleeping; default 50 us, 0 sleeps at once.
    pub spin: Duration,
}

impl PlaneConfig {
    /// Defaults under an instance name.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            attach: AttachMethod::default(),
            sizes: Sizes::default(),
            limits: Limits::default(),
            spin: Duration::from_micros(50),
        }
    }
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AttachMethod {
    /// tcx links where the kernel has them (6.6), else clsact.
    #[default]
    Auto,
    /// cls_bpf filters on a clsact qdisc.
    Clsact,
}

/// Sizes of the maps in entries, of the rings in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// PUs; default 1024.
    pub pus: u32,
    /// Established connections of all PUs; default 65,536.
    pub connections: u32,
    /// Tokens of the PUs' own; default 0: six per PU.
    pub own_tokens: u32,
    /// Peers that have shown a MAC; default 16,384.
    pub peers: u32,
    /// Pairs of agreement keys, least recently used out; default 65,536.
    pub pair_keys: u32,
    /// Verdicts, least recently used out; default 131,072.
    pub verdicts: u32,
    /// Addresses where PUs show their identity, least recently used out; default 65,536.
    pub destinations: u32,
    /// Refused initiators, least recently used out; default 16,384.
    pub refusals: u32,
    /// Entries of the programs' own table, rounded up to a power of two: unfinished handshakes of known identities,
    /// connections that are young or closing; default 32,768.
    pub handshakes: u32,
    /// Different flow events in a second; default 16,384.
    pub events: u32,
    /// Counters of the engine, one per PU and reason; default 65,536.
    pub reasons: u32,
    /// Each punt ring, that for unknown senders a quarter; a power of two; default 4 MiB.
    pub ring_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pus: 1024,
            connections: 65_536,
            own_tokens: 0,
            peers: 16_384,
            pair_keys: 65_536,
            verdicts: 131_072,
            destinations: 65_536,
            refusals: 16_384,
            handshakes: 32_768,
            events: 16_384,
            reasons: 65_536,
            ring_bytes: 4 << 20,
        }
    }
}

/// Most punts per second of one PU, and other bounds; what exceeds them is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Packets the PU sends; default 200,000.
    pub from_pu_per_sec: u64,
    /// Packets the PU is about to receive; default 200,000.
    pub to_pu_per_sec: u64,
    /// ICMP errors in both directions; default 1000.
    pub icmp_per_sec: u64,
    /// SYNs of senders that the programs do not know; default 10,000.
    pub unknown_per_sec: u64,
    /// The same for senders that share one of 4096 buckets, over all PUs; default 1000. Takes effect at the next
    /// opening.
    pub unknown_per_source_per_sec: u64,
    /// Unfinished handshakes of one PU and role in the programs; default 4096.
    pub half_open: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            from_pu_per_sec: 200_000,
            to_pu_per_sec: 200_000,
            icmp_per_sec: 1000,
            unknown_per_sec: 10_000,
            unknown_per_source_per_sec: 1000,
            half_open: 4096,
        }
    }
}
