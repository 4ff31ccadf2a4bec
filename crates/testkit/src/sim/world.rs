//! Hosts, nodes, router and wire under one clock: a queue of events, worked off in order.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use trireme_datapath::{Hook, VerifyDone};

use super::host::{Host, Origin};
use super::nat::Nat;
use super::network::Link;
use super::node::{Edge, Node, Outcome};
use super::properties::Violation;
use super::scenario::{Guard, Scenario};
use super::trace::{Detail, Trace};
use crate::clock::{VirtualClock, nanos_of};
use crate::packets;

/// Time from the router to a host.
const LAST_HOP: u64 = 50_000;

/// A running simulation.
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) clock: VirtualClock,
    pub(super) hosts: Vec<Host>,
    pub(super) nodes: Vec<Node>,
    pub(super) trace: Trace,
    pub(super) violations: Vec<Violation>,
    pub(super) link: Link,
    pub(super) rng: ChaCha8Rng,
    /// Clients' ends that a restart caught in their handshake.
    pub(super) interrupted: BTreeSet<u32>,
    nat: Nat,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    host_ticks: Vec<Option<u64>>,
    node_ticks: Vec<Option<u64>>,
}

/// Something due at a time; equal times go in the order they were scheduled.
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

/// What can happen.
pub(super) enum Event {
    /// A packet reaches the router.
    Router(Vec<u8>),
    /// A packet reaches the edge of a host.
    Arrive(usize, Vec<u8>),
    /// A host's timer is due.
    HostTick(usize),
    /// A node's engine takes its next packet.
    Engine(usize),
    /// A node's engine timer is due.
    NodeTick(usize),
    /// A signature check is done.
    Verified(usize, Box<VerifyDone>),
    /// A client begins conversation `.1` of group `.0`.
    Connect(usize, u16),
    /// A client loses patience with the connection of this id.
    GiveUp(usize, u32),
    /// Every node forgets connections without sockets.
    Collect,
    /// Every unit's epoch changes.
    Reload,
    /// A node's agent starts again.
    Restart(usize),
    /// The server of a group stops admitting its client.
    Revoke(usize),
}

impl World {
    /// The world of a scenario, at time zero.
    #[must_use]
    pub fn new(scenario: Scenario, detail: Detail) -> Self {
        let hosts: Vec<Host> =
            (0..).zip(&scenario.hosts).map(|(index, spec)| Host::new(*spec, index)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(scenario.run_seed);
        rng.set_stream(1);
        let mut link_rng = ChaCha8Rng::seed_from_u64(scenario.run_seed);
        link_rng.set_stream(2);
        let nodes = match scenario.guard {
            Guard::Bare => Vec::new(),
            Guard::Engines | Guard::FastPath => Node::all(&scenario),
        };
        let mut world = Self {
            clock: VirtualClock::new(),
            host_ticks: vec![None; hosts.len()],
            node_ticks: vec![None; nodes.len()],
            hosts,
            nodes,
            trace: Trace::new(detail),
            violations: Vec::new(),
            link: Link::new(scenario.link, link_rng),
            rng,
            interrupted: BTreeSet::new(),
            nat: Nat::new(scenario.nat.clone()),
            queue: BinaryHeap::new(),
            scheduled: 0,
            scenario,
        };
        for at in world.scenario.reloads.clone() {
            world.schedule(nanos_of(at), Event::Reload);
        }
        for (at, node) in world.scenario.restarts.clone() {
            world.schedule(nanos_of(at), Event::Restart(node));
        }
        for (at, group) in world.scenario.revocations.clone() {
            world.schedule(nanos_of(at), Event::Revoke(group));
        }
        world
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.clock.nanos()
    }

    pub(super) fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        let at = self.now().saturating_add(after);
        self.queue.push(Reverse(Scheduled { at, number: self.scheduled, event }));
    }

    /// Takes the next event no later than `until`; `None` when there is none.
    pub(super) fn next_event(&mut self, until: u64) -> Option<Event> {
        if self.queue.peek().is_none_or(|next| next.0.at > until) {
            return None;
        }
        let Reverse(next) = self.queue.pop()?;
        self.clock.advance_to(next.at);
        Some(next.event)
    }

    /// Carries out everything that happens between hosts; connections are begun by the caller.
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Router(packet) => self.route(packet),
            Event::Arrive(host, packet) => self.at_edge(host, Hook::ToPu, packet),
            Event::HostTick(host) => {
                if self.host_ticks[host].is_some_and(|at| at <= self.now()) {
                    self.host_ticks[host] = None;
                    self.hosts[host].tick(self.clock.nanos());
                    self.after_host(host);
                }
            }
            Event::Engine(node) => {
                let now = self.clock.now();
                let outcomes = self.nodes[node].take_next(now);
                self.after_node(node, outcomes);
            }
            Event::NodeTick(node) => {
                if self.node_ticks[node].is_some_and(|at| at <= self.now()) {
                    self.node_ticks[node] = None;
                    let now = self.clock.now();
                    let outcomes = self.nodes[node].tick(now);
                    self.after_node(node, outcomes);
                }
            }
            Event::Verified(node, done) => {
                let now = self.clock.now();
                let outcomes = self.nodes[node].verified(*done, now);
                self.after_node(node, outcomes);
            }
            Event::Reload => {
                for node in 0..self.nodes.len() {
                    let now = self.clock.now();
                    self.nodes[node].reload(now);
                    self.trace.event(self.clock.nanos(), "node", "every unit gets a new epoch");
                }
            }
            Event::Restart(node) => {
                self.trace.event(self.clock.nanos(), "node", &format!("{node} starts again"));
                let now = self.clock.now();
                self.nodes[node].restart(&self.scenario, now);
            }
            Event::Revoke(group) => self.revoke(group),
            Event::Collect => self.collect(),
            Event::Connect(..) | Event::GiveUp(..) => {}
        }
    }

    /// Sends what a host has to send and asks when it wants to be called next.
    pub(super) fn after_host(&mut self, host: usize) {
        while let Some(packet) = self.hosts[host].pop_sent(self.clock.nanos()) {
            self.at_edge(host, Hook::FromPu, packet);
        }
        let now = self.now();
        let Some(at) = self.hosts[host].next_tick(now) else { return };
        // A stack that is always due must not stop the clock.
        let at = at.max(now + 10_000);
        if self.host_ticks[host].is_none_or(|planned| at < planned || planned <= now) {
            self.host_ticks[host] = Some(at);
            self.schedule(at - now, Event::HostTick(host));
        }
    }

    /// A packet between a host and the network meets the host's node, if it has one.
    fn at_edge(&mut self, host: usize, hook: Hook, packet: Vec<u8>) {
        let Some(node) = self.scenario.nodes[host].filter(|node| *node < self.nodes.len()) else {
            self.put(host, hook, packet);
            return;
        };
        match self.nodes[node].at_edge(host, hook, packet, self.clock.now(), &mut self.rng) {
            Edge::Passed(packet) => {
                self.trace.packet(self.clock.nanos(), name(host), kernel_pass(hook), &packet);
                self.put(host, hook, packet);
            }
            Edge::Dropped(packet) => {
                self.trace.packet(self.clock.nanos(), name(host), "kernel drops", &packet);
            }
            Edge::Asked(ready_at) => self.schedule(ready_at.saturating_sub(self.now()), Event::Engine(node)),
        }
    }

    fn after_node(&mut self, node: usize, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Put { host, hook, packet } => self.put(host, hook, packet),
                Outcome::Verified { after, done } => self.schedule(after, Event::Verified(node, done)),
                Outcome::Note { host, what, packet } => {
                    let now = self.clock.nanos();
                    match packet {
                        Some(packet) => self.trace.packet(now, name(host), &what, &packet),
                        None => self.trace.event(now, name(host), &what),
                    }
                }
                Outcome::Violated(violation) => self.violations.push(violation),
            }
        }
        let now = self.now();
        let Some(at) = self.nodes[node].next_tick() else { return };
        // Timers of the past fire at once, but never without time passing.
        let at = at.max(now + 1000);
        if self.node_ticks[node].is_none_or(|planned| at < planned || planned <= now) {
            self.node_ticks[node] = Some(at);
            self.schedule(at - now, Event::NodeTick(node));
        }
    }

    fn put(&mut self, host: usize, hook: Hook, packet: Vec<u8>) {
        match hook {
            Hook::FromPu => self.leave(host, packet),
            Hook::ToPu => self.deliver(host, packet),
        }
    }

    fn leave(&mut self, host: usize, mut packet: Vec<u8>) {
        self.check_leaving(host, &packet);
        self.trace.packet(self.clock.nanos(), name(host), "leaves", &packet);
        if !self.stays_on_node(host, &packet) && packets::tcp_sum(&packet) == Some(packets::Sum::Partial) {
            packets::complete_sums(&mut packet);
        }
        for copy in self.link.send(packet) {
            if copy.fate != super::network::Fate::Intact {
                self.trace.event(self.clock.nanos(), "wire", copy.fate.name());
            }
            if let Some(packet) = copy.packet {
                self.schedule(copy.after, Event::Router(packet));
            }
        }
    }

    fn route(&mut self, packet: Vec<u8>) {
        let Some(packet) = self.nat.forward(packet) else {
            self.trace.event(self.clock.nanos(), "router", "drops");
            return;
        };
        let Some((_, dst)) = packets::addresses(&packet) else { return };
        match self.hosts.iter().position(|host| host.addr() == dst) {
            Some(host) => self.schedule(LAST_HOP, Event::Arrive(host, packet)),
            None => self.trace.packet(self.clock.nanos(), "router", "knows no such host", &packet),
        }
    }

    fn deliver(&mut self, host: usize, packet: Vec<u8>) {
        self.check_delivered(host, &packet);
        self.trace.packet(self.clock.nanos(), name(host), "receives", &packet);
        let src = packets::addresses(&packet).map(|(src, _)| src);
        let origin = if self.is_neighbour(host, src) { Origin::SameNode } else { Origin::Wire };
        self.hosts[host].receive(self.clock.nanos(), packet, origin);
        self.after_host(host);
    }

    fn revoke(&mut self, index: usize) {
        self.trace.event(self.clock.nanos(), "node", &format!("group {index} is no longer admitted"));
        self.scenario.groups[index].ingress_rule = false;
        let server = self.scenario.groups[index].server;
        let Some(node) = self.scenario.nodes[server] else { return };
        let now = self.clock.now();
        self.nodes[node].replace_policy(&self.scenario, server, now);
    }

    fn collect(&mut self) {
        let hosts = &self.hosts;
        for node in &mut self.nodes {
            let removed = node.collect(|host, local, remote| {
                !hosts[host].has_socket(SocketAddr::from(local), SocketAddr::from(remote))
            });
            self.trace.event(
                self.clock.nanos(),
                "node",
                &format!("forgets {removed} connections without sockets"),
            );
        }
    }

    /// Whether a packet reaches another host of the same node without leaving it.
    fn stays_on_node(&self, host: usize, packet: &[u8]) -> bool {
        self.is_neighbour(host, packets::addresses(packet).map(|(_, dst)| dst))
    }

    /// Whether the address is that of another host on the same node, reached over a path that keeps packets whole.
    fn is_neighbour(&self, host: usize, address: Option<IpAddr>) -> bool {
        let other = self.hosts.iter().position(|other| Some(other.addr()) == address);
        other.is_some_and(|other| self.scenario.nodes[other] == self.scenario.nodes[host])
            && self.scenario.nodes[host].is_some()
            && self.scenario.link.corrupt == 0.0
    }
}

/// How traces call a host.
pub(super) const fn name(host: usize) -> &'static str {
    match host {
        0 => "first",
        1 => "second",
        2 => "third",
        _ => "outside",
    }
}

const fn kernel_pass(hook: Hook) -> &'static str {
    match hook {
        Hook::FromPu => "kernel passes out",
        Hook::ToPu => "kernel passes in",
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
