//! Looking at packets on their way.

use trireme_wire::tap::{self, Kind};
use trireme_wire::tcp::Segment;

/// The kind of TAP message a packet carries as its whole payload.
#[must_use]
pub fn kind_of(packet: &[u8]) -> Option<Kind> {
    let segment = Segment::parse(packet).ok()?;
    tap::Header::parse(segment.payload(packet)).ok().map(|header| header.kind())
}

/// Whether a packet belongs to a connection with this port at the server.
#[must_use]
pub fn is_of_port(packet: &[u8], port: u16) -> bool {
    Segment::parse(packet).is_ok_and(|segment| segment.src_port == port || segment.dst_port == port)
}

/// The payload of a TCP packet.
#[must_use]
pub fn payload_of(packet: &[u8]) -> Vec<u8> {
    Segment::parse(packet).map(|segment| segment.payload(packet).to_vec()).unwrap_or_default()
}
