//! Random packets, assembled here byte by byte so that the crate is not its own judge.

use proptest::collection::vec;
use proptest::prelude::*;

/// A random packet and what it was made from.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) version: u8,
    pub(crate) ip_header_len: usize,
    pub(crate) tcp_header_len: usize,
    pub(crate) partial: bool,
}

impl Sample {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.ip_header_len + self.tcp_header_len..]
    }

    pub(crate) fn tcp_checksum(&self) -> u16 {
        let at = self.ip_header_len + 16;
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}

/// A packet of either family, with any options and with a full or a partial checksum.
pub(crate) fn packet() -> impl Strategy<Value = Sample> {
    packet_with_payload(0..400)
}

pub(crate) fn packet_with_payload(len: std::ops::Range<usize>) -> impl Strategy<Value = Sample> {
    let ip = prop_oneof![ipv4_header(), ipv6_header()];
    (ip, tcp_header(), vec(any::<u8>(), len), any::<bool>())
        .prop_map(|(ip, tcp, payload, partial)| assemble(ip, tcp, &payload, partial))
}

fn assemble(ip: Vec<u8>, tcp: Vec<u8>, payload: &[u8], partial: bool) -> Sample {
    let version = ip[0] >> 4;
    let (ip_header_len, tcp_header_len) = (ip.len(), tcp.len());
    let mut bytes = [ip, tcp, payload.to_vec()].concat();
    let total = u16::try_from(bytes.len()).unwrap();
    if version == 4 {
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        let sum = !naive_sum(&bytes[..ip_header_len]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        bytes[4..6].copy_from_slice(&(total - 40).to_be_bytes());
    }
    let pseudo = naive_pseudo_header(&bytes, ip_header_len);
    let covered = if partial { pseudo } else { [pseudo, bytes[ip_header_len..].to_vec()].concat() };
    let sum = naive_sum(&covered);
    let field = if partial { sum } else { !sum };
    let at = ip_header_len + 16;
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    Sample { bytes, version, ip_header_len, tcp_header_len, partial }
}

/// The 96-bit or 320-bit pseudo-header of RFC 9293 or RFC 8200.
pub(crate) fn naive_pseudo_header(bytes: &[u8], ip_header_len: usize) -> Vec<u8> {
    let len = u32::try_from(bytes.len() - ip_header_len).unwrap();
    let addresses = if bytes[0] >> 4 == 4 { bytes[12..20].to_vec() } else { bytes[8..40].to_vec() };
    [addresses, len.to_be_bytes().to_vec(), vec![0, 0, 0, 6]].concat()
}

/// RFC 1071, one word at a time.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(pair[0]) * 256 + u32::from(low);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn ipv4_header() -> BoxedStrategy<Vec<u8>> {
    let option = (2_u8..=255, vec(any::<u8>(), 0..8))
        .prop_filter_map("source routes are refused", |(kind, data)| {
            (kind != 131 && kind != 137).then(|| tlv(kind, 2, &data))
        });
    let options = vec(prop_oneof![option, Just(vec![1])], 0..6);
    let fields = (any::<u8>(), any::<u16>(), any::<bool>(), any::<u8>());
    (options, fields, any::<[u8; 4]>(), any::<[u8; 4]>())
        .prop_map(|(options, (tos, id, keep_whole, ttl), src, dst)| {
            let mut options = fit(options, 40);
            options.resize(options.len().next_multiple_of(4), 0);
            let words = u8::try_from(5 + options.len() / 4).unwrap();
            let flags = if keep_whole { 0x40 } else { 0 };
            let mut header = vec![0x40 | words, tos, 0, 0];
            header.extend_from_slice(&id.to_be_bytes());
            header.extend_from_slice(&[flags, 0, ttl, 6, 0, 0]);
            header.extend_from_slice(&src);
            header.extend_from_slice(&dst);
            header.extend_from_slice(&options);
            header
        })
        .boxed()
}

/// One IPv6 extension header without its first byte: (protocol number, rest).
fn extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let options = || {
        vec((1_u8..=255, vec(any::<u8>(), 0..12)), 0..4).prop_map(|options| {
            let mut body = vec![0];
            for (kind, data) in options {
                if kind != 0xc2 {
                    body.extend(tlv(kind, 0, &data));
                }
            }
            body.resize((body.len() + 1).next_multiple_of(8) - 1, 0);
            body[0] = u8::try_from((body.len() + 1) / 8 - 1).unwrap();
            body
        })
    };
    prop_oneof![
        options().prop_map(|body| (60, body)),
        options().prop_map(|body| (0, body)),
        (any::<u8>(), any::<[u8; 4]>())
            .prop_map(|(kind, data)| (43, [vec![0, kind, 0], data.to_vec()].concat())),
        any::<[u8; 4]>().prop_map(|id| (44, [vec![0, 0, 0], id.to_vec()].concat())),
    ]
}

fn ipv6_header() -> BoxedStrategy<Vec<u8>> {
    let addresses = (any::<[u8; 16]>(), any::<[u8; 16]>());
    (vec(extension(), 0..4), any::<[u8; 4]>(), any::<u8>(), addresses)
        .prop_map(|(mut extensions, start, hops, (src, dst))| {
            // Hop-by-hop options stand first and once.
            let hop_by_hop = extensions.iter().position(|(kind, _)| *kind == 0);
            let first = hop_by_hop.map(|at| extensions.remove(at));
            extensions.retain(|(kind, _)| *kind != 0);
            let chain: Vec<_> = first.into_iter().chain(extensions).collect();
            let next = |at: usize| chain.get(at).map_or(6, |(kind, _)| *kind);

            let mut header = start.to_vec();
            header[0] = 0x60 | (start[0] & 0x0f);
            header.extend_from_slice(&[0, 0, next(0), hops]);
            header.extend_from_slice(&src);
            header.extend_from_slice(&dst);
            for (at, (_, body)) in chain.iter().enumerate() {
                header.push(next(at + 1));
                header.extend_from_slice(body);
            }
            header
        })
        .boxed()
}

fn tcp_header() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        any::<[u8; 8]>().prop_map(|data| tlv(8, 2, &data)),
        vec(any::<u8>(), 0..16).prop_map(|data| tlv(34, 2, &data)),
        vec(any::<u8>(), 0..8).prop_map(|data| tlv(254, 2, &[vec![0xf9, 0x89], data].concat())),
        any::<[u8; 16]>().prop_map(|data| tlv(19, 2, &data)),
        any::<[u8; 2]>().prop_map(|data| tlv(2, 2, &data)),
    ];
    let any_kind = (2_u8..=255, vec(any::<u8>(), 0..10)).prop_map(|(kind, data)| tlv(kind, 2, &data));
    let options = vec(prop_oneof![known, any_kind, Just(vec![1])], 0..6);
    let ports = (1_u16.., 1_u16..);
    (ports, any::<[u8; 8]>(), any::<[u8; 3]>(), any::<[u8; 4]>(), options, any::<u8>()).prop_map(
        |((src, dst), numbers, [reserved, flags, _], [w0, w1, u0, u1], options, padding)| {
            let mut options = fit(options, 40);
            if !options.len().is_multiple_of(4) {
                // What follows the end mark has no meaning and may be anything.
                options.push(0);
                options.resize(options.len().next_multiple_of(4), padding);
            }
            let words = u8::try_from(5 + options.len() / 4).unwrap();
            let mut header = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            header.extend_from_slice(&numbers);
            header.extend_from_slice(&[(words << 4) | (reserved & 0x0f), flags]);
            header.extend_from_slice(&[w0, w1, 0, 0, u0, u1]);
            header.extend_from_slice(&options);
            header
        },
    )
}

fn tlv(kind: u8, overhead: usize, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(overhead + data.len()).unwrap();
    [vec![kind, len], data.to_vec()].concat()
}

/// Joins as many options as fit.
fn fit(options: Vec<Vec<u8>>, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for option in options {
        if bytes.len() + option.len() <= limit {
            bytes.extend(option);
        }
    }
    bytes
}
