//! Where programs are attached to catch a unit.

use trireme_netns::{LinkError, host_side};

use crate::Edge;
use crate::datapath::edge::{self, EdgeError};

/// Finds the place; a unit in a namespace is caught at the host side of its veth if it has one here.
///
/// Must run on a thread outside of any asynchronous runtime.
pub(super) fn find(edge: &Edge) -> Result<trireme_bpf::Edge, EdgeError> {
    let (path, named) = match edge {
        Edge::Interface(name) => {
            edge::interface(name)?;
            return Ok(trireme_bpf::Edge::Interface(name.clone()));
        }
        Edge::Netns { path, device } => (path, device.as_deref()),
        Edge::Cgroup { path } => return Err(EdgeError::NeedsQueues(path.clone())),
    };
    let inside = edge::namespace(path)?;
    let device = edge::device(&inside, path, named)?;
    match host_side(&inside, &device) {
        Ok(Some(link)) => Ok(trireme_bpf::Edge::Interface(link.name)),
        Ok(None) => Ok(trireme_bpf::Edge::Namespace { path: path.to_owned(), device }),
        Err(LinkError::Absent(name)) => {
            Err(EdgeError::Absent(format!("{name} in the network namespace {}", path.display())))
        }
        Err(error) => Err(error.into()),
    }
}
