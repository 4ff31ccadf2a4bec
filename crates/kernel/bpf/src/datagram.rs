//! UDP on its way back: checksums that were left to the hardware, and packets of several datagrams.

use trireme_wire::checksum::{self, Checksum, complete_udp, verify_udp};
use trireme_wire::datagram::{Datagram, Transport, UDP_HEADER_LEN};

use crate::checksum::{put, word};

/// Completes a UDP checksum that only covers the pseudo-header. Any other stays as it is, right or wrong.
pub(crate) fn complete_partial(packet: &mut [u8]) {
    let Ok(datagram) = Datagram::parse(packet) else { return };
    if datagram.is_whole_udp() && verify_udp(packet, &datagram) == Checksum::Partial {
        let completed = complete_udp(packet);
        debug_assert!(completed.is_ok(), "it was parsed a moment ago");
    }
}

/// The datagrams of one packet that the kernel was to cut into several, each with full checksums; none of any other.
pub(crate) fn split(packet: &[u8], gso_size: Option<u16>) -> Option<Vec<Vec<u8>>> {
    let size = usize::from(gso_size.filter(|size| *size > 0)?);
    let datagram = Datagram::parse(packet).ok().filter(Datagram::is_whole_udp)?;
    let Transport::Ports(ports) = &datagram.transport else { return None };
    let (head, data) = (packet.get(..ports.data.start)?, packet.get(ports.data.clone())?);
    if data.len() <= size || checksum::verify_udp(packet, &datagram) == Checksum::Invalid {
        return None;
    }
    let udp = ports.data.start - UDP_HEADER_LEN;
    let v6 = datagram.ip.src.is_ipv6();
    let one = |(number, chunk): (usize, &[u8])| {
        let mut bytes = [head, chunk].concat();
        let length = bytes.len();
        let wide = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        if v6 {
            put(&mut bytes, 4, wide(length - 40));
        } else {
            let id = word(&bytes, 4).unwrap_or(0).wrapping_add(wide(number));
            put(&mut bytes, 2, wide(length));
            put(&mut bytes, 4, id);
        }
        put(&mut bytes, udp + 4, wide(length - udp));
        let completed = complete_udp(&mut bytes);
        debug_assert!(completed.is_ok(), "the headers are those of a packet that was parsed");
        bytes
    };
    Some(data.chunks(size).enumerate().map(one).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn packet(v6: bool, data: usize) -> Vec<u8> {
        let length = u16::try_from(UDP_HEADER_LEN + data).unwrap();
        let mut packet = if v6 {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
            head.resize(40, 0xfd);
            put(&mut head, 4, length);
            head
        } else {
            let mut head = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            put(&mut head, 2, length + 20);
            head
        };
        packet.extend([0x9c, 0x40, 0, 53, 0, 0, 0, 0]);
        let udp = packet.len() - 8;
        put(&mut packet, udp + 4, length);
        packet.extend((0..data).map(|n| u8::try_from(n % 251).unwrap()));
        complete_udp(&mut packet).unwrap();
        packet
    }

    fn is_right(packet: &[u8]) -> bool {
        verify_udp(packet, &Datagram::parse(packet).unwrap()) == Checksum::Valid
    }

    #[test]
    fn partial_checksum_is_completed_and_a_wrong_one_stays_wrong() {
        for v6 in [false, true] {
            let whole = packet(v6, 33);
            let at = whole.len() - 33 - 2;
            let partial = (0..=u16::MAX).find_map(|sum| {
                let mut candidate = whole.clone();
                put(&mut candidate, at, sum);
                let datagram = Datagram::parse(&candidate).unwrap();
                (verify_udp(&candidate, &datagram) == Checksum::Partial).then_some(candidate)
            });
            let mut partial = partial.unwrap();
            complete_partial(&mut partial);
            assert_eq!(partial, whole);

            let mut wrong = whole.clone();
            *wrong.last_mut().unwrap() ^= 1;
            let before = wrong.clone();
            complete_partial(&mut wrong);
            assert_eq!(wrong, before);
        }
    }

    #[test]
    fn a_packet_of_several_datagrams_is_cut_into_them() {
        for v6 in [false, true] {
            let whole = packet(v6, 2500);
            let parts = split(&whole, Some(1000)).unwrap();
            let data: Vec<&[u8]> =
                parts.iter().map(|part| Datagram::parse(part).unwrap().udp_data(part)).collect();
            assert_eq!(data.iter().map(|data| data.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
            assert!(whole.ends_with(&data.concat()));
            assert!(parts.iter().all(|part| is_right(part)));
            assert_eq!(split(&whole, Some(2500)), None);
            assert_eq!(split(&whole, None), None);
        }
    }
}
