//! Splits a TCP packet that is larger than the wire carries, as segmentation offload does.

use crate::checksum::{Layout, complete, complete_header, layout, put, word};

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Largest payload of one segment: the offload size, and what fits into `mtu`. None if the packet needs no split.
pub(crate) fn segment_size(packet: &[u8], gso_size: Option<u16>, mtu: u32) -> Option<usize> {
    let layout = layout(packet)?;
    let payload = packet.len() - layout.payload;
    let room = usize::try_from(mtu).unwrap_or(usize::MAX).saturating_sub(layout.payload);
    let size = gso_size.map_or(room, |size| room.min(usize::from(size)));
    (size > 0 && payload > size).then_some(size)
}

/// Splits the payload into segments of `size`, each with full checksums.
pub(crate) fn split(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let Some(layout) = layout(packet) else { return Vec::new() };
    let head = packet.get(..layout.payload).unwrap_or_default();
    let chunks: Vec<&[u8]> = packet.get(layout.payload..).unwrap_or_default().chunks(size).collect();
    let last = chunks.len().saturating_sub(1);
    let mut offset = 0_u32;
    chunks
        .into_iter()
        .enumerate()
        .map(|(number, chunk)| {
            let mut segment = Vec::with_capacity(head.len() + chunk.len() + 24);
            segment.extend_from_slice(head);
            segment.extend_from_slice(chunk);
            patch(&mut segment, layout, number, offset, number == last);
            offset = offset.wrapping_add(u32::try_from(chunk.len()).unwrap_or(0));
            segment
        })
        .collect()
}

fn patch(segment: &mut [u8], layout: Layout, number: usize, offset: u32, last: bool) {
    let length = segment.len();
    if layout.v6 {
        put(segment, 4, u16::try_from(length.saturating_sub(40)).unwrap_or(0));
    } else {
        let id = word(segment, 4).unwrap_or(0).wrapping_add(u16::try_from(number).unwrap_or(0));
        put(segment, 2, u16::try_from(length).unwrap_or(0));
        put(segment, 4, id);
        complete_header(segment);
    }
    let sequence = sequence(segment, layout).wrapping_add(offset).to_be_bytes();
    for (to, from) in segment.iter_mut().skip(layout.tcp + 4).zip(sequence) {
        *to = from;
    }
    if let Some(flags) = segment.get_mut(layout.tcp + 13) {
        if !last {
            *flags &= !FIN_PSH;
        }
        if number > 0 {
            *flags &= !CWR;
        }
    }
    complete(segment, layout);
}

fn sequence(segment: &[u8], layout: Layout) -> u32 {
    let half = |at| u32::from(word(segment, at).unwrap_or(0));
    half(layout.tcp + 4) << 16 | half(layout.tcp + 6)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::checksum::tests::{packet, verifies};

    #[test]
    fn segments_carry_the_same_bytes_in_order_with_checksums_that_verify() {
        for v6 in [false, true] {
            let whole = packet(v6, 5000);
            let size = segment_size(&whole, Some(1400), 1500).unwrap();
            let start = sequence(&whole, layout(&whole).unwrap());

            let segments = split(&whole, size);

            let payload: Vec<u8> = segments
                .iter()
                .flat_map(|segment| segment.get(layout(segment).unwrap().payload..).unwrap().to_vec())
                .collect();
            assert_eq!(payload, whole.get(layout(&whole).unwrap().payload..).unwrap());
            assert_eq!(segments.len(), 4);
            let mut expected = start;
            for (number, segment) in segments.iter().enumerate() {
                let layout = layout(segment).unwrap();
                assert!(verifies(segment) && segment.len() <= 1500);
                assert_eq!(sequence(segment, layout), expected);
                let flags = segment.get(layout.tcp + 13).unwrap();
                assert_eq!(flags & FIN_PSH, if number == 3 { 0x09 } else { 0 });
                assert_eq!(flags & CWR, if number == 0 { CWR } else { 0 });
                expected = expected.wrapping_add(u32::try_from(segment.len() - layout.payload).unwrap());
            }
        }
    }

    #[test]
    fn packet_that_fits_is_not_split() {
        let small = packet(false, 1000);

        assert_eq!(segment_size(&small, None, 1500), None);
        assert_eq!(segment_size(&small, Some(1448), 1500), None);
        assert_eq!(segment_size(&packet(false, 1500), None, 1500), Some(1448));
    }
}
