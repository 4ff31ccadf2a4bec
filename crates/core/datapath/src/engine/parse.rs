//! From bytes to a segment of a flow.

use trireme_flow::{FlowKey, PuSlot, Reason};
use trireme_identity::Protocol;
use trireme_wire::checksum::{self, Checksum};
use trireme_wire::datagram::{Datagram, Transport};
use trireme_wire::icmp::{self, Embedded};
use trireme_wire::ip;
use trireme_wire::tap::Body;
use trireme_wire::tcp::Segment;
use trireme_wire::{ParseError, tap};

use crate::Hook;

/// A packet that the engine has an opinion about.
pub(crate) enum Parsed {
    /// A TCP segment.
    Tcp(Segment),
    /// A packet of another protocol.
    Datagram(Datagram),
    /// An ICMP error.
    IcmpError(Box<Embedded>),
}

/// Parses a packet; cuts link-layer padding off.
pub(crate) fn parse(bytes: &mut Vec<u8>) -> Result<Parsed, Reason> {
    ip::trim(bytes).map_err(reason_of)?;
    match Segment::parse(bytes) {
        Ok(segment) => Ok(Parsed::Tcp(segment)),
        Err(ParseError::NotTcp | ParseError::Fragment) => parse_other(bytes),
        Err(error) => Err(reason_of(error)),
    }
}

fn parse_other(bytes: &[u8]) -> Result<Parsed, Reason> {
    let datagram = Datagram::parse(bytes).map_err(reason_of)?;
    let Transport::Icmp(message) = &datagram.transport else { return Ok(Parsed::Datagram(datagram)) };
    if !icmp::is_error(datagram.ip.family, message.icmp_type) {
        return Ok(Parsed::Datagram(datagram));
    }
    icmp::embedded(bytes).map(|error| Parsed::IcmpError(Box::new(error))).ok_or(Reason::IcmpUnknown)
}

/// Checks what a segment may look like. A wrong checksum is refused here: rewriting would make it right.
pub(crate) fn check(bytes: &[u8], segment: &Segment) -> Result<(), Reason> {
    if segment.flags.anomaly().is_some() {
        return Err(Reason::OddFlags);
    }
    match checksum::verify(bytes, segment) {
        Checksum::Valid | Checksum::Partial => Ok(()),
        Checksum::Invalid => Err(Reason::BadChecksum),
    }
}

/// The flow as its unit sees it.
pub(crate) fn flow_key(pu: PuSlot, hook: Hook, segment: &Segment) -> FlowKey {
    hook.flow(pu, Protocol::TCP, segment.tuple())
}

/// The flow of another protocol as its unit sees it.
pub(crate) fn datagram_key(pu: PuSlot, hook: Hook, datagram: &Datagram) -> FlowKey {
    hook.flow(pu, datagram.ip.protocol, datagram.tuple())
}

/// Reads a TAP message of a TCP segment; `None` if the payload does not even claim to be one.
pub(crate) fn tap_header(payload: &[u8]) -> Option<Result<tap::Header, Reason>> {
    let read = tap_message(payload)?;
    // Over TCP nothing stands behind an echoed nonce.
    Some(read.and_then(|header| match header.body {
        Body::Ack { protocol, .. } | Body::Refusal { protocol, .. } | Body::TokenRequest { protocol, .. }
            if protocol != Protocol::TCP =>
        {
            Err(Reason::TapMalformed)
        }
        Body::Syn { .. }
        | Body::SynAck { .. }
        | Body::Ack { .. }
        | Body::Refusal { .. }
        | Body::TokenRequest { .. } => Ok(header),
    }))
}

/// The same for any protocol.
pub(crate) fn tap_message(payload: &[u8]) -> Option<Result<tap::Header, Reason>> {
    match tap::Header::parse(payload) {
        Ok(header) => Some(Ok(header)),
        Err(tap::TapError::NotTap) => None,
        Err(tap::TapError::UnknownVersion(_)) => Some(Err(Reason::TapVersion)),
        Err(_) => Some(Err(Reason::TapMalformed)),
    }
}

fn reason_of(error: ParseError) -> Reason {
    if error == ParseError::Truncated {
        Reason::Truncated
    } else if error == ParseError::Fragment {
        Reason::Fragment
    } else if matches!(error, ParseError::NotTcp | ParseError::NotIcmp) {
        Reason::ProtocolDenied
    } else {
        Reason::Malformed
    }
}
