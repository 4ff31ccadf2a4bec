use std::net::{IpAddr, Ipv6Addr};

use trireme_identity::Protocol;

use super::{Extent, Family, Fragment, Hop, MAX_EXTENSION_HEADERS, Packet, byte, word};
use crate::ParseError;
use crate::bytes::{array, be32, put};

pub(super) const HEADER_LEN: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

pub(super) fn parse(bytes: &[u8], extent: Extent) -> Result<Packet, ParseError> {
    if bytes.len() < HEADER_LEN {
        return Err(ParseError::Truncated);
    }
    let payload_len = usize::from(word(bytes, 4)?);
    let first = byte(bytes, 6)?;
    // RFC 2675: a jumbogram has payload length zero and a hop-by-hop header.
    if payload_len == 0 && first == HOP_BY_HOP {
        return Err(ParseError::Jumbogram);
    }
    let total_len = HEADER_LEN + payload_len;
    extent.check(bytes.len(), total_len)?;
    let chain = Chain::walk(bytes, total_len, first)?;
    Ok(Packet {
        family: Family::V6,
        src: address(bytes, 8)?,
        dst: address(bytes, 24)?,
        header_len: chain.end,
        total_len,
        protocol: Protocol(chain.next),
        hop_limit: byte(bytes, 7)?,
        fragment: chain.fragment,
        has_options: chain.end != HEADER_LEN,
        authenticated: chain.authenticated,
    })
}

fn address(bytes: &[u8], at: usize) -> Result<IpAddr, ParseError> {
    let octets: [u8; 16] = array(bytes, at).ok_or(ParseError::Truncated)?;
    Ok(IpAddr::V6(Ipv6Addr::from(octets)))
}

pub(super) fn set_total_len(bytes: &mut [u8], total_len: usize) -> Option<()> {
    let payload_len = u16::try_from(total_len.checked_sub(HEADER_LEN)?).ok()?;
    put(bytes, 4, &payload_len.to_be_bytes())
}

/// Builds a header without extension headers around `payload_len` bytes.
pub(crate) fn build_header(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    protocol: Protocol,
    Hop { limit, class }: Hop,
    payload_len: usize,
) -> Option<Vec<u8>> {
    let len = u16::try_from(payload_len).ok()?;
    let mut header = Vec::with_capacity(HEADER_LEN + payload_len);
    header.extend_from_slice(&[0x60 | (class >> 4), class << 4, 0, 0]);
    header.extend_from_slice(&len.to_be_bytes());
    header.extend_from_slice(&[protocol.0, limit]);
    header.extend_from_slice(&src.octets());
    header.extend_from_slice(&dst.octets());
    Some(header)
}

/// Whether the number stands for an IPv6 extension header (IANA "IPv6 Extension Header Types"), ESP apart: nothing behind that
/// can be read anyway.
pub(crate) const fn is_extension_header(protocol: Protocol) -> bool {
    matches!(
        protocol.0,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | 135 | 139 | 140
    )
}

/// What the extension headers said.
struct Chain {
    end: usize,
    next: u8,
    fragment: Option<Fragment>,
    authenticated: bool,
}

impl Chain {
    fn walk(bytes: &[u8], total_len: usize, first: u8) -> Result<Self, ParseError> {
        let mut chain = Self { end: HEADER_LEN, next: first, fragment: None, authenticated: false };
        for position in 0..=MAX_EXTENSION_HEADERS {
            let len = match chain.next {
                HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                    (usize::from(byte(bytes, chain.end + 1)?) + 1) * 8
                }
                AUTHENTICATION => (usize::from(byte(bytes, chain.end + 1)?) + 2) * 4,
                FRAGMENT => 8,
                _ => return Ok(chain),
            };
            if position == MAX_EXTENSION_HEADERS {
                break;
            }
            let end = chain.end + len;
            if end > total_len {
                return Err(ParseError::TotalLength);
            }
            let header = bytes.get(chain.end..end).ok_or(ParseError::Truncated)?;
            let kind = chain.next;
            chain.end = end;
            chain.next = byte(header, 0)?;
            chain.take(kind, header, position)?;
            if chain.fragment.is_some() {
                return Ok(chain);
            }
        }
        Err(ParseError::ExtensionHeaderCount)
    }

    fn take(&mut self, kind: u8, header: &[u8], position: usize) -> Result<(), ParseError> {
        match kind {
            HOP_BY_HOP if position != 0 => Err(ParseError::ExtensionHeader),
            HOP_BY_HOP | DESTINATION_OPTIONS => check_options(header),
            ROUTING if byte(header, 3)? != 0 => Err(ParseError::SourceRoute),
            AUTHENTICATION if header.len() < 12 || !header.len().is_multiple_of(8) => {
                Err(ParseError::ExtensionHeader)
            }
            AUTHENTICATION => {
                self.authenticated = true;
                Ok(())
            }
            FRAGMENT => {
                let field = word(header, 2)?;
                let (offset, more) = (u32::from(field & 0xfff8), field & 1 != 0);
                let id = be32(header, 4).ok_or(ParseError::Truncated)?;
                self.fragment = (more || offset != 0).then_some(Fragment { offset, more, id });
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Walks the options of a hop-by-hop or destination options header.
fn check_options(header: &[u8]) -> Result<(), ParseError> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let mut options = header.get(2..).ok_or(ParseError::Truncated)?;
    while let Some((&kind, rest)) = options.split_first() {
        if kind == PAD1 {
            options = rest;
            continue;
        }
        if kind == JUMBO {
            return Err(ParseError::Jumbogram);
        }
        let (&len, data) = rest.split_first().ok_or(ParseError::ExtensionHeader)?;
        options = data.get(usize::from(len)..).ok_or(ParseError::ExtensionHeader)?;
    }
    Ok(())
}
