//! What is in force in a namespace, and what is wrong with it.

use std::fmt;

use crate::RuleSet;

/// A set of rules that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// What it does, as its comment says.
    pub rule_set: RuleSet,
    /// Equal for equal rules of ours, jumps and their order included; counters and the rules of others do not count.
    pub fingerprint: u64,
}

/// How our rules differ from what apply leaves, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage(pub(crate) String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Packets of other protocols that were dropped, since the rules in force were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// Sent by the unit.
    pub from: u64,
    /// Sent to the unit.
    pub to: u64,
}

/// What one look at the rules in force shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// How they differ from what they should be.
    pub damage: Option<Damage>,
    /// What they dropped.
    pub denied: Denied,
}

/// FNV-1a: the same in every process, so that fingerprints can be kept.
pub(crate) fn fingerprint<'a>(lines: impl IntoIterator<Item = &'a str>) -> u64 {
    let bytes = lines.into_iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
