//! Rules for units that are processes of the host itself: those of a cgroup (version 2) in the calling thread's network
//! namespace.
//!
//! A table of our own, `inet trireme_host`, tells whose each packet is and writes that into the field of its mark; it
//! saves what verdicts say into the connmark. Queueing is the back end's: `nft` in the same table, or chains of iptables
//! that look at nothing but the mark.
//!
//! ```text
//! sent by a process      output (from)   mangle OUTPUT: queue   postrouting (save_from)
//! received by a process  input (to)      mangle INPUT: queue    input (save_to)
//! routed through         forward (through)                      postrouting (save_from)
//! ```
//!
//! Whose a packet is, a socket says; only a whole socket knows its cgroup. Handshakes that wait and connections that
//! have ended have none: they are known by the connmark, which the first SYN got, and where connection tracking has
//! begun anew, by their local address and port, at which a unit was seen to listen.

mod field;
mod operations;
mod queues;
mod render;
mod table;

use crate::{MarkField, NetfilterError, OtherProtocols, Unanswered};

pub use field::HostField;
pub use operations::{HostInForce, HostLook, Unqueued};

/// What marks every rule of ours on the host.
const COMMENT: &str = "trireme host 1";

/// Longest path of a cgroup that `nft` takes as one word.
const LONGEST_PATH: usize = 255;

/// What the rules of the host do, for all its units.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostSet {
    /// Bits of marks and connmarks that are Trireme's.
    pub field: MarkField,
    /// The number under which connections are released now: 1 to [`HostField::max_release`].
    pub released: u32,
    /// First bytes of a TCP payload that is queued on its way in even if the connection is released.
    pub tap_magic: [u8; 4],
    /// The units; of those that contain a process the deepest has it.
    pub units: Vec<HostUnit>,
}

/// A unit of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostUnit {
    /// Its number in the field: 1 to [`HostField::max_unit`].
    pub number: u32,
    /// Path of its cgroup below `/sys/fs/cgroup`, as `nft` sees it.
    pub cgroup: String,
    /// How deep the cgroup is below the root of its hierarchy; 1 is right below.
    pub level: u32,
    /// What becomes of its packets; none leaves them alone, and those of no cgroup around it are not its.
    pub judged: Option<HostJudged>,
}

/// What becomes of a unit's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostJudged {
    /// Number of the netfilter queue.
    pub queue: u16,
    /// While no agent listens.
    pub unanswered: Unanswered,
    /// What is neither TCP nor an error about it.
    pub other_protocols: OtherProtocols,
}

impl HostSet {
    /// The field in its halves.
    pub fn halves(&self) -> HostField {
        HostField::new(self.field)
    }

    /// Units that are judged.
    fn judged(&self) -> impl Iterator<Item = (&HostUnit, HostJudged)> {
        self.units.iter().filter_map(|unit| Some((unit, unit.judged?)))
    }

    /// The deepest first.
    fn by_depth(&self) -> Vec<&HostUnit> {
        let mut units: Vec<&HostUnit> = self.units.iter().collect();
        units.sort_by_key(|unit| (std::cmp::Reverse(unit.level), unit.number));
        units
    }

    /// Refuses what would release nothing, mix units up, or be read by `nft` otherwise than it is meant.
    fn check(&self) -> Result<(), NetfilterError> {
        let (field, halves) = (self.field, self.halves());
        if !(1..=halves.max_release()).contains(&self.released) {
            let max = halves.max_release();
            return Err(NetfilterError::Released { released: self.released, field, max });
        }
        for (index, unit) in self.units.iter().enumerate() {
            if !(1..=halves.max_unit()).contains(&unit.number) {
                return Err(NetfilterError::Number { number: unit.number, field, max: halves.max_unit() });
            }
            let others = self.units.iter().skip(index + 1);
            if let Some(other) = others.into_iter().find(|other| other.number == unit.number) {
                return Err(NetfilterError::Shared { one: unit.cgroup.clone(), two: other.cgroup.clone() });
            }
            if !is_one_word(&unit.cgroup) || unit.level == 0 {
                return Err(NetfilterError::Cgroup(unit.cgroup.clone()));
            }
        }
        Ok(())
    }
}

/// True for what is one word between quotes.
fn is_one_word(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= LONGEST_PATH
        && !path.chars().any(|letter| letter.is_control() || matches!(letter, '"' | '\\' | '*'))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    pub(super) fn unit(number: u32, cgroup: &str) -> HostUnit {
        HostUnit {
            number,
            cgroup: cgroup.to_owned(),
            level: u32::try_from(cgroup.matches('/').count()).unwrap() + 1,
            judged: Some(HostJudged {
                queue: 10,
                unanswered: Unanswered::Drop,
                other_protocols: OtherProtocols::Deny,
            }),
        }
    }

    pub(super) fn set(units: &[HostUnit]) -> HostSet {
        HostSet { field: MarkField::UPPER_HALF, released: 5, tap_magic: *b"TAP\x01", units: units.to_vec() }
    }

    #[test]
    fn deepest_cgroup_comes_first() {
        let set = set(&[unit(1, "a"), unit(2, "a/b/c"), unit(3, "a/b"), unit(4, "d/e")]);
        let numbers: Vec<u32> = set.by_depth().iter().map(|unit| unit.number).collect();

        assert_eq!(numbers, [2, 3, 4, 1]);
        set.check().unwrap();
    }

    #[test]
    fn what_would_mix_units_up_or_be_read_otherwise_is_refused() {
        let refused = |set: HostSet| set.check().unwrap_err().to_string();
        for released in [0, 255] {
            let text = refused(HostSet { released, ..set(&[unit(1, "a")]) });
            assert!(text.contains("choose 1 to 254"), "{text}");
        }
        for number in [0, 256] {
            let text = refused(set(&[unit(number, "a")]));
            assert!(text.contains("has room for 255 units of the host"), "{text}");
        }
        assert!(refused(set(&[unit(1, "a"), unit(1, "b")])).contains("a and b have one number"));
        for path in ["", "a\"b", "a\\b", "a\nb", "a*", &"x".repeat(256)] {
            assert!(refused(set(&[unit(1, path)])).contains("cannot be written into a rule"), "{path:?}");
        }
        assert!(refused(set(&[HostUnit { level: 0, ..unit(1, "a") }])).contains("rule"));
    }
}
