//! Deterministic simulation: real TCP stacks behind engines on a bad network, one seed per run.
//!
//! A seed decides hosts, policies, conversations and every misfortune of the network, so a failing run is
//! repeated by its number alone. Nothing here reads a clock or draws randomness that the seed does not fix.
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "indices are hosts, nodes and groups of one scenario; a broken harness fails by panicking"
)]

mod app;
mod campaign;
mod datagrams;
mod device;
mod fast_path;
mod fin;
mod host;
mod kernel_model;
mod nat;
mod network;
mod node;
mod properties;
mod scenario;
mod secrets;
mod stream;
mod trace;
mod units;
mod world;

use std::time::Duration;

pub use app::{App, Dialogue, Progress, Protocol, is_established};
pub use campaign::{BASE_VARIABLE, Campaign, SCHEDULES_VARIABLE, SEED_VARIABLE, Summary};
pub use datagrams::{Outcomes, Plan, Verdict, run_datagrams};
pub use host::{Endpoint, Host, HostSpec, Origin};
pub use kernel_model::{KernelModel, KernelVerdict, flow_key};
pub use nat::{Masquerade, Nat, NatSpec};
pub use network::{Fate, InFlight, Link, LinkSpec};
pub use node::Node;
pub use properties::Violation;
pub use scenario::{Expect, FIRST, Family, Group, Guard, OUTSIDE, SECOND, Scenario, THIRD, Trust};
pub use stream::{Checker, Opening, Stream, Way};
pub use trace::{Detail, Trace, describe};
pub use world::World;

use crate::clock::nanos_of;
use world::Event;

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    /// Broken promises; empty is good.
    pub violations: Vec<Violation>,
    /// Hash over everything that happened, in order.
    pub trace_hash: u64,
    /// How many things happened.
    pub events: u64,
    /// Virtual time at the end.
    pub virtual_time: Duration,
    /// Handshakes that kernels completed by themselves, counted at both ends.
    pub fast_handshakes: u64,
    /// Readable trace, if it was asked for.
    pub lines: Vec<String>,
}

/// An allowed conversation takes no longer than this, whatever the network does.
const DEADLINE: u64 = 7200 * SECOND_NANOS;
/// Time for last words after everything has been said.
const LINGER: u64 = 30 * SECOND_NANOS;
/// Time after which every table must be empty once all hosts are silent.
const QUIET: u64 = 600 * SECOND_NANOS;
/// A stack stops repeating a SYN after this time, and the application tries again from the same port.
const CONNECT_PATIENCE: u64 = 130 * SECOND_NANOS;
/// Attempts after which a port counts as closed without saying so.
const MOST_ATTEMPTS: u32 = 30;
/// A conversation that may fail is given up after this time.
const FRAGILE_PATIENCE: u64 = 120 * SECOND_NANOS;
/// More events than any run of this size can need.
const EVENT_LIMIT: u64 = 2_000_000;
const SECOND_NANOS: u64 = 1_000_000_000;

/// Runs the scenario of `seed`.
#[must_use]
pub fn run(seed: u64, guard: Guard, detail: Detail) -> Report {
    run_scenario(Scenario::generate(seed, guard), detail)
}

/// Runs a scenario from the first connection to empty tables.
#[must_use]
pub fn run_scenario(scenario: Scenario, detail: Detail) -> Report {
    Run::new(World::new(scenario, detail)).finish()
}

struct Run {
    world: World,
    lanes: Vec<Lane>,
    handled: u64,
}

/// One client port of a group, with its conversations one after the other.
struct Lane {
    group: usize,
    offset: u16,
    /// Clients' ends by round; an attempt that timed out is replaced by the next.
    ids: Vec<u32>,
    attempts: u32,
    is_next_planned: bool,
}

impl Run {
    fn new(mut world: World) -> Self {
        let mut lanes = Vec::new();
        for (index, group) in world.scenario.groups.clone().into_iter().enumerate() {
            if group.expect != Expect::Refused {
                world.hosts[group.server].listen(group.port, group.dialogue);
            }
            for offset in 0..group.parallel {
                world.schedule(
                    nanos_of(group.start) + u64::from(offset) * nanos_of(group.stagger),
                    Event::Connect(index, offset),
                );
                lanes.push(Lane {
                    group: index,
                    offset,
                    ids: Vec::new(),
                    attempts: 0,
                    is_next_planned: true,
                });
            }
        }
        world.schedule(20 * SECOND_NANOS, Event::Collect);
        Self { world, lanes, handled: 0 }
    }

    fn finish(mut self) -> Report {
        while self.step(DEADLINE) {
            self.plan_rounds();
            if self.is_settled() {
                break;
            }
        }
        let linger = self.world.now() + LINGER;
        while self.step(linger) {}
        for index in 0..self.world.scenario.groups.len() {
            let ids: Vec<u32> = self
                .lanes
                .iter()
                .filter(|lane| lane.group == index)
                .flat_map(|lane| lane.ids.clone())
                .collect();
            self.world.check_group(index, &ids);
        }
        self.silence();
        let now = self.world.now();
        Report {
            violations: std::mem::take(&mut self.world.violations),
            trace_hash: self.world.trace.hash(),
            events: self.world.trace.events(),
            virtual_time: Duration::from_nanos(now),
            fast_handshakes: self.world.nodes.iter().flat_map(Node::completed).sum(),
            lines: self.world.trace.into_lines(),
        }
    }

    /// Switches every host off, waits, and looks at what is left.
    fn silence(&mut self) {
        self.world.link.calm_down();
        for host in &mut self.world.hosts {
            host.power_off();
        }
        let end = self.world.now() + QUIET;
        while self.step(end) {}
        self.world.clock.advance_to(end);
        self.world.handle(Event::Collect);
        self.world.check_tables();
    }

    fn step(&mut self, until: u64) -> bool {
        let Some(event) = self.world.next_event(until) else { return false };
        self.handled += 1;
        if self.handled > EVENT_LIMIT {
            self.world.violations.push(Violation::Livelock(format!("{EVENT_LIMIT} events and no end")));
            return false;
        }
        match event {
            Event::Connect(group, offset) => self.connect(group, offset),
            Event::GiveUp(host, id) => self.give_up(host, id),
            Event::Restart(_) => {
                self.interrupt();
                self.world.handle(event);
            }
            Event::Collect => {
                self.world.handle(Event::Collect);
                if !self.is_settled() {
                    self.world.schedule(20 * SECOND_NANOS, Event::Collect);
                }
            }
            Event::Router(_)
            | Event::Arrive(..)
            | Event::HostTick(_)
            | Event::Engine(_)
            | Event::NodeTick(_)
            | Event::Verified(..)
            | Event::Reload
            | Event::Revoke(_) => self.world.handle(event),
        }
        true
    }

    fn connect(&mut self, index: usize, offset: u16) {
        let group = self.world.scenario.groups[index].clone();
        let now = self.world.now();
        let host = &mut self.world.hosts[group.client];
        let id = host.connect(now, group.client_port + offset, group.target, group.dialogue);
        self.world.trace.event(
            now,
            world::name(group.client),
            &format!("connects to {} as {id:#x}", group.target),
        );
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.group == index && lane.offset == offset) {
            lane.ids.push(id);
            lane.is_next_planned = false;
        }
        let patience = match group.expect {
            Expect::Completes | Expect::Refused => CONNECT_PATIENCE,
            Expect::MayFail => FRAGILE_PATIENCE,
            Expect::DeniedByServer | Expect::DeniedByClient => nanos_of(group.patience),
        };
        self.world.schedule(patience, Event::GiveUp(group.client, id));
        self.world.after_host(group.client);
    }

    fn give_up(&mut self, host: usize, id: u32) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.ids.contains(&id)) else { return };
        let is_established =
            self.world.hosts[host].endpoint(id).is_some_and(|end| end.app.progress().established);
        let expect = self.world.scenario.groups[lane.group].expect;
        let must_answer = matches!(expect, Expect::Completes | Expect::Refused);
        let is_exempt = self.world.interrupted.contains(&id);
        if !self.world.hosts[host].is_open(id) || (must_answer && is_established && !is_exempt) {
            return;
        }
        self.world.trace.event(self.world.now(), world::name(host), &format!("gives up {id:#x}"));
        self.world.hosts[host].give_up(id);
        if !must_answer || is_exempt {
            return;
        }
        lane.attempts += 1;
        if lane.attempts < MOST_ATTEMPTS {
            lane.ids.retain(|known| *known != id);
            lane.is_next_planned = true;
            self.world.schedule(1000, Event::Connect(lane.group, lane.offset));
        } else if expect == Expect::Refused {
            let what = format!("connection {id:#x} heard nothing from a closed port");
            self.world.violations.push(Violation::NotRefused(what));
        }
    }

    /// Takes note of conversations that a restart catches in their handshake: their clients may wait for ever.
    fn interrupt(&mut self) {
        for lane in &self.lanes {
            let group = &self.world.scenario.groups[lane.group];
            let Some(id) = lane.ids.last().copied() else { continue };
            if self.world.hosts[group.client].is_open(id) && self.world.is_in_handshake(group) {
                self.world.interrupted.insert(id);
                self.world.schedule(FRAGILE_PATIENCE, Event::GiveUp(group.client, id));
            }
        }
    }

    /// Plans the next conversation of every lane whose last one is over for the client.
    fn plan_rounds(&mut self) {
        for lane in &mut self.lanes {
            let group = &self.world.scenario.groups[lane.group];
            if lane.is_next_planned || lane.ids.len() >= usize::from(group.rounds) {
                continue;
            }
            let Some(id) = lane.ids.last().copied() else { continue };
            let host = &self.world.hosts[group.client];
            let is_over = match group.expect {
                Expect::Completes => host
                    .endpoint(id)
                    .is_some_and(|end| end.app.is_complete() && (end.app.is_flushed() || !host.is_open(id))),
                Expect::MayFail | Expect::DeniedByServer | Expect::DeniedByClient | Expect::Refused => {
                    !host.is_open(id)
                }
            };
            if is_over {
                lane.is_next_planned = true;
                let pause = nanos_of(group.pause) + 1000;
                self.world.schedule(pause, Event::Connect(lane.group, lane.offset));
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| {
            let group = &self.world.scenario.groups[lane.group];
            !lane.is_next_planned && lane.ids.len() == usize::from(group.rounds)
        }) && (0..self.world.scenario.groups.len()).all(|index| {
            let ids: Vec<u32> = self
                .lanes
                .iter()
                .filter(|lane| lane.group == index)
                .flat_map(|lane| lane.ids.clone())
                .collect();
            self.world.is_settled(&self.world.scenario.groups[index], &ids)
        })
    }
}
