//! The page docs/benchmarks.md.

use std::fmt::Write;

use anyhow::Context;

use super::{Results, Row, Value};
use crate::profile::Table;

/// The whole page.
pub(crate) fn markdown(results: &Results, profiles: &[Table]) -> anyhow::Result<String> {
    let mut text = format!("{INTRODUCTION}\n\n{}\n", machine()?);
    text.push_str(
        "\n| case | target | ratio | min - max | rounds | compared with | there | here | unit |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in results.rows() {
        line_of(&mut text, &row)?;
    }
    text.push_str("\n| case | target | value | min - max | rounds | unit |\n|---|---|---|---|---|---|\n");
    for Value { case, value, min, max, rounds, unit, target } in results.values() {
        let target = target.unwrap_or("");
        writeln!(text, "| {case} | {target} | {value:.2} | {min:.2} - {max:.2} | {rounds} | {unit} |")?;
    }
    text.push_str(CASES);
    text.push_str(PROFILE);
    for table in profiles {
        writeln!(text, "\n{}, {:.0}/s:\n", table.load, table.per_second)?;
        text.push_str(
            "| program | calls per operation | ns per call | ns per operation |\n|---|---|---|---|\n",
        );
        for usage in &table.usages {
            writeln!(
                text,
                "| {} | {:.2} | {:.0} | {:.0} |",
                usage.program,
                usage.calls_per_operation,
                usage.ns_per_call,
                usage.ns_per_call * usage.calls_per_operation
            )?;
        }
    }
    if let [connections, established] = profiles {
        text.push_str(
            "\n| program | ns per handshake segment | ns per established segment |\n|---|---|---|\n",
        );
        for (program, handshake, segment) in steps(connections, established) {
            writeln!(text, "| {program} | {handshake:.0} | {segment:.0} |")?;
        }
    }
    Ok(text)
}

/// What the three segments of a handshake cost on average, the other calls of a connection taken for established ones.
fn steps<'a>(connections: &'a Table, established: &'a Table) -> impl Iterator<Item = (&'a str, f64, f64)> {
    const SEGMENTS: f64 = 3.0;
    connections.usages.iter().filter_map(|usage| {
        let same = established.usages.iter().find(|other| other.program == usage.program)?;
        let all = usage.calls_per_operation * usage.ns_per_call;
        let others = (usage.calls_per_operation - SEGMENTS) * same.ns_per_call;
        (same.calls_per_operation > 0.5).then_some((
            usage.program.as_str(),
            (all - others) / SEGMENTS,
            same.ns_per_call,
        ))
    })
}

fn line_of(text: &mut String, row: &Row) -> std::fmt::Result {
    let Row { case, variant, ratio, min, max, rounds, unit, against, base, measured, added, target } = row;
    let variant = variant.map(|variant| format!(", {variant}")).unwrap_or_default();
    let added = added.map(|added| format!(", adds {added:.1} us")).unwrap_or_default();
    writeln!(
        text,
        "| {case}{variant} | {} | {ratio:.3}{added} | {min:.3} - {max:.3} | {rounds} | {against} | {base:.0} | \
         {measured:.0} | {unit} |",
        target.unwrap_or("")
    )
}

fn machine() -> anyhow::Result<String> {
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel release")?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo").context("reading the processor's name")?;
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(':')))
        .map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!("Machine: {cores} cores of {cpu}; kernel {}.", kernel.trim()))
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench`. Two nodes and a router in network namespaces of one machine, so both ends, both agents and the
load share its cores. Cases are interleaved in rounds, base and case next to each other in turns; a ratio is the median of
the rounds' ratios. Compare ratios, never absolute numbers. Agents use PKI with the certificate on the wire and mutual
authorization; policy is one rule by tag.";

/// What the cases are, below the tables.
const CASES: &str = "
- crr-fast-path: 8 clients connect, exchange one byte each way and close; identities know each other. By IPv4, by IPv6, and
  while both nodes rotate their tokens. `make bench-quick` prints the worst of the three.
- crr-many: the same with 100 workloads on each node and 10,000 peers in each node's maps, against the small case.
- crr-punt: the same with the fast path switched off: every handshake segment goes through user space at both ends.
- connect-known: how long `connect` takes with one client at a time.
- first-contact: the first connection of two nodes that never met (certificate and token are verified at both ends), and
  of two workloads that never met on nodes that have.
- bulk, rr-established: bytes, and round trips of one byte, on one established connection.
- non-pu: the same loads between workloads that no agent knows, on the same nodes, bridges and uplinks.
- refused-hammering: connections/s of an allowed client while a neighbour that no policy admits tries 10,000 times per
  second, against the same client alone; refused-hammering-no-hooks is the same without Trireme (the neighbour is
  answered there).
- syn-flood: connections/s of an allowed client while 100,000 SYNs per second with 2,048 different tokens of unknown
  senders arrive from the router (signatures that are wrong only when checked), against the same flood without Trireme;
  syn-flood-syns is the rate that the sender reached, syn-flood-punts how many segments went to user space.
- policy-cut: from the change of the policy to the last byte that a connection carries which is no longer allowed.
- agent-rss: the larger agent, after all of the load; -million: with 1,000,000 connections, 100 workloads, 10,000 peers.
- nfqueue: the same loads with netfilter queues in the units' namespaces at both ends; nfqueue-agent-cpu is what both agents
  take together, nfqueue-drops what no queue had room for.
- nfqueue-floor: the same rules, and programs that admit everybody without a look: what queues themselves cost.
- nfqueue-rules: from listing to having written one unit's rules, when an agent begins with 1,000 units, each in a network
  namespace of its own; nfqueue-idle-cpu is what looking after them takes when nothing happens, helper programs included.
- punts-per-connection: segments that went to user space at both ends together, in crr-fast-path by IPv4.
";

const PROFILE: &str = "
## Where the time goes

The kernel's own statistics (`kernel.bpf_stats_enabled`) of the programs on the hooks of both nodes. Reading the clock
twice per call is part of the numbers, a few tens of nanoseconds; they are off in all cases above.
";
