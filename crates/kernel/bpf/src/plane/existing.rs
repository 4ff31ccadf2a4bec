//! The connections that a PU had before anyone looked.

use std::net::SocketAddr;

use trireme_netns::{Links, Namespace, behind};
use trireme_sock_diag::tcp_connections;

use super::Plane;
use crate::{Edge, ExistingError, Slot};

impl Plane {
    /// Returns the live TCP connections of a PU's sockets, each as (own end, other end), whatever the maps know.
    ///
    /// Those inside its namespace are left out.
    ///
    /// # Errors
    /// [`ExistingError::NamespaceNotFound`] if neither a name nor a process leads to the namespace behind the PU's
    /// interface; the other ones if the kernel refuses.
    pub fn existing_connections(&self, slot: Slot) -> Result<Vec<(SocketAddr, SocketAddr)>, ExistingError> {
        let attached = self.edges.get(&slot).ok_or(ExistingError::NotAttached(slot))?;
        let namespace = match &attached.edge {
            Edge::Namespace { path, .. } => Namespace::open_verified(path, attached.namespace)?,
            Edge::Interface(name) => {
                let index = attached.ifindex;
                let found = self.home.run(|| behind(&Links::connect()?.by_index(index)?))??;
                found.ok_or_else(|| ExistingError::NamespaceNotFound(name.clone()))?
            }
        };
        let connections = namespace.run(tcp_connections)??;
        Ok(connections.iter().map(|connection| (connection.local, connection.remote)).collect())
    }
}
