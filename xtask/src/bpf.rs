//! Rebuilds the BPF object from its C sources and compares it with the checked-in one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

const PREBUILT: &str = "crates/kernel/bpf-prog/prebuilt/trireme.bpf.o";
const BUILD: &str = "crates/kernel/bpf-prog/build.sh";

/// Builds with clang-19 and replaces the object, or with `check` compares byte by byte.
pub(crate) fn run(root: &Path, check: bool) -> anyhow::Result<()> {
    let fresh = root.join("target/bpf/trireme.bpf.o");
    let folder = fresh.parent().unwrap_or(root);
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let status = Command::new(root.join(BUILD))
        .arg(&fresh)
        .current_dir(root)
        .status()
        .with_context(|| format!("running {BUILD}"))?;
    if !status.success() {
        bail!("{BUILD} failed ({status}); it needs clang-19, llvm-19 and libbpf-dev: run `make deps`");
    }
    let built = std::fs::read(&fresh).with_context(|| format!("reading {}", fresh.display()))?;
    let prebuilt = root.join(PREBUILT);
    if check {
        let known = std::fs::read(&prebuilt).with_context(|| format!("reading {PREBUILT}"))?;
        if known != built {
            bail!("{PREBUILT} is not what its sources build to; run `make bpf` and commit it");
        }
        return Ok(());
    }
    std::fs::write(&prebuilt, built).with_context(|| format!("writing {PREBUILT}"))?;
    println!("wrote {PREBUILT}");
    Ok(())
}
