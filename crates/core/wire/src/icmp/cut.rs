use thiserror::Error;
use trireme_identity::Protocol;

use super::{Embedded, HEADER_LEN, embedded, length_field, pseudo, verify};
use crate::bytes::put;
use crate::checksum::pseudo_header;
use crate::ip::{self, Family};
use crate::tap;
use crate::tcp::{self, Flags};

/// Why a quoted packet could not be cut.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CutError {
    /// The packet is no ICMP error about a packet of a flow.
    #[error("packet is no ICMP error about a packet of a flow")]
    NotEmbedded,
    /// The ICMP checksum is wrong; a cut packet with a right one would hide that.
    #[error("ICMP checksum is wrong")]
    Corrupt,
    /// An IPsec authentication header covers the packet.
    #[error("packet is covered by an IPsec authentication header")]
    Authenticated,
}

/// Removes a TAP payload from the packet that an ICMP error quotes; returns whether there was one.
///
/// Afterwards the quoted headers are those that the sender's own stack sent: lengths without the
/// TAP bytes, checksums that fit. An RFC 4884 extension behind the quoted packet goes as well,
/// since it needs the padding of the longer quote. A quote that ends before its payload stays.
///
/// # Errors
/// [`CutError::Corrupt`] if there is something to cut and the ICMP checksum is wrong.
pub fn cut_embedded_payload(bytes: &mut Vec<u8>) -> Result<bool, CutError> {
    let error = embedded(bytes).ok_or(CutError::NotEmbedded)?;
    let quote = bytes.get(error.quoted.clone()).unwrap_or_default();
    let Some(headers_len) = headers_before_tap(&error, quote) else {
        return Ok(false);
    };
    if error.ip.authenticated {
        return Err(CutError::Authenticated);
    }
    if !verify(bytes) {
        return Err(CutError::Corrupt);
    }
    let mut quote = quote.get(..headers_len).unwrap_or_default().to_vec();
    restore_quote(&error, &mut quote).ok_or(CutError::NotEmbedded)?;

    let mut cut = bytes.get(..error.quoted.start).unwrap_or_default().to_vec();
    cut.extend_from_slice(&quote);
    refresh_outer(&error, &mut cut).ok_or(CutError::NotEmbedded)?;
    *bytes = cut;
    Ok(true)
}

/// Returns the length of the quoted headers if a TAP payload, or its beginning, follows them.
fn headers_before_tap(error: &Embedded, quote: &[u8]) -> Option<usize> {
    if error.quoted_ip.protocol != Protocol::TCP {
        return None;
    }
    let tcp = quote.get(error.quoted_ip.header_len..)?;
    let flags = Flags(*tcp.get(tcp::FLAGS_AT)?);
    if !flags.intersects(Flags::SYN_ACK) || flags.intersects(Flags::RST) {
        return None;
    }
    let header_len = tcp::header_len(tcp)?;
    let payload_end = error.quoted_ip.total_len.min(quote.len());
    let start = error.quoted_ip.header_len + header_len;
    let payload = quote.get(start..payload_end)?;
    let seen = payload.len().min(tap::MAGIC.len());
    let is_tap = seen > 0 && payload.get(..seen) == tap::MAGIC.get(..seen);
    is_tap.then_some(start)
}

/// Makes the quoted headers those of a segment without payload.
fn restore_quote(error: &Embedded, quote: &mut [u8]) -> Option<()> {
    let ip = &error.quoted_ip;
    let total_len = quote.len();
    ip::set_total_len(quote, ip.family, total_len)?;
    if ip.family == Family::V4 {
        ip::refresh_ipv4_checksum(quote, ip.header_len)?;
    }
    let at = ip.header_len + tcp::CHECKSUM_AT;
    put(quote, at, &[0, 0])?;
    let tcp = quote.get(ip.header_len..)?;
    let sum = pseudo_header(ip.src, ip.dst, Protocol::TCP, tcp.len()).with(tcp);
    put(quote, at, &(!sum.fold()).to_be_bytes())
}

/// Fixes lengths and checksums around the shorter quote.
fn refresh_outer(error: &Embedded, bytes: &mut [u8]) -> Option<()> {
    let ip = &error.ip;
    let total_len = bytes.len();
    ip::set_total_len(bytes, ip.family, total_len)?;
    if let Some((at, _)) = length_field(ip.family, error.icmp_type) {
        put(bytes, ip.header_len + at, &[0])?;
    }
    let at = ip.header_len + 2;
    put(bytes, at, &[0, 0])?;
    let message = bytes.get(ip.header_len..)?;
    debug_assert!(message.len() >= HEADER_LEN, "the header stays");
    let sum = pseudo(ip, message.len()).with(message);
    put(bytes, at, &(!sum.fold()).to_be_bytes())
}
