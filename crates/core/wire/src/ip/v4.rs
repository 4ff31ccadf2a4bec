use std::net::{IpAddr, Ipv4Addr};

use trireme_identity::Protocol;

use super::{Extent, Family, Fragment, Hop, Packet, byte, word};
use crate::ParseError;
use crate::bytes::{array, be16, put};
use crate::checksum::{Delta, Sum};

const MIN_HEADER_LEN: usize = 20;
const CHECKSUM_AT: usize = 10;
const MORE_FRAGMENTS: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;
const OFFSET_MASK: u16 = 0x1fff;

pub(super) fn parse(bytes: &[u8], extent: Extent) -> Result<Packet, ParseError> {
    let header_len = usize::from(byte(bytes, 0)? & 0x0f) * 4;
    if header_len < MIN_HEADER_LEN {
        return Err(ParseError::HeaderLength);
    }
    let total_len = usize::from(word(bytes, 2)?);
    if total_len < header_len {
        return Err(ParseError::TotalLength);
    }
    extent.check(bytes.len(), total_len)?;
    let options = bytes.get(MIN_HEADER_LEN..header_len).ok_or(ParseError::Truncated)?;
    check_options(options)?;

    let fragment = word(bytes, 6)?;
    let offset = fragment & OFFSET_MASK;
    let more = fragment & MORE_FRAGMENTS != 0;
    Ok(Packet {
        family: Family::V4,
        src: address(bytes, 12)?,
        dst: address(bytes, 16)?,
        header_len,
        total_len,
        protocol: Protocol(byte(bytes, 9)?),
        hop_limit: byte(bytes, 8)?,
        fragment: (more || offset != 0).then_some(Fragment {
            offset: u32::from(offset) * 8,
            more,
            id: u32::from(word(bytes, 4)?),
        }),
        has_options: !options.is_empty(),
        authenticated: false,
    })
}

fn address(bytes: &[u8], at: usize) -> Result<IpAddr, ParseError> {
    let octets: [u8; 4] = array(bytes, at).ok_or(ParseError::Truncated)?;
    Ok(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Walks the options; a loose or strict source route makes the destination a mere next hop.
fn check_options(mut options: &[u8]) -> Result<(), ParseError> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some((&kind, rest)) = options.split_first() {
        if kind == END {
            return Ok(());
        }
        if kind == NO_OPERATION {
            options = rest;
            continue;
        }
        if matches!(kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE) {
            return Err(ParseError::SourceRoute);
        }
        let len = usize::from(*rest.first().ok_or(ParseError::IpOptions)?);
        if len < 2 {
            return Err(ParseError::IpOptions);
        }
        options = options.get(len..).ok_or(ParseError::IpOptions)?;
    }
    Ok(())
}

pub(super) fn set_total_len(bytes: &mut [u8], total_len: usize) -> Option<()> {
    let new = u16::try_from(total_len).ok()?.to_be_bytes();
    let old: [u8; 2] = array(bytes, 2)?;
    let mut delta = Delta::default();
    delta.replace(&old, &new);
    update_checksum(bytes, delta)?;
    put(bytes, 2, &new)
}

/// Applies a change of header bytes to the header checksum.
pub(crate) fn update_checksum(bytes: &mut [u8], delta: Delta) -> Option<()> {
    let field = be16(bytes, CHECKSUM_AT)?;
    put(bytes, CHECKSUM_AT, &delta.apply(field).to_be_bytes())
}

/// Computes the header checksum anew.
pub(crate) fn refresh_checksum(bytes: &mut [u8], header_len: usize) -> Option<()> {
    put(bytes, CHECKSUM_AT, &[0, 0])?;
    let sum = Sum::default().with(bytes.get(..header_len)?);
    put(bytes, CHECKSUM_AT, &(!sum.fold()).to_be_bytes())
}

/// Returns whether the header checksum is right.
pub(crate) fn header_is_intact(bytes: &[u8], header_len: usize) -> bool {
    bytes.get(..header_len).is_some_and(|header| Sum::default().with(header).fold() == u16::MAX)
}

/// Builds a header without options around `payload_len` bytes.
pub(crate) fn build_header(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: Protocol,
    Hop { limit, class }: Hop,
    payload_len: usize,
) -> Option<Vec<u8>> {
    let total_len = u16::try_from(MIN_HEADER_LEN.checked_add(payload_len)?).ok()?;
    let mut header = Vec::with_capacity(usize::from(total_len));
    header.extend_from_slice(&[0x45, class]);
    header.extend_from_slice(&total_len.to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    header.extend_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header.extend_from_slice(&[limit, protocol.0, 0, 0]);
    header.extend_from_slice(&src.octets());
    header.extend_from_slice(&dst.octets());
    refresh_checksum(&mut header, MIN_HEADER_LEN)?;
    Some(header)
}
