//! How wrong the checksums of a packet are, added up by hand: nothing here is shared with engine or programs.

use trireme_wire::ip::Packet;

/// How far the sums are from those of an intact packet: of the IPv4 header and of the TCP segment. Zero is intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errors {
    pub(crate) ip: u16,
    pub(crate) tcp: u16,
}

/// Errors of a TCP packet; `None` if its IP header cannot be read.
pub(crate) fn errors(bytes: &[u8]) -> Option<Errors> {
    let packet = Packet::parse(bytes).ok()?;
    let addresses = if bytes[0] >> 4 == 4 { &bytes[12..20] } else { &bytes[8..40] };
    let ip = if bytes[0] >> 4 == 4 { !sum(0, &bytes[..packet.header_len]) } else { 0 };
    let length = u32::try_from(packet.payload_len()).ok()?;
    let pseudo = sum(6 + length, addresses);
    Some(Errors { ip, tcp: !sum(u32::from(pseudo), &bytes[packet.header_len..]) })
}

/// Ones' complement sum; never zero but for all-zero bytes, so that there is one number for "intact".
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |low| u32::from(*low)));
    let mut total: u32 = start + words.sum::<u32>();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

/// The packet with both checksum fields zero.
pub(crate) fn without(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Ok(packet) = Packet::parse(&bytes) else { return bytes };
    if bytes[0] >> 4 == 4 {
        bytes[10..12].fill(0);
    }
    if let Some(field) = bytes.get_mut(packet.header_len + 16..packet.header_len + 18) {
        field.fill(0);
    }
    bytes
}
