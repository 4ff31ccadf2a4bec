//! Slots, hooks and the state of a PU.

use std::fmt;

use trireme_bpf_abi as abi;
use trireme_bpf_abi::Counter;

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

/// State of a PU in the maps; can be changed at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PuState {
    /// Policy epoch: connections of another epoch go to user space.
    pub epoch: u32,
    /// What the programs do.
    pub mode: Mode,
    /// What happens to other protocols.
    pub other_protocols: OtherProtocols,
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
        abi::Pu { slot: slot.0, epoch: self.epoch, mode, other, pad: [0; 2], ifindex }
    }

    pub(crate) fn from_abi(pu: &abi::Pu) -> Self {
        Self {
            epoch: pu.epoch,
            mode: if pu.mode == 1 { Mode::Off } else { Mode::Enforce },
            other_protocols: if pu.other == 1 { OtherProtocols::Allow } else { OtherProtocols::Deny },
        }
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
