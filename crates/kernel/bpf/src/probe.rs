//! What the process and the kernel can do.

use rustix::thread::{CapabilitySet, capabilities};

use crate::OpenError;

/// Oldest kernel with atomic operations in BPF programs, the newest feature that has no fallback.
const OLDEST: (u32, u32) = (5, 12);

/// First kernel with tcx links.
const TCX: (u32, u32) = (6, 6);

/// Refuses a process or kernel that cannot run the programs.
pub(crate) fn check() -> Result<(), OpenError> {
    let effective = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    missing_privilege(effective).map_or(Ok(()), |missing| Err(OpenError::Privilege { missing }))?;
    let found = release();
    if version(&found).is_none_or(|version| version < OLDEST) {
        return Err(OpenError::Kernel {
            found,
            needed: "5.12",
            feature: "atomic operations in BPF programs",
        });
    }
    Ok(())
}

/// Loads the smallest program of the kind that is attached to units: sandboxes and locked-down kernels refuse that.
pub(crate) fn loads_a_program() -> Result<(), OpenError> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Load {
        what: "a program".to_owned(),
        source,
    };
    match aya::sys::is_program_supported(aya::programs::ProgramType::SchedClassifier) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused("programs of traffic control are not supported".into())),
        Err(error) => Err(refused(error.into())),
    }
}

/// True if the kernel has tcx links (6.6); before them programs are filters on a clsact qdisc.
#[must_use]
pub fn has_tcx() -> bool {
    version(&release()).is_some_and(|version| version >= TCX)
}

fn missing_privilege(effective: CapabilitySet) -> Option<&'static str> {
    [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
        (CapabilitySet::BPF, "CAP_BPF"),
    ]
    .into_iter()
    .find_map(|(needed, name)| (!effective.contains(needed)).then_some(name))
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_any_release_string() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("weird"), None);
    }

    #[test]
    fn missing_capability_is_named() {
        let all = CapabilitySet::all();

        assert_eq!(missing_privilege(all), None);
        assert_eq!(missing_privilege(all - CapabilitySet::BPF), Some("CAP_BPF"));
        assert_eq!(missing_privilege(CapabilitySet::empty()), Some("CAP_SYS_ADMIN"));
    }
}
