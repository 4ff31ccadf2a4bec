//! Where a PU meets the network.

use std::path::PathBuf;

use trireme_bpf_abi::{EdgeRecord, edge_flag};
use trireme_netns::NamespaceId;

use crate::{PuState, Slot};

/// Where a PU's packets are seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Edge {
    /// An interface of the namespace in which the plane was opened: the host side of the PU's veth.
    Interface(String),
    /// An interface inside the PU's network namespace, for a PU without a host side.
    ///
    /// Whoever has CAP_NET_RAW in there gets past the program that sees what the PU sends.
    Namespace {
        /// Path of the namespace, such as `/run/netns/blue`; at most 215 bytes.
        path: PathBuf,
        /// Name of the interface in it.
        device: String,
    },
}

/// An attached PU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeInfo {
    /// The PU.
    pub slot: Slot,
    /// Where it is attached.
    pub edge: Edge,
    /// Interface index in its namespace.
    pub ifindex: u32,
    /// State in the maps.
    pub state: PuState,
    /// True if the interface is gone; detach the slot.
    pub vanished: bool,
}

/// Key of the map `pus`: the interface index, or for an edge inside a namespace, where indices repeat, the slot.
pub(crate) fn edge_key(flags: u32, slot: Slot, ifindex: u32) -> u32 {
    if flags & edge_flag::NAMESPACE != 0 { 0x8000_0000 | slot.0 } else { ifindex }
}

pub(crate) fn to_record(edge: &Edge, ifindex: u32, flags: u32, namespace: NamespaceId) -> EdgeRecord {
    let (name, path) = match edge {
        Edge::Interface(name) => (name.as_str(), ""),
        Edge::Namespace { path, device } => (device.as_str(), path.to_str().unwrap_or("")),
    };
    let mut record = EdgeRecord {
        ifindex,
        flags,
        netns_device: namespace.device,
        netns_inode: namespace.inode,
        name: [0; 16],
        path: [0; 216],
    };
    fill(&mut record.name, name);
    fill(&mut record.path, path);
    record
}

pub(crate) fn from_record(record: &EdgeRecord) -> Edge {
    let device = text(&record.name);
    if record.flags & edge_flag::NAMESPACE == 0 {
        return Edge::Interface(device);
    }
    Edge::Namespace { path: PathBuf::from(text(&record.path)), device }
}

pub(crate) fn namespace_of(record: &EdgeRecord) -> NamespaceId {
    NamespaceId { device: record.netns_device, inode: record.netns_inode }
}

fn fill(to: &mut [u8], text: &str) {
    for (to, from) in to.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
