//! Where a unit is caught: a network namespace of its own, or a cgroup in the agent's.

use std::path::PathBuf;

use trireme_netns::{Namespace, NamespaceId, behind};

use super::cgroup::Cgroup;
use crate::Edge;
use crate::datapath::edge::{self, EdgeError};

/// A place, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Namespace { way: Way, id: NamespaceId },
    Host { cgroup: Cgroup, id: NamespaceId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// By its file.
    File(PathBuf),
    /// Behind the host side of a veth.
    Behind(String),
}

impl Place {
    /// Finds the place of a unit.
    ///
    /// Must run on a thread outside of any asynchronous runtime.
    pub(super) fn find(edge: &Edge) -> Result<Self, EdgeError> {
        let way = match edge {
            Edge::Interface(name) => Way::Behind(name.clone()),
            Edge::Netns { path, .. } => Way::File(path.clone()),
            Edge::Cgroup { path } => {
                let cgroup = Cgroup::find(path)?;
                return Ok(Self(Kind::Host { cgroup, id: own()?.id() }));
            }
        };
        let id = way.open()?.id();
        Ok(Self(Kind::Namespace { way, id }))
    }

    /// Its namespace, if the place is there still.
    pub(super) fn open(&self) -> Result<Namespace, EdgeError> {
        let (found, id) = match &self.0 {
            Kind::Namespace { way, id } => (way.open()?, id),
            Kind::Host { cgroup, id } => {
                cgroup.check()?;
                (own()?, id)
            }
        };
        if found.id() == *id { Ok(found) } else { Err(EdgeError::Absent(self.describe())) }
    }

    /// Of the namespace.
    pub(super) const fn inode(&self) -> u64 {
        match &self.0 {
            Kind::Namespace { id, .. } | Kind::Host { id, .. } => id.inode,
        }
    }

    /// Of a unit of the host.
    pub(super) const fn cgroup(&self) -> Option<&Cgroup> {
        match &self.0 {
            Kind::Namespace { .. } => None,
            Kind::Host { cgroup, .. } => Some(cgroup),
        }
    }

    pub(super) fn describe(&self) -> String {
        match &self.0 {
            Kind::Namespace { way: Way::File(path), .. } => format!("network namespace {}", path.display()),
            Kind::Namespace { way: Way::Behind(name), .. } => format!("network namespace behind {name}"),
            Kind::Host { cgroup, .. } => cgroup.describe(),
        }
    }
}

impl Way {
    fn open(&self) -> Result<Namespace, EdgeError> {
        match self {
            Self::File(path) => edge::namespace(path),
            Self::Behind(name) => {
                let link = edge::interface(name)?;
                behind(&link)?.ok_or_else(|| EdgeError::NothingBehind(name.clone()))
            }
        }
    }
}

/// The namespace of the agent.
fn own() -> Result<Namespace, EdgeError> {
    Namespace::current().map_err(EdgeError::Own)
}
