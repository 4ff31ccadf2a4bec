//! Packets that wait: for the proof they overtook, for the identity of a peer, for a first fragment.

use std::collections::BTreeMap;
use std::time::Duration;

use trireme_identity::time::Instant;

use crate::Deadlines;

/// How much a [`HeldQueue`] holds and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLimits {
    /// How long the first packet of a flow waits; default 50 ms.
    pub time: Duration,
    /// Packets per flow; default 32.
    pub flow_packets: usize,
    /// Bytes per flow; default 64 KiB.
    pub flow_bytes: usize,
    /// Bytes in total; default 4 MiB.
    pub total_bytes: usize,
}

impl Default for HeldLimits {
    fn default() -> Self {
        Self { time: Duration::from_millis(50), flow_packets: 32, flow_bytes: 64 << 10, total_bytes: 4 << 20 }
    }
}

#[derive(Debug)]
struct Flow<P> {
    packets: Vec<P>,
    /// How many of the packets are parts of another.
    parts: usize,
    bytes: usize,
    until: Instant,
}

/// Held packets by handshake or flow, bounded per flow and in total.
#[derive(Debug)]
pub struct HeldQueue<K, P> {
    limits: HeldLimits,
    flows: BTreeMap<K, Flow<P>>,
    deadlines: Deadlines<K>,
    packets: usize,
    bytes: usize,
}

impl<K: Ord + Copy, P> HeldQueue<K, P> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: HeldLimits) -> Self {
        Self { limits, flows: BTreeMap::new(), deadlines: Deadlines::default(), packets: 0, bytes: 0 }
    }

    /// Holds a packet of `len` bytes, or gives it back when a bound is reached.
    ///
    /// # Errors
    /// The packet, if there is no room.
    pub fn push(&mut self, key: K, packet: P, len: usize, now: Instant) -> Result<(), P> {
        if self.bytes.saturating_add(len) > self.limits.total_bytes {
            return Err(packet);
        }
        let until = now + self.limits.time;
        let flow = self.flows.entry(key).or_insert_with(|| {
            self.deadlines.add(until, key);
            Flow { packets: Vec::new(), parts: 0, bytes: 0, until }
        });
        if flow.packets.len().saturating_sub(flow.parts) >= self.limits.flow_packets
            || flow.bytes.saturating_add(len) > self.limits.flow_bytes
        {
            if flow.packets.is_empty() {
                self.take(key);
            }
            return Err(packet);
        }
        flow.packets.push(packet);
        flow.bytes += len;
        self.bytes += len;
        self.packets += 1;
        Ok(())
    }

    /// Holds a part of a packet that is held: it counts by its length only, and waits no longer.
    ///
    /// # Errors
    /// The packet, if there is no room or nothing of its flow is held.
    pub fn push_part(&mut self, key: K, packet: P, len: usize) -> Result<(), P> {
        let HeldLimits { flow_bytes, total_bytes, .. } = self.limits;
        let Some(flow) = self.flows.get_mut(&key) else { return Err(packet) };
        if flow.bytes.saturating_add(len) > flow_bytes || self.bytes.saturating_add(len) > total_bytes {
            return Err(packet);
        }
        flow.packets.push(packet);
        flow.parts += 1;
        flow.bytes += len;
        self.bytes += len;
        self.packets += 1;
        Ok(())
    }

    /// Whether something of a flow is held.
    #[must_use]
    pub fn has(&self, key: K) -> bool {
        self.flows.contains_key(&key)
    }

    /// Takes every packet of the flows that match out.
    pub fn take_all(&mut self, matches: impl Fn(&K) -> bool) -> Vec<P> {
        let keys: Vec<K> = self.flows.keys().filter(|key| matches(key)).copied().collect();
        keys.into_iter().flat_map(|key| self.take(key)).collect()
    }

    /// Takes every packet of a flow out, in the order of arrival.
    pub fn take(&mut self, key: K) -> Vec<P> {
        let Some(flow) = self.flows.remove(&key) else { return Vec::new() };
        self.deadlines.cancel(flow.until, key);
        self.bytes = self.bytes.saturating_sub(flow.bytes);
        self.packets = self.packets.saturating_sub(flow.packets.len());
        flow.packets
    }

    /// Takes the packets of one flow whose time is over.
    pub fn pop_due(&mut self, now: Instant) -> Option<(K, Vec<P>)> {
        let key = self.deadlines.pop_due(now)?;
        Some((key, self.take(key)))
    }

    /// When the next flow's time is over.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How many packets and bytes are held.
    #[must_use]
    pub const fn size(&self) -> (usize, usize) {
        (self.packets, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HalfOpenKey;
    use crate::half_open::tests::key;

    fn queue() -> HeldQueue<HalfOpenKey, u8> {
        HeldQueue::new(HeldLimits {
            time: Duration::from_nanos(50),
            flow_packets: 2,
            flow_bytes: 100,
            total_bytes: 150,
        })
    }

    #[test]
    fn bounds_per_flow_and_in_total_give_the_packet_back() {
        let mut queue = queue();
        assert_eq!(queue.push(key(1, 1), 1, 101, Instant(0)), Err(1));
        assert_eq!(queue.next(), None);
        assert_eq!(queue.push(key(1, 1), 1, 60, Instant(0)), Ok(()));
        assert_eq!(queue.push(key(1, 1), 2, 41, Instant(0)), Err(2));
        assert_eq!(queue.push(key(1, 1), 3, 40, Instant(0)), Ok(()));
        assert_eq!(queue.push(key(1, 1), 4, 0, Instant(0)), Err(4));
        assert_eq!(queue.push(key(2, 1), 5, 51, Instant(0)), Err(5));
        assert_eq!(queue.push(key(2, 1), 6, 50, Instant(0)), Ok(()));
        assert_eq!(queue.size(), (3, 150));
        assert_eq!(queue.take(key(1, 1)), [1, 3]);
        assert_eq!(queue.size(), (1, 50));
    }

    #[test]
    fn parts_count_by_length_and_only_behind_a_packet() {
        let mut queue = queue();
        assert_eq!(queue.push_part(key(1, 1), 1, 1), Err(1));
        assert_eq!(queue.push(key(1, 1), 2, 10, Instant(0)), Ok(()));
        for part in 3..=5 {
            assert_eq!(queue.push_part(key(1, 1), part, 20), Ok(()));
        }
        assert_eq!(queue.push(key(1, 1), 6, 10, Instant(0)), Ok(()), "the second packet of two");
        assert_eq!(queue.push_part(key(1, 1), 7, 21), Err(7));
        assert_eq!(queue.push(key(2, 1), 8, 1, Instant(0)), Ok(()));
        assert_eq!(queue.take_all(|other| *other == key(1, 1)), [2, 3, 4, 5, 6]);
        assert_eq!((queue.size(), queue.has(key(1, 1)), queue.has(key(2, 1))), ((1, 1), false, true));
    }

    #[test]
    fn packets_leave_when_the_first_one_has_waited_long_enough() {
        let mut queue = queue();
        assert_eq!(queue.push(key(1, 1), 1, 1, Instant(0)), Ok(()));
        assert_eq!(queue.push(key(1, 1), 2, 1, Instant(40)), Ok(()));
        assert_eq!(queue.pop_due(Instant(49)), None);
        assert_eq!(queue.pop_due(Instant(50)), Some((key(1, 1), vec![1, 2])));
        assert_eq!((queue.size(), queue.next()), ((0, 0), None));
    }
}
