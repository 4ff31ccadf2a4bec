//! What must hold in every run, whatever the network does.

use super::host::Endpoint;
use super::scenario::{Expect, Group, OUTSIDE};
use super::world::{World, name};
use crate::packets::{self, RST, SYN, Sum, TAP_MAGIC, TcpView};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An allowed conversation did not come to its end.
    Incomplete(String),
    /// Bytes arrived that nobody sent at that place of the stream.
    StreamDamaged(String),
    /// A forbidden connection was established or carried bytes.
    DenialBroken(String),
    /// A server's stack completed a handshake that no client's stack completed.
    Ghost(String),
    /// A connection carried segments although it was no longer admitted.
    RevocationIgnored(String),
    /// A connection to a closed port was not reported as refused.
    NotRefused(String),
    /// Something was left in a table at the end.
    Leak(String),
    /// A host's stack was handed bytes of TAP.
    TapReachedHost(String),
    /// Bytes of TAP left for a network that must not see them.
    TapLeftTargets(String),
    /// A packet left an engine with a wrong checksum.
    BadChecksum(String),
    /// The run did not come to rest.
    Livelock(String),
}

const TAP_REFUSAL: u8 = 4;

impl World {
    /// Properties of a packet that is about to reach a host's stack.
    pub(super) fn check_delivered(&mut self, host: usize, packet: &[u8]) {
        let Some(view) = TcpView::parse(packet) else { return };
        // A host without a node may well be sent identity; its stack ignores the payload of a SYN.
        let is_guarded = !self.nodes.is_empty() && self.scenario.nodes[host].is_some();
        if packets::tcp_sum(packet) == Some(Sum::Invalid) || !is_guarded {
            return;
        }
        // Neither a SYN nor a reset carries anything; what follows a SYN is judged for itself.
        if view.flags & (RST | SYN) == 0 {
            self.check_revoked(host, view.dst.port(), packet);
        }
        if view.has(SYN) && !view.payload.is_empty() {
            let what = format!("{} got a SYN with payload: {}", name(host), super::trace::describe(packet));
            self.violations.push(Violation::TapReachedHost(what));
        }
    }

    /// Properties of a packet that leaves a host's edge.
    pub(super) fn check_leaving(&mut self, host: usize, packet: &[u8]) {
        let Some(view) = TcpView::parse(packet) else { return };
        // A refusal may well be told, and an answer to a SYN carries nothing.
        if view.flags & (RST | SYN) == 0 && view.tap_kind() != Some(TAP_REFUSAL) {
            self.check_revoked(host, view.src.port(), packet);
        }
        if view.dst.ip() != self.hosts[OUTSIDE].addr() || self.scenario.nodes[host].is_none() {
            return;
        }
        let is_tap = view.has(SYN) && view.payload.starts_with(&TAP_MAGIC);
        if is_tap {
            let what = format!("{} sent TAP outside: {}", name(host), super::trace::describe(packet));
            self.violations.push(Violation::TapLeftTargets(what));
        }
    }

    /// Whether some client of the group may not have been accepted yet.
    pub(super) fn is_in_handshake(&self, group: &Group) -> bool {
        let open = self.hosts[group.client].endpoints().filter(|end| {
            end.remote_port() == group.target.port() && self.hosts[group.client].is_open(end.app.id())
        });
        let is_established = |end: &&Endpoint| end.app.progress().established;
        open.clone().any(|end| !end.app.progress().established)
            || self.accepted(group).filter(is_established).count()
                < self.hosts[group.client]
                    .endpoints()
                    .filter(|end| end.remote_port() == group.target.port())
                    .filter(is_established)
                    .count()
    }

    fn check_revoked(&mut self, server: usize, port: u16, packet: &[u8]) {
        let is_concerned =
            |group: &Group| group.server == server && group.port == port && !group.ingress_rule;
        let is_revoked =
            self.scenario.revocations.iter().any(|(_, index)| is_concerned(&self.scenario.groups[*index]));
        if is_revoked {
            let what = format!("at {}: {}", name(server), super::trace::describe(packet));
            self.violations.push(Violation::RevocationIgnored(what));
        }
    }

    /// Whether every conversation has come to the end it must come to; `ids` are the clients' ends by group.
    pub(super) fn is_settled(&self, group: &Group, ids: &[u32]) -> bool {
        let clients = || ids.iter().filter_map(|id| self.hosts[group.client].endpoint(*id));
        match group.expect {
            Expect::Completes => {
                let is_over = |client: &Endpoint| {
                    let is_served = || {
                        self.accepted(group).any(|server| is_pair(client, server) && server.app.is_complete())
                    };
                    (client.app.is_complete() && is_served())
                        || (self.interrupted.contains(&client.app.id())
                            && !self.hosts[group.client].is_open(client.app.id()))
                };
                clients().all(is_over)
            }
            Expect::MayFail | Expect::DeniedByServer | Expect::DeniedByClient | Expect::Refused => {
                ids.iter().all(|id| !self.hosts[group.client].is_open(*id))
            }
        }
    }

    /// Properties of a group's conversations when the run is over.
    pub(super) fn check_group(&mut self, index: usize, ids: &[u32]) {
        let group = &self.scenario.groups[index];
        let mut found = Vec::new();
        let clients = || ids.iter().filter_map(|id| self.hosts[group.client].endpoint(*id));
        for (side, end) in
            clients().map(|end| ("client", end)).chain(self.accepted(group).map(|end| ("server", end)))
        {
            if let Some(offset) = end.app.checker().first_wrong() {
                let what = format!("group {index}, {side} {:#x}: byte {offset} is wrong", end.app.id());
                found.push(Violation::StreamDamaged(what));
            }
        }
        let is_established = |end: &&Endpoint| end.app.progress().established;
        let (called, answered) =
            (clients().filter(is_established).count(), self.accepted(group).filter(is_established).count());
        if answered > called {
            let what = format!("group {index}: {called} established clients, {answered} established servers");
            found.push(Violation::Ghost(what));
        }
        match group.expect {
            Expect::MayFail => {}
            Expect::Completes => {
                for client in clients().filter(|client| !self.interrupted.contains(&client.app.id())) {
                    let mut servers = self.accepted(group).filter(|server| is_pair(client, server));
                    let is_served = servers.clone().any(|server| server.app.is_complete());
                    if !client.app.is_complete() || !is_served {
                        let (client, server) = (summary(client), servers.next().map(summary));
                        found.push(Violation::Incomplete(format!(
                            "group {index}: {client}; server {server:?}"
                        )));
                    }
                }
            }
            Expect::DeniedByServer | Expect::DeniedByClient | Expect::Refused => {
                for end in clients().chain(self.accepted(group)) {
                    if end.app.progress().established || end.app.checker().received() > 0 {
                        let what = format!("group {index} ({:?}): {}", group.expect, summary(end));
                        found.push(Violation::DenialBroken(what));
                    }
                }
            }
        }
        self.violations.extend(found);
    }

    /// Properties of the tables after everything has closed and time has passed.
    pub(super) fn check_tables(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            for left in node.left_over() {
                self.violations.push(Violation::Leak(format!("node {index}: {left}")));
            }
        }
    }

    fn accepted<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Endpoint> + Clone {
        self.hosts[group.server].endpoints().filter(|end| end.listen_port == Some(group.port))
    }
}

/// Whether two ends belong together, by the ids they received as far as they received any.
fn is_pair(client: &Endpoint, server: &Endpoint) -> bool {
    match (client.app.checker().id(), server.app.checker().id()) {
        (_, Some(id)) => id == client.app.id(),
        (Some(id), None) => id == server.app.id(),
        (None, None) => server.app.progress().established,
    }
}

fn summary(end: &Endpoint) -> String {
    let checker = end.app.checker();
    format!(
        "{:#x} {:?} received {} complete {}",
        end.app.id(),
        end.app.progress(),
        checker.received(),
        end.app.is_complete()
    )
}
