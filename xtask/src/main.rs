//! Project tasks: `cargo run -p xtask -- check | vectors | bpf`.
//!
//! Each task is a module; this file only wires them to the command line.
#![expect(clippy::print_stdout, reason = "a command line tool prints its result")]

mod bpf;
mod check;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Checks and generated files of the project.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks layer rules, purity of the core, where unsafe stands, file sizes and generated files.
    Check,
    /// Writes docs/spec/vectors; with --check, compares instead.
    Vectors {
        /// Compares with what is checked in and writes nothing.
        #[arg(long)]
        check: bool,
    },
    /// Rebuilds the checked-in BPF object; with --check, compares instead.
    Bpf {
        /// Compares with what is checked in and writes nothing.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let root = root();
    let outcome = match Arguments::parse().task {
        Task::Check => check::run(&root),
        Task::Vectors { check } => vectors_task(&root, check),
        Task::Bpf { check } => bpf::run(&root, check),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace: this crate's folder's parent.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn vectors_task(root: &Path, check: bool) -> anyhow::Result<()> {
    let folder = root.join("docs/spec/vectors");
    if check {
        return check::vectors_are_fresh(root);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for (name, text) in vectors::generate()? {
        let path = folder.join(&name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote docs/spec/vectors/{name}");
    }
    Ok(())
}
