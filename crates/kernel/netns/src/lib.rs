//! Network namespaces and their links: enter a namespace for the length of one closure, create and move veth
//! pairs, find the host side of a veth and the namespace behind it.
//!
//! Start from [`Namespace`] (a descriptor of a network namespace, with the identity of its inode) and [`Links`]
//! (a netlink connection into the namespace of the calling thread).
//!
//! This crate must not leave a thread of its caller in another namespace: a namespace is entered only by a
//! short-lived thread of its own, which verifies where it is before anything else runs.

mod behind;
mod link;
mod namespace;
mod offload;
mod sysctl;

pub use behind::{behind, reachable};
pub use link::{Filter, Link, LinkError, Links, host_side};
pub use namespace::{Namespace, NamespaceError, NamespaceId};
pub use offload::merges_received;
pub use sysctl::disable_ipv6;
