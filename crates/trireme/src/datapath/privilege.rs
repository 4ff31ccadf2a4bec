//! What the process must be allowed to do, checked before anything is changed.

use rustix::thread::{CapabilitySet, capabilities};

use crate::DatapathError;

/// A capability that a back end needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Bpf,
    NetAdmin,
    NetRaw,
    SysAdmin,
}

impl Need {
    const fn capability(self) -> (CapabilitySet, &'static str) {
        match self {
            Self::Bpf => (CapabilitySet::BPF, "CAP_BPF"),
            Self::NetAdmin => (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            Self::NetRaw => (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
            Self::SysAdmin => (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        }
    }
}

/// Names what is missing.
pub(super) fn check(kind: &str, needed: &[Need]) -> Result<(), DatapathError> {
    let held = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    judge(kind, needed, held)
}

fn judge(kind: &str, needed: &[Need], held: CapabilitySet) -> Result<(), DatapathError> {
    let needed = needed.iter().map(|need| need.capability());
    let missing: Vec<&str> =
        needed.filter(|(capability, _)| !held.contains(*capability)).map(|(_, name)| name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DatapathError::Unsupported(format!(
        "the {kind} data path needs {}: run the agent as root, or grant it these capabilities",
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_capability_is_named() {
        let needed = [Need::Bpf, Need::NetAdmin, Need::NetRaw, Need::SysAdmin];
        judge("bpf", &needed, CapabilitySet::all()).unwrap();
        let held = CapabilitySet::all() - CapabilitySet::BPF - CapabilitySet::NET_RAW;
        assert_eq!(
            judge("bpf", &needed, held).unwrap_err().to_string(),
            "the bpf data path needs CAP_BPF, CAP_NET_RAW: run the agent as root, or grant it these capabilities"
        );
    }
}
