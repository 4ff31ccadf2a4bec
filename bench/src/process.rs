//! What the system says about a process: memory, processor time, BPF objects that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Lets this thread run before others: a flood does not wait for its victims.
pub(crate) fn prefer() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20) {
        eprintln!("the sender has no priority, and may be too slow: {error}");
    }
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    field(&text, "VmRSS:").context("no VmRSS")
}

/// Processor time used so far, of all threads that still live.
pub(crate) fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/task");
    let threads = fs::read_dir(&path).with_context(|| format!("reading {path}"))?;
    let nanos = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(nanos.sum()))
}

/// Processor time used so far by the process, and by programs that it started and that have ended (proc(5), stat).
pub(crate) fn cpu_time_with_children(process: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // Behind the name, which may hold anything: utime, stime, cutime and cstime are fields 14 to 17, the state is field 3.
    let (_, fields) = text.rsplit_once(')').context("no name in it")?;
    let ticks = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok());
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks.sum::<u64>() * 1000 / per_second.max(1)))
}

/// Ids of the BPF programs that a process holds.
pub(crate) fn bpf_programs(process: u32) -> anyhow::Result<BTreeSet<u64>> {
    Ok(descriptors(process)?.iter().filter_map(|text| field(text, "prog_id:")).collect())
}

/// Bytes of the BPF maps that a process holds, each counted once.
pub(crate) fn bpf_map_bytes(process: u32) -> anyhow::Result<u64> {
    let sizes: BTreeMap<u64, u64> = descriptors(process)?
        .iter()
        .filter_map(|text| Some((field(text, "map_id:")?, field(text, "memlock:")?)))
        .collect();
    Ok(sizes.values().sum())
}

/// The descriptions of all open files; one that has been closed meanwhile is left out.
fn descriptors(process: u32) -> anyhow::Result<Vec<String>> {
    let path = format!("/proc/{process}/fdinfo");
    let entries = fs::read_dir(&path).with_context(|| format!("reading {path}"))?;
    Ok(entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect())
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
