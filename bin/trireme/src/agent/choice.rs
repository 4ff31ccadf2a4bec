//! Which data path an agent takes.

use trireme::datapath::{bpf, nfqueue};

use super::assemble;
use crate::config::{Config, DatapathKind};

/// Units that an earlier run left in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bpf: usize,
    pub(crate) queues: usize,
}

impl Held {
    /// What earlier runs of the configured instance hold.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            bpf: bpf::held_units(&assemble::bpf(config)),
            queues: nfqueue::held_units(&config.node.state_dir),
        }
    }
}

/// A data path, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chosen<E> {
    /// By the configuration, usable or not.
    Configured(DatapathKind),
    /// It has units already.
    HoldsUnits(usize),
    /// Programs can be loaded.
    BpfWorks,
    /// They cannot.
    NoBpf(E),
}

/// Units are still enforced by the other one: they must not be judged twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Both {
    pub(crate) units: usize,
    pub(crate) other: &'static str,
}

/// Chooses; BPF is tried only where that matters.
pub(crate) fn choose<E>(
    kind: DatapathKind,
    held: Held,
    bpf: impl FnOnce() -> Result<(), E>,
) -> Result<Chosen<E>, Both> {
    match kind {
        DatapathKind::Bpf if held.queues > 0 => Err(Both { units: held.queues, other: "nfqueue" }),
        DatapathKind::Nfqueue if held.bpf > 0 => Err(Both { units: held.bpf, other: "bpf" }),
        DatapathKind::Bpf | DatapathKind::Nfqueue => Ok(Chosen::Configured(kind)),
        DatapathKind::Auto if held.queues > 0 => Ok(Chosen::HoldsUnits(held.queues)),
        DatapathKind::Auto => Ok(bpf().map_or_else(Chosen::NoBpf, |()| Chosen::BpfWorks)),
    }
}
