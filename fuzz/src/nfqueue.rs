//! Fuzz bodies for what the kernel says about queues: whatever the bytes, nothing panics and these sentences hold.

use trireme_nfqueue::{Incoming, QueueStatistics, parse_datagram, parse_statistics};

/// Length of a netlink header.
const HEADER: usize = 16;

/// The same bytes as a datagram of a queue's socket and as the text of the statistics.
pub fn nfqueue(data: &[u8]) {
    datagram(data);
    statistics(&String::from_utf8_lossy(data));
}

/// Every message takes its share of the datagram, every packet lies within it, and a byte less adds nothing.
fn datagram(data: &[u8]) {
    let all: Vec<_> = parse_datagram(data).collect();
    assert!(all.len() <= data.len() / HEADER);
    let range = data.as_ptr_range();
    for found in &all {
        let Incoming::Packet(packet) = found else { continue };
        let bytes = packet.bytes.as_ptr_range();
        assert!(packet.bytes.is_empty() || (range.start <= bytes.start && bytes.end <= range.end));
        assert!(packet.truncated_from.is_none_or(|whole| usize::try_from(whole) != Ok(packet.bytes.len())));
    }
    let shorter = data.split_last().map(|(_, shorter)| shorter).unwrap_or_default();
    let kept: Vec<_> = parse_datagram(shorter).collect();
    assert_eq!(all.get(..kept.len()), Some(&kept[..]));
}

/// A line gives one queue or none, and what was read is read again from the kernel's own form.
fn statistics(text: &str) {
    let all = parse_statistics(text);
    assert!(all.len() <= text.lines().count());
    let again: String = all.iter().map(line).collect();
    assert_eq!(parse_statistics(&again), all);
}

fn line(queue: &QueueStatistics) -> String {
    let QueueStatistics { queue, waiting, dropped, not_delivered, queued } = queue;
    format!("{queue:5} {:6} {waiting:5} 2 65531 {dropped:5} {not_delivered:5} {queued:8}  1\n", 1)
}
