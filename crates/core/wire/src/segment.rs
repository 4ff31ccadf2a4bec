//! Segmentation of one big TCP packet, as an interface with segmentation offload does it.

use thiserror::Error;

use crate::ParseError;
use crate::bytes::{be16, put};
use crate::checksum::{self, Checksum};
use crate::ip::{self, Family};
use crate::tcp::{self, Flags, Segment};

/// Why a packet cannot be segmented.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SplitError {
    /// The bytes are not a TCP packet.
    #[error("packet does not parse")]
    Parse(#[from] ParseError),
    /// The segment size is zero.
    #[error("segment size is zero")]
    ZeroSize,
    /// The checksum is wrong; segments with right ones would hide that.
    #[error("checksum is wrong")]
    Corrupt,
    /// A SYN or RST with more payload than one segment holds.
    #[error("a SYN or RST cannot be segmented")]
    NotData,
    /// An IPsec authentication header covers the packet.
    #[error("packet is covered by an IPsec authentication header")]
    Authenticated,
}

/// Cuts a packet into packets of at most `mss` payload bytes each, with full checksums.
///
/// Headers and options are copied, sequence numbers (and IPv4 identification) advance, FIN and
/// PSH stay on the last only, CWR on the first only.
///
/// # Errors
/// [`SplitError::Corrupt`] unless the checksum is right or partial.
pub fn split(bytes: &[u8], mss: usize) -> Result<Vec<Vec<u8>>, SplitError> {
    let segment = Segment::parse(bytes)?;
    if mss == 0 {
        return Err(SplitError::ZeroSize);
    }
    if segment.ip.authenticated {
        return Err(SplitError::Authenticated);
    }
    if checksum::verify(bytes, &segment) == Checksum::Invalid {
        return Err(SplitError::Corrupt);
    }
    let payload = segment.payload(bytes);
    if payload.len() <= mss {
        let mut whole = bytes.to_vec();
        checksum::complete(&mut whole)?;
        return Ok(vec![whole]);
    }
    if segment.flags.intersects(Flags::SYN.union(Flags::RST)) {
        return Err(SplitError::NotData);
    }

    let headers = bytes.get(..segment.payload.start).ok_or(ParseError::Truncated)?;
    let last = payload.len().div_ceil(mss) - 1;
    let mut seq = segment.seq;
    let mut packets = Vec::with_capacity(last + 1);
    for (index, chunk) in payload.chunks(mss).enumerate() {
        let mut flags = segment.flags;
        if index != 0 {
            flags = flags.without(Flags::CWR);
        }
        if index != last {
            flags = flags.without(Flags::FIN.union(Flags::PSH));
        }
        packets.push(piece(&segment, headers, chunk, index, seq, flags)?);
        seq = seq.wrapping_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
    }
    Ok(packets)
}

fn piece(
    segment: &Segment,
    headers: &[u8],
    chunk: &[u8],
    index: usize,
    seq: u32,
    flags: Flags,
) -> Result<Vec<u8>, ParseError> {
    let mut packet = Vec::with_capacity(headers.len() + chunk.len());
    packet.extend_from_slice(headers);
    packet.extend_from_slice(chunk);
    let len = packet.len();
    let ip = &segment.ip;
    ip::set_total_len(&mut packet, ip.family, len).ok_or(ParseError::TotalLength)?;
    if ip.family == Family::V4 {
        let step = u16::try_from(index).unwrap_or(u16::MAX);
        let id = be16(&packet, 4).ok_or(ParseError::Truncated)?.wrapping_add(step);
        put(&mut packet, 4, &id.to_be_bytes()).ok_or(ParseError::Truncated)?;
    }
    let seq_at = ip.header_len + tcp::SEQ_AT;
    put(&mut packet, seq_at, &seq.to_be_bytes()).ok_or(ParseError::Truncated)?;
    let flags_at = ip.header_len + tcp::FLAGS_AT;
    put(&mut packet, flags_at, &[flags.0]).ok_or(ParseError::Truncated)?;
    checksum::complete(&mut packet)?;
    Ok(packet)
}
