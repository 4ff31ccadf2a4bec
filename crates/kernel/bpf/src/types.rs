//! Slots, hooks and the state of a PU.

use std::fmt;
use std::time::Duration;

use trireme_bpf_abi as abi;
use trireme_bpf_abi::{Counter, pu_flag};

/// Number by which the maps know a PU; below 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a packet was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// The PU sent it.
    FromPu,
    /// The PU is about to receive it.
    ToPu,
}

/// What the programs do with the PU's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// What the maps cannot decide goes to user space.
    #[default]
    Enforce,
    /// Everything passes.
    Off,
}

/// Protocols that are neither TCP, address resolution nor ICMP errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OtherProtocols {
    /// Dropped and counted.
    #[default]
    Deny,
    /// Passed and counted.
    Allow,
}

/// What happens to packets that need the agent's judgement while it is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FailMode {
    /// They are dropped and counted.
    #[default]
    Closed,
    /// The same, but tokens that were valid at the agent's last sign of life count as valid for this long behind it.
    LastKnown(Duration),
    /// They pass.
    Open,
}

/// A token of a PU's own; its bytes are in [`own_token_insert`](crate::Plane::own_token_insert).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnTokenState {
    /// Its id.
    pub token: [u8; 16],
    /// Name of the agreement key in it.
    pub key: [u8; 16],
    /// It is not used behind this time; nanoseconds of the wall clock.
    pub until_wall_nanos: u64,
}

/// State of a PU in the maps; can be changed at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PuState {
    /// Policy epoch: connections of another epoch go to user space.
    pub epoch: u32,
    /// What the programs do.
    pub mode: Mode,
    /// What happens to other protocols.
    pub other_protocols: OtherProtocols,
    /// Handshakes of known identities stay in the kernel.
    pub fast: bool,
    /// Live connections outlast changes of policy: only user space ends them.
    pub keep: bool,
    /// What happens while the agent is away.
    pub fail: FailMode,
    /// Its tokens, newest first.
    pub own: [Option<OwnTokenState>; 2],
}

impl PuState {
    pub(crate) fn to_abi(self, slot: Slot, ifindex: u32) -> abi::Pu {
        let mode = match self.mode {
            Mode::Enforce => 0,
            Mode::Off => 1,
        };
        let other = match self.other_protocols {
            OtherProtocols::Deny => 0,
            OtherProtocols::Allow => 1,
        };
        let (fail, fail_nanos) = match self.fail {
            FailMode::Closed => (0, 0),
            FailMode::LastKnown(time) => (1, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            FailMode::Open => (2, 0),
        };
        abi::Pu {
            slot: slot.0,
            epoch: self.epoch,
            mode,
            other,
            fail,
            flags: if self.fast { pu_flag::FAST } else { 0 } | if self.keep { pu_flag::KEEP } else { 0 },
            ifindex,
            fail_nanos,
            incarnation: 0,
            own: self.own.map(OwnTokenState::to_abi),
            pad: [0; 2],
        }
    }

    pub(crate) fn from_abi(pu: &abi::Pu) -> Self {
        Self {
            epoch: pu.epoch,
            mode: if pu.mode == 1 { Mode::Off } else { Mode::Enforce },
            other_protocols: if pu.other == 1 { OtherProtocols::Allow } else { OtherProtocols::Deny },
            fast: pu.flags & pu_flag::FAST != 0,
            keep: pu.flags & pu_flag::KEEP != 0,
            fail: match pu.fail {
                1 => FailMode::LastKnown(Duration::from_nanos(pu.fail_nanos)),
                2 => FailMode::Open,
                _ => FailMode::Closed,
            },
            own: pu.own.map(|own| OwnTokenState::from_abi(&own)),
        }
    }
}

impl OwnTokenState {
    fn to_abi(own: Option<Self>) -> abi::Own {
        own.map_or_else(abi::Own::default, |own| abi::Own {
            token: own.token,
            key: own.key,
            until: own.until_wall_nanos,
        })
    }

    fn from_abi(own: &abi::Own) -> Option<Self> {
        let abi::Own { token, key, until } = *own;
        (token != [0; 16]).then_some(Self { token, key, until_wall_nanos: until })
    }
}

/// Counters of one PU, summed over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CounterSet {
    value: [u64; abi::COUNTERS],
}

impl CounterSet {
    /// Returns one counter.
    pub fn of(&self, counter: Counter) -> u64 {
        self.value.get(counter.index()).copied().unwrap_or(0)
    }

    /// Returns all counters in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.into_iter().map(|counter| (counter, self.of(counter)))
    }

    pub(crate) fn add(&mut self, cpu: &abi::Counters) {
        for (sum, value) in self.value.iter_mut().zip(cpu.value) {
            *sum = sum.wrapping_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_the_way_into_the_map_and_back() {
        let own = OwnTokenState { token: [1; 16], key: [2; 16], until_wall_nanos: 3 };
        for fail in [FailMode::Closed, FailMode::LastKnown(Duration::from_secs(60)), FailMode::Open] {
            for own in [[None; 2], [Some(own), None], [Some(own); 2]] {
                let state = PuState { epoch: 7, fast: true, keep: true, fail, own, ..PuState::default() };

                assert_eq!(PuState::from_abi(&state.to_abi(Slot(1), 2)), state);
            }
        }
    }
}
