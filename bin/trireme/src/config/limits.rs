//! Sizes of what the agent and its tables in the kernel keep.

use serde::{Deserialize, Serialize};

use super::Count;

/// Entries of a table of the kernel.
pub(crate) type Entries = Count<1024, 16_777_216>;

/// Sizes and rates. Tables keep the size that they were made with until `trireme agent --cleanup`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Flow records kept in memory for `trireme flows`.
    pub(crate) flow_records: Count<1, 1_000_000>,
    /// Processing units.
    pub(crate) units: Count<1, 65_536>,
    /// Connections of all units together.
    pub(crate) connections: Entries,
    /// Identities of peers, here and in the kernel.
    pub(crate) peers: Entries,
    /// MAC keys shared with peers, here and in the kernel.
    pub(crate) pair_keys: Entries,
    /// Verdicts about peers.
    pub(crate) verdicts: Entries,
    /// Addresses that units connect to.
    pub(crate) destinations: Entries,
    /// Identities that are known only to be refused.
    pub(crate) refusals: Entries,
    /// Unfinished handshakes of the kernel; half as many connections that have ended are remembered.
    pub(crate) handshakes: Entries,
    /// Unfinished handshakes of the kernel per unit and role.
    pub(crate) handshakes_per_unit: Count<16, 16_777_216>,
    /// Flow events that one second may bring, equal ones counted once.
    pub(crate) events: Entries,
    /// SYNs of unknown senders per second and unit that reach the agent.
    pub(crate) unknown_per_second: Count<1, 1_000_000>,
    /// The same for senders whose addresses look alike.
    pub(crate) unknown_per_second_and_source: Count<1, 1_000_000>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flow_records: Count(4096),
            units: Count(1024),
            connections: Count(262_144),
            peers: Count(16_384),
            pair_keys: Count(65_536),
            verdicts: Count(131_072),
            destinations: Count(65_536),
            refusals: Count(16_384),
            handshakes: Count(32_768),
            handshakes_per_unit: Count(4096),
            events: Count(16_384),
            unknown_per_second: Count(10_000),
            unknown_per_second_and_source: Count(1000),
        }
    }
}
