//! What the process must be allowed to do, checked before anything is changed.

use rustix::thread::{CapabilitySet, capabilities};

use crate::DatapathError;

const NEEDED: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
];

/// Names what is missing.
pub(super) fn check() -> Result<(), DatapathError> {
    let held = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    judge(held)
}

fn judge(held: CapabilitySet) -> Result<(), DatapathError> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(capability, _)| !held.contains(*capability)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DatapathError::Unsupported(format!(
        "the bpf data path needs {}: run the agent as root, or grant it these capabilities",
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_capability_is_named() {
        judge(CapabilitySet::all()).unwrap();
        let error = judge(CapabilitySet::all() - CapabilitySet::BPF - CapabilitySet::NET_RAW).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the bpf data path needs CAP_BPF, CAP_NET_RAW: run the agent as root, or grant it these capabilities"
        );
    }
}
