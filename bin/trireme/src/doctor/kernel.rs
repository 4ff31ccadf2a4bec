//! What the kernel has for programs.

use std::path::Path;

use trireme::datapath::bpf;

use super::choice::Abilities;
use super::finding::Finding;
use super::read;
use crate::config::{Config, Datapath, DatapathKind};

/// Looks at the kernel.
pub(super) fn look(kind: DatapathKind, abilities: &Abilities, config: Option<&Config>) -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut findings = vec![Finding::ok("kernel", release)];
    if kind == DatapathKind::Nfqueue {
        return findings;
    }
    // Without the capabilities the kernel is not asked; that they are missing is told already.
    if abilities.bpf_privileges.is_ok() {
        findings.push(programs(kind, &abilities.bpf, bpf::has_tcx()));
    }
    let place = config.map_or_else(|| Datapath::default().bpffs, |config| config.datapath.bpffs.clone());
    let mounts = read::text("/proc/self/mounts").unwrap_or_default();
    findings.push(bpffs(&mounts, &read::text("/proc/filesystems").unwrap_or_default(), &place));
    findings.extend(jit(read::setting("net/core/bpf_jit_enable")));
    findings
}

fn programs(kind: DatapathKind, loads: &Result<(), String>, has_tcx: bool) -> Finding {
    match loads {
        Ok(()) => {
            let way = if has_tcx { "tcx links" } else { "filters on clsact" };
            Finding::ok("programs", format!("a program can be loaded; they are attached as {way}"))
        }
        Err(error) if kind == DatapathKind::Bpf => {
            Finding::problem("programs", error.as_str(), "set datapath.kind = \"nfqueue\"")
        }
        Err(error) => Finding::note(
            "programs",
            error.as_str(),
            "use a kernel of at least 5.12 with BPF_SYSCALL and NET_CLS_BPF where nothing forbids them, or go on with nfqueue",
        ),
    }
}

/// The file system in which maps and links outlive the agent.
fn bpffs(mounts: &str, filesystems: &str, place: &Path) -> Finding {
    const CHECK: &str = "bpffs";
    // The last mount that covers the place is the one that is seen there.
    let covering = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((Path::new(words.next()?), words.next()?))
        })
        .filter(|(mounted, _)| place.starts_with(mounted))
        .enumerate()
        .max_by_key(|(order, (mounted, _))| (mounted.components().count(), *order));
    let shown = place.display();
    if covering.is_some_and(|(_, (_, kind))| kind == "bpf") {
        return Finding::ok(CHECK, format!("mounted at {shown}"));
    }
    if filesystems.lines().any(|line| line.split_whitespace().last() == Some("bpf")) {
        return Finding::ok(CHECK, format!("not mounted at {shown}: the agent mounts it"));
    }
    Finding::note(
        CHECK,
        format!("the kernel has no BPF file system to mount at {shown}"),
        "use a kernel with BPF_SYSCALL, or datapath.kind = \"nfqueue\"",
    )
}

/// Only the first network namespace shows the setting.
fn jit(enabled: Option<u64>) -> Option<Finding> {
    Some(match enabled? {
        0 => Finding::note(
            "jit",
            "programs are interpreted: every packet of a unit takes several times as long",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        _ => Finding::ok("jit", "programs are compiled"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const MOUNTS: &str =
        "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\ntmpfs /run tmpfs rw 0 0\n";

    #[test]
    fn the_bpf_file_system_is_found_by_what_covers_its_place() {
        let at = |place: &str, filesystems| bpffs(MOUNTS, filesystems, Path::new(place));
        assert_eq!(at("/sys/fs/bpf", "").found, "mounted at /sys/fs/bpf");
        assert_eq!(at("/sys/fs/bpf/below", "").level, Level::Ok);
        assert_eq!(at("/run/bpf", "nodev\tbpf\n").found, "not mounted at /run/bpf: the agent mounts it");
        assert_eq!(at("/sys/fs/bpfoo", "nodev\tproc\n").level, Level::Note);
        let covered = format!("{MOUNTS}tmpfs /sys/fs/bpf tmpfs rw 0 0\n");
        assert_eq!(bpffs(&covered, "", Path::new("/sys/fs/bpf")).level, Level::Note);
    }

    #[test]
    fn an_interpreter_is_noted_and_an_unknown_setting_is_not() {
        assert_eq!(jit(Some(0)).unwrap().remedy.unwrap(), "sysctl -w net.core.bpf_jit_enable=1");
        assert_eq!(jit(Some(1)).unwrap().level, Level::Ok);
        assert_eq!(jit(None), None);
    }

    #[test]
    fn programs_that_cannot_be_loaded_are_a_problem_where_bpf_is_configured() {
        let refused = Err("cannot load a program: Operation not permitted".to_owned());
        assert_eq!(programs(DatapathKind::Bpf, &refused, true).level, Level::Problem);
        assert_eq!(programs(DatapathKind::Auto, &refused, true).level, Level::Note);
        assert!(programs(DatapathKind::Auto, &Ok(()), false).found.ends_with("filters on clsact"));
    }
}
