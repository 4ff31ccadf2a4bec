//! Rules about the text of source files: unsafe, purity of the core, sizes, names.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

const MAX_LINES: usize = 600;

/// Things of the standard library that the pure crates must not touch.
const IMPURE: [&str; 16] = [
    "std::fs",
    "std::io::stdin",
    "std::io::stdout",
    "std::env",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::",
    "tokio",
    "libc::",
    "rustix::",
    "println!",
    "eprintln!",
];

/// Every source file that breaks a rule, as a sentence with file and line.
pub(super) fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in tracked(root)? {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        let name = file.display();
        if text.lines().count() > MAX_LINES {
            findings.push(format!("{name}: {} lines, more than {MAX_LINES}", text.lines().count()));
        }
        if file.ends_with("mod.rs") {
            findings.push(format!("{name}: modules are name.rs beside name/, not mod.rs"));
        }
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => findings.extend(rust_findings(&file, &text)),
            Some("c" | "h") => findings.extend(bpf_findings(&file, &text)),
            _ => {}
        }
    }
    Ok(findings)
}

fn tracked(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "*.rs", "*.c", "*.h", "*.ts", "*.sh"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}

fn rust_findings(file: &Path, text: &str) -> Vec<String> {
    let kernel = file.starts_with("crates/kernel");
    let core = file.starts_with("crates/core") && !file.iter().any(|part| part == "tests");
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = code_of(line);
        if code.trim() == "#[cfg(test)]" && core {
            break;
        }
        let at = format!("{}:{}", file.display(), index + 1);
        if !kernel
            && ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|u| code.contains(u))
        {
            findings.push(format!("{at}: unsafe outside crates/kernel"));
        }
        if core && let Some(word) = IMPURE.iter().find(|word| code.contains(**word)) {
            findings.push(format!("{at}: {word} in the pure core"));
        }
        if ["todo!(", "unimplemented!("].iter().any(|word| code.contains(word)) {
            findings.push(format!("{at}: unfinished code"));
        }
    }
    findings
}

/// Helpers that the programs must not call, and why.
const FORBIDDEN_HELPERS: [(&str, &str); 2] = [
    ("bpf_get_prandom_u32", "its state can be predicted, and nonces with it"),
    ("bpf_timer_", "it is for GPL programs only"),
];

fn bpf_findings(file: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (helper, reason) in FORBIDDEN_HELPERS {
            if code_of(line).contains(helper) {
                findings.push(format!("{}:{}: {helper}: {reason}", file.display(), index + 1));
            }
        }
    }
    findings
}

/// The line without comments and without string contents.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut previous = ' ';
    for c in line.chars() {
        match c {
            '"' if previous != '\\' => in_string = !in_string,
            '/' if previous == '/' && !in_string => {
                code.pop();
                return code;
            }
            _ if !in_string => code.push(c),
            _ => {}
        }
        previous = c;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings_in(file: &str, text: &str) -> usize {
        rust_findings(Path::new(file), text).len()
    }

    #[test]
    fn predictable_random_numbers_are_found_in_programs() {
        let found = |text| bpf_findings(Path::new("a.h"), text).len();

        assert_eq!(found("\tnonce[0] = bpf_get_prandom_u32();\n"), 1);
        assert_eq!(found("// never bpf_get_prandom_u32\n"), 0);
    }

    #[test]
    fn impurity_and_unsafe_are_found_in_code_but_not_in_comments_or_strings() {
        assert_eq!(findings_in("crates/core/wire/src/a.rs", "use std::fs;\n"), 1);
        assert_eq!(findings_in("crates/core/wire/src/a.rs", "// std::fs\nlet a = \"std::fs\";\n"), 0);
        assert_eq!(findings_in("crates/api/src/a.rs", "unsafe { x() }\n"), 1);
        assert_eq!(findings_in("crates/kernel/bpf/src/a.rs", "unsafe { x() }\n"), 0);
    }
}
