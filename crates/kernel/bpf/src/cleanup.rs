//! Removing everything an instance left in the kernel.

use std::fs;
use std::path::Path;

use aya::maps::{Map as AyaMap, MapData};
use trireme_bpf_abi::{ABI_VERSION, EdgeRecord, edge_flag};
use trireme_netns::{Links, Namespace};

use crate::attach::{Attachment, detach_link, remove_clsact};
use crate::edge::{from_record, namespace_of};
use crate::error::Cause;
use crate::maps::{Map, Named};
use crate::pins::{self, LockError, link_path};
use crate::{CleanupError, Edge, Hook, Slot};

/// What a clean-up removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// PUs that were attached.
    pub detached: Vec<Slot>,
    /// Pins that were removed.
    pub pins: usize,
}

pub(crate) fn run(bpffs: &Path, instance: &str) -> Result<CleanupReport, CleanupError> {
    if !pins::is_valid_instance(instance) {
        return Err(CleanupError::Instance(instance.to_owned()));
    }
    let directory = pins::directory(bpffs, instance);
    let mut report = CleanupReport::default();
    if !directory.exists() {
        return Ok(report);
    }
    let lock = pins::lock(&directory).map_err(|error| match error {
        LockError::Busy => CleanupError::InUse(instance.to_owned()),
        LockError::Io(error) => CleanupError::Incomplete(vec![error.into()]),
    })?;
    let mut problems = Vec::new();
    // Records of edges are the same in all versions so far.
    for version in 1..=ABI_VERSION {
        detach_recorded(&directory.join(format!("v{version}")), &mut report, &mut problems);
    }
    remove_tree(&directory, &mut report, &mut problems);
    drop(lock);
    // Other instances may live beside this one.
    if let Some(parent) = directory.parent()
        && fs::read_dir(parent).is_ok_and(|mut entries| entries.next().is_none())
        && let Err(error) = fs::remove_dir(parent)
    {
        problems.push(error.into());
    }
    if problems.is_empty() { Ok(report) } else { Err(CleanupError::Incomplete(problems)) }
}

/// How many PUs an instance has attached, whether a process holds it or not; those of versions that cannot be read do not
/// count.
pub(crate) fn attached(bpffs: &Path, instance: &str) -> usize {
    let directory = pins::directory(bpffs, instance);
    let versions = (1..=ABI_VERSION).map(|version| directory.join(format!("v{version}")).join("edges"));
    versions
        .filter(|path| path.exists())
        .filter_map(|path| recorded(&path).ok())
        .map(|edges| edges.len())
        .sum()
}

/// Detaches one PU by its record, in the namespace it lies in.
pub(crate) fn detach_record(maps: &Path, slot: Slot, record: &EdgeRecord, problems: &mut Vec<Cause>) {
    let edge = from_record(record);
    let name = match &edge {
        Edge::Interface(name) | Edge::Namespace { device: name, .. } => name.clone(),
    };
    if record.flags & edge_flag::CLSACT == 0 {
        // A link is detached from wherever we are.
        for hook in [Hook::FromPu, Hook::ToPu] {
            if let Err(error) = detach_link(&link_path(maps, slot, hook)) {
                problems.push(error);
            }
        }
        return;
    }
    let Some(namespace) = namespace(&edge, record) else { return };
    let work = || -> Result<(), Cause> {
        let Ok(link) = Links::connect()?.by_index(record.ifindex) else { return Ok(()) };
        for hook in [Hook::FromPu, Hook::ToPu] {
            let pin = link_path(maps, slot, hook);
            let attachment = Attachment {
                name: if link.name.is_empty() { &name } else { &link.name },
                ifindex: record.ifindex,
                flags: record.flags,
                hook,
                pin: &pin,
                held: None,
            };
            attachment.detach()?;
        }
        if record.flags & edge_flag::QDISC_CREATED != 0 {
            remove_clsact(record.ifindex)?;
        }
        Ok(())
    };
    match namespace.run(work) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => problems.push(error),
        Err(error) => problems.push(error.into()),
    }
}

/// The namespace of a record; None if it is gone, and everything in it with it.
fn namespace(edge: &Edge, record: &EdgeRecord) -> Option<Namespace> {
    match edge {
        Edge::Interface(_) => Namespace::current().ok().filter(|own| own.id() == namespace_of(record)),
        Edge::Namespace { path, .. } => Namespace::open_verified(path, namespace_of(record)).ok(),
    }
}

fn detach_recorded(maps: &Path, report: &mut CleanupReport, problems: &mut Vec<Cause>) {
    let path = maps.join("edges");
    if !path.exists() {
        return;
    }
    match recorded(&path) {
        Err(error) => problems.push(error),
        Ok(records) => {
            for (slot, record) in records {
                detach_record(maps, slot, &record, problems);
                report.detached.push(slot);
            }
        }
    }
}

fn recorded(path: &Path) -> Result<Vec<(Slot, EdgeRecord)>, Cause> {
    let map = AyaMap::HashMap(MapData::from_pin(path)?);
    let edges: Map<EdgeRecord, 4, 256> = Named { name: "edges", map }.table()?;
    Ok(edges.entries()?.into_iter().map(|(key, record)| (Slot(u32::from_ne_bytes(key)), record)).collect())
}

/// Removes pins bottom up; links first detach, those of a version we cannot read as well.
fn remove_tree(directory: &Path, report: &mut CleanupReport, problems: &mut Vec<Cause>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(error.into());
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_tree(&path, report, problems);
            continue;
        }
        let removed = if directory.ends_with("links") {
            detach_link(&path)
        } else {
            fs::remove_file(&path).map_err(Cause::from)
        };
        match removed {
            Ok(()) => report.pins += 1,
            Err(error) => problems.push(error),
        }
    }
    if let Err(error) = fs::remove_dir(directory) {
        problems.push(error.into());
    }
}
