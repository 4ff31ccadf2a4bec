//! Checked views and edits of packets: IPv4, IPv6, TCP, every other protocol's ports, ICMP errors and the TAP header.
//!
//! Start with [`tcp::Segment`] (the layout of a parsed packet), [`datagram::Datagram`] (the same for every
//! protocol but TCP) and [`tap::Header`] (what an enforcer puts into the payload of a handshake segment). A layout owns offsets and values,
//! so the buffer it was parsed from stays free to be edited with [`edit`], answered with
//! [`build`] or cut up with [`segment::split`].
//!
//! Everything here takes bytes from the network: no function panics, reads past a buffer or
//! changes a buffer when it returns an error. This crate must not keep state, know about
//! tokens, keys or policy, or turn a corrupted checksum into a valid one.
#![forbid(unsafe_code)]

pub mod build;
mod bytes;
pub mod checksum;
pub mod datagram;
pub mod edit;
mod error;
pub mod icmp;
pub mod ip;
pub mod segment;
pub mod tap;
pub mod tcp;
pub mod tuple;

pub use error::ParseError;
