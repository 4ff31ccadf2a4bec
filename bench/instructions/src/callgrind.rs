//! One run of one case under valgrind.

use std::process::Command;

use anyhow::{Context, bail};

use crate::cases::CALLS;

/// Instructions per call of a case.
pub(crate) fn instructions(case: &str) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("finding this program")?;
    let out = std::env::temp_dir().join(format!("trireme-callgrind-{}-{case}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured_section*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["run", case])
        // The crypto library chooses its code by the processor: the same on every machine.
        .env("OPENSSL_ia32cap", BASE_PROCESSOR)
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM")
        .output()
        .context("running valgrind (make deps installs it)")?;
    if !output.status.success() {
        bail!("{case} under valgrind: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = std::fs::read_to_string(&out).context("reading what callgrind wrote")?;
    std::fs::remove_file(&out).context("removing what callgrind wrote")?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))
        .and_then(|count| count.trim().parse::<u64>().ok())
        .with_context(|| format!("callgrind counted nothing in {case}"))?;
    if total == 0 {
        bail!("callgrind saw no call of the measured section in {case}");
    }
    Ok(total / CALLS)
}

/// No extension beyond SSSE3 for the crypto library.
const BASE_PROCESSOR: &str = "~0:~0";
