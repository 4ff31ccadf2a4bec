//! Chooses the BPF object: the checked-in one, or a fresh build if `TRIREME_BPF_CLANG` names a clang.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    let sources = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../bpf-prog");
    let target = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("trireme.bpf.o");
    println!("cargo::rerun-if-env-changed=TRIREME_BPF_CLANG");
    println!("cargo::rerun-if-changed={}", sources.join("src").display());
    println!("cargo::rerun-if-changed={}", sources.join("prebuilt").display());
    if env::var_os("CARGO_CFG_TARGET_ENDIAN").is_some_and(|endian| endian != "little") {
        println!("cargo::error=the BPF object is little-endian only");
    }
    if env::var_os("TRIREME_BPF_CLANG").is_none() {
        if let Err(error) = fs::copy(sources.join("prebuilt/trireme.bpf.o"), &target) {
            println!("cargo::error=cannot copy the prebuilt BPF object: {error}");
        }
        return;
    }
    let built = Command::new(sources.join("build.sh")).arg(&target).status();
    if !built.as_ref().is_ok_and(std::process::ExitStatus::success) {
        println!("cargo::error=bpf-prog/build.sh failed: {built:?}");
    }
}
