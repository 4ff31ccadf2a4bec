//! Counters and table sizes.

use std::collections::BTreeMap;

use trireme_flow::{PuSlot, Reason};

/// A picture of the engine's counters and table sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Handshakes in progress or just completed.
    pub half_open: usize,
    /// Packets that wait for a proof, and their bytes.
    pub held_packets: usize,
    /// The bytes of the packets that wait for a proof.
    pub held_bytes: usize,
    /// Fragmented packets under way whose first fragment was admitted.
    pub fragmented: usize,
    /// Fragments that wait for the first one.
    pub fragments_held: usize,
    /// Datagrams that wait for an exchange of identities.
    pub waiting: usize,
    /// Flows of other protocols admitted lately.
    pub flows: usize,
    /// Packets that wait for a signature check.
    pub parked_packets: usize,
    /// Signature checks under way.
    pub verifications: usize,
    /// Peers whose claims are remembered.
    pub peers: usize,
    /// Pair keys in the cache.
    pub pair_keys: usize,
    /// Verified tokens in the cache.
    pub tokens: usize,
    /// Flow records that wait to be emitted.
    pub records: usize,
    /// Decisions that found no room to be gathered into a record: counted by reason, but in no record.
    pub records_lost: u64,
    /// Packets and events by processing unit and reason; `Accepted` counts admitted connections.
    pub reasons: BTreeMap<(PuSlot, Reason), u64>,
}
