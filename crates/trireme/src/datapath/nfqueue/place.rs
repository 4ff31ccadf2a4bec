//! The network namespace in which a unit is caught.

use std::path::PathBuf;

use trireme_netns::{Namespace, NamespaceId, behind};

use crate::Edge;
use crate::datapath::edge::{self, EdgeError};

/// A namespace, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    way: Way,
    id: NamespaceId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// By its file.
    File(PathBuf),
    /// Behind the host side of a veth.
    Behind(String),
}

impl Place {
    /// Finds the namespace of a unit.
    ///
    /// Must run on a thread outside of any asynchronous runtime.
    pub(super) fn find(edge: &Edge) -> Result<Self, EdgeError> {
        let way = match edge {
            Edge::Interface(name) => Way::Behind(name.clone()),
            Edge::Netns { path, .. } => Way::File(path.clone()),
        };
        let id = way.open()?.id();
        Ok(Self { way, id })
    }

    /// The namespace, if the way still leads to it.
    pub(super) fn open(&self) -> Result<Namespace, EdgeError> {
        let found = self.way.open()?;
        if found.id() == self.id { Ok(found) } else { Err(EdgeError::Absent(self.describe())) }
    }

    pub(super) const fn inode(&self) -> u64 {
        self.id.inode
    }

    pub(super) fn describe(&self) -> String {
        match &self.way {
            Way::File(path) => format!("network namespace {}", path.display()),
            Way::Behind(name) => format!("network namespace behind {name}"),
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
