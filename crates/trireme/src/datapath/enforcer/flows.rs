//! Admitted flows of protocols without connections: all their packets come by this thread.

use std::collections::HashMap;

use trireme_datapath::{Hook, Packet};
use trireme_flow::{ConnectionEntry, FlowKey, Heard, PuSlot, Traffic, idle_time};
use trireme_identity::time::Instant;
use trireme_token::Role;
use trireme_wire::datagram::Datagram;

/// A bounded table; entries leave it when no packet has passed for as long as their protocol allows.
#[derive(Debug)]
pub(super) struct Flows {
    flows: HashMap<FlowKey, Flow>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    entry: ConnectionEntry,
    heard: Heard,
    last: Instant,
    traffic: Traffic,
}

impl Flow {
    fn is_over(&self, key: &FlowKey, now: Instant) -> bool {
        now.since(self.last) > idle_time(key.protocol, self.heard)
    }

    fn count(&mut self, hook: Hook, bytes: usize, now: Instant) {
        let from_initiator = (hook == Hook::FromPu) == (self.entry.role == Role::Initiator);
        if !from_initiator {
            self.heard = Heard::Both;
        }
        self.last = now;
        let Traffic { packets_from, bytes_from, packets_to, bytes_to } = &mut self.traffic;
        let (packets, sum) = match hook {
            Hook::FromPu => (packets_from, bytes_from),
            Hook::ToPu => (packets_to, bytes_to),
        };
        *packets = packets.saturating_add(1);
        *sum = sum.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Flows {
    pub(super) fn new(capacity: usize) -> Self {
        Self { flows: HashMap::new(), capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The name of the flow that a packet belongs to; none for TCP, later fragments and what cannot be read.
    pub(super) fn key(packet: &Packet) -> Option<FlowKey> {
        let datagram = Datagram::parse(&packet.bytes).ok().filter(|datagram| !datagram.is_later())?;
        Some(packet.hook.flow(packet.pu, datagram.ip.protocol, datagram.tuple()))
    }

    /// The entry of a flow that is alive.
    pub(super) fn get(&self, key: &FlowKey, now: Instant) -> Option<ConnectionEntry> {
        self.flows.get(key).filter(|flow| !flow.is_over(key, now)).map(|flow| flow.entry)
    }

    /// A packet of the flow passes.
    pub(super) fn pass(&mut self, key: &FlowKey, hook: Hook, bytes: usize, now: Instant) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.count(hook, bytes, now);
        }
    }

    /// False if there is no room.
    pub(super) fn install(&mut self, key: FlowKey, entry: ConnectionEntry, now: Instant) -> bool {
        if let Some(flow) = self.flows.get_mut(&key)
            && flow.entry.role == entry.role
            && !flow.is_over(&key, now)
        {
            flow.entry = entry;
            return true;
        }
        if self.flows.len() >= self.capacity && !self.flows.contains_key(&key) {
            return false;
        }
        let flow = Flow { entry, heard: Heard::Initiator, last: now, traffic: Traffic::default() };
        self.flows.insert(key, flow);
        true
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        self.flows.remove(key);
    }

    /// Forgets a unit's.
    pub(super) fn forget(&mut self, slot: PuSlot) {
        self.flows.retain(|key, _| key.pu != slot);
    }

    /// Takes those out that are over.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<(FlowKey, ConnectionEntry, Traffic)> {
        let over = self.flows.extract_if(|key, flow| flow.is_over(key, now));
        over.map(|(key, flow)| (key, flow.entry, flow.traffic)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trireme_flow::{ConnectionClass, NO_PEER_SLOT};
    use trireme_identity::Protocol;
    use trireme_token::TokenId;

    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn key(port: u16) -> FlowKey {
        let (local, remote) = (([10, 0, 0, 1].into(), port), ([10, 0, 0, 2].into(), 53));
        FlowKey::new(PuSlot(1), Protocol::UDP, local, remote)
    }

    fn entry(role: Role) -> ConnectionEntry {
        ConnectionEntry {
            role,
            epoch: 1,
            peer_token: TokenId::ZERO,
            peer_slot: NO_PEER_SLOT,
            peer_generation: 0,
            attested: None,
            proof_seq: 0,
            proof_mac: [0; 16],
            confirmed: true,
            data_seen: false,
            class: ConnectionClass::Address,
            syn_ack: 0,
        }
    }

    #[test]
    fn a_flow_lives_longer_once_it_was_answered_and_its_end_tells_what_it_carried() {
        let after = |secs| START + Duration::from_secs(secs);
        let mut flows = Flows::new(10);
        assert!(flows.install(key(1), entry(Role::Initiator), START));
        assert!(flows.install(key(2), entry(Role::Initiator), START));
        for port in [1, 2] {
            flows.pass(&key(port), Hook::FromPu, 100, START);
        }
        flows.pass(&key(2), Hook::ToPu, 400, after(1));

        assert!(flows.get(&key(1), after(30)).is_some() && flows.get(&key(1), after(31)).is_none());
        assert!(flows.get(&key(2), after(181)).is_some() && flows.get(&key(2), after(182)).is_none());
        let [(over, _, traffic)] = flows.sweep(after(31))[..] else { panic!("one is over") };
        assert_eq!((over, traffic.packets_from, traffic.bytes_from), (key(1), 1, 100));
        let [(_, _, traffic)] = flows.sweep(after(182))[..] else { panic!("the other one is over") };
        assert_eq!((traffic.packets_to, traffic.bytes_to), (1, 400));
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn a_full_table_takes_nothing_new_and_a_unit_that_goes_takes_its_flows_along() {
        let mut flows = Flows::new(1);
        assert!(flows.install(key(1), entry(Role::Responder), START));
        assert!(!flows.install(key(2), entry(Role::Responder), START));
        assert!(flows.install(key(1), entry(Role::Responder), START));
        flows.forget(PuSlot(2));
        assert_eq!(flows.len(), 1);
        flows.forget(PuSlot(1));
        assert!(flows.install(key(2), entry(Role::Responder), START));
    }
}
