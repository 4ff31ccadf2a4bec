//! An end host: a real TCP stack, the applications on it, and a queue in place of a network card.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::Checksum;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use super::app::{App, Dialogue};
use super::device::Queue;
use super::fin::LastFin;
use super::stream::Way;
use crate::packets::{self, ACK, RST, SYN, Sum, TcpView};

/// How a host's stack is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostSpec {
    /// Its only address.
    pub addr: IpAddr,
    /// Largest packet it sends.
    pub mtu: usize,
    /// Leaves checksums to the device, and accepts partial ones.
    pub offload: bool,
    /// How long an acknowledgement may wait for data to ride on.
    pub ack_delay: Option<Duration>,
    /// Whether the application writes before the stack acknowledges what just arrived.
    pub eager: bool,
    /// Coalesces small writes.
    pub nagle: bool,
    /// Offers the timestamp option.
    pub timestamps: bool,
    /// Bytes of each socket buffer.
    pub buffer: usize,
    /// Seed of the stack's initial sequence numbers.
    pub seed: u64,
}

/// One end of one connection.
#[derive(Debug)]
pub struct Endpoint {
    handle: SocketHandle,
    opened_at: u64,
    heard_at: u64,
    spent_since: Option<u64>,
    fin: LastFin,
    remote_port: u16,
    /// The port it was accepted on, for a server's end.
    pub listen_port: Option<u16>,
    /// This end's application.
    pub app: App,
}

impl Endpoint {
    fn new(now: u64, handle: SocketHandle, remote_port: u16, listen_port: Option<u16>, app: App) -> Self {
        let fin = LastFin::default();
        Self { handle, opened_at: now, heard_at: now, spent_since: None, fin, remote_port, listen_port, app }
    }

    /// The port at the other end.
    #[must_use]
    pub const fn remote_port(&self) -> u16 {
        self.remote_port
    }
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From a host of the same node: no device has completed its checksum.
    SameNode,
    /// From the wire, where every checksum is complete.
    Wire,
}

/// A host on the virtual network.
pub struct Host {
    spec: HostSpec,
    iface: Interface,
    device: Queue,
    sockets: SocketSet<'static>,
    endpoints: Vec<Endpoint>,
    finished: Vec<Endpoint>,
    listening: BTreeMap<u16, Dialogue>,
    next_id: u32,
}

/// A server's end that nobody completes is forgotten after this time.
const HALF_OPEN_PATIENCE: u64 = 900 * 1_000_000_000;
/// A server's end that hears nothing, not even answers to keep-alives, is forgotten after this time.
const DEAD_PEER_PATIENCE: u64 = 1500 * 1_000_000_000;
/// A socket whose application is through is forgotten after this time, whatever the peer does.
const ORPHAN_PATIENCE: u64 = 600 * 1_000_000_000;

impl Host {
    /// A host without sockets.
    #[must_use]
    pub fn new(spec: HostSpec, index: u32) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = spec.seed;
        let checksum = if spec.offload { Checksum::None } else { Checksum::Both };
        let mut device = Queue::new(spec.mtu, checksum);
        let mut iface = Interface::new(config, &mut device, Instant::ZERO);
        iface.update_ip_addrs(|addrs| {
            let prefix = if spec.addr.is_ipv4() { 24 } else { 64 };
            // One address always fits the fixed-capacity list.
            addrs.push(IpCidr::new(spec.addr.into(), prefix)).unwrap_or_default();
        });
        Self {
            spec,
            iface,
            device,
            sockets: SocketSet::new(Vec::new()),
            endpoints: Vec::new(),
            finished: Vec::new(),
            listening: BTreeMap::new(),
            next_id: (index + 1) << 20,
        }
    }

    /// Its address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.spec.addr
    }

    /// How it is configured.
    #[must_use]
    pub const fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// Accepts connections on `port` and answers with `dialogue`.
    pub fn listen(&mut self, port: u16, dialogue: Dialogue) {
        self.listening.insert(port, dialogue);
    }

    /// Starts a connection from `local_port`, forgetting an old one on the same tuple; returns its id.
    ///
    /// # Panics
    /// If `remote` is of the other address family.
    pub fn connect(&mut self, now: u64, local_port: u16, remote: SocketAddr, dialogue: Dialogue) -> u32 {
        let local = SocketAddr::new(self.spec.addr, local_port);
        self.forget(local, remote);
        let mut socket = self.new_socket();
        socket
            .connect(self.iface.context(), IpEndpoint::from(remote), local_port)
            .expect("a fresh socket connects within its family");
        let id = self.take_id();
        let handle = self.sockets.add(socket);
        let app = App::new(dialogue, Way::ToServer, id);
        self.endpoints.push(Endpoint::new(now, handle, remote.port(), None, app));
        id
    }

    /// Hands one packet to the stack.
    pub fn receive(&mut self, now: u64, packet: Vec<u8>, origin: Origin) {
        let mut packet = packet;
        if self.spec.offload {
            // The stack does not verify, so the device does.
            match (packets::tcp_sum(&packet), origin) {
                (Some(Sum::Valid), _) => {}
                (Some(Sum::Partial), Origin::SameNode) => packets::complete_sums(&mut packet),
                (Some(Sum::Partial), Origin::Wire) | (Some(Sum::Invalid) | None, _) => return,
            }
        }
        self.open_listener(now, &packet);
        self.device.rx.push_back(packet);
        let at = stamp(now);
        while self.iface.poll_ingress_single(at, &mut self.device, &mut self.sockets)
            != PollIngressSingleResult::None
        {}
        if !self.spec.eager {
            self.transmit(now);
        }
        self.run_apps(now);
        self.transmit(now);
    }

    /// Lets timers and applications run.
    pub fn tick(&mut self, now: u64) {
        self.run_apps(now);
        self.transmit(now);
        self.repeat_fins(now);
        self.run_apps(now);
    }

    /// When [`Self::tick`] is due next.
    pub fn next_tick(&mut self, now: u64) -> Option<u64> {
        let at = self.iface.poll_at(stamp(now), &self.sockets);
        let at = at.map(|at| u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000).max(now));
        let fins = self.endpoints.iter().filter_map(|endpoint| endpoint.fin.due_at());
        at.into_iter().chain(fins).min()
    }

    /// The next packet that leaves the host.
    pub fn pop_sent(&mut self, now: u64) -> Option<Vec<u8>> {
        let mut packet = self.device.tx.pop_front()?;
        // Applications here read at once: a full buffer is over before anybody could know of it. A window of zero
        // that is overtaken by the one after it makes smoltcp 0.14 forget its retransmission timer.
        while TcpView::parse(&packet).is_some_and(|view| view.window == 0 && view.flags == ACK) {
            packet = self.device.tx.pop_front()?;
        }
        self.remember_fin(now, &packet);
        if self.spec.offload {
            packets::write_ip_sum(&mut packet);
            packets::make_partial(&mut packet);
        }
        Some(packet)
    }

    /// Whether the stack has a socket for the tuple, in any state but closed.
    #[must_use]
    pub fn has_socket(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.find(local, remote).is_some_and(|handle| self.sockets.get::<Socket<'_>>(handle).is_open())
    }

    /// Removes every socket without a word to the peers.
    pub fn power_off(&mut self) {
        for endpoint in std::mem::take(&mut self.endpoints) {
            self.sockets.remove(endpoint.handle);
            self.finished.push(endpoint);
        }
        self.device.tx.clear();
        self.listening.clear();
    }

    /// Ends one connection attempt as a program that lost patience does.
    pub fn give_up(&mut self, id: u32) {
        if let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.app.id() == id) {
            self.retire(at);
        }
    }

    /// Whether the connection with this id still has a socket.
    #[must_use]
    pub fn is_open(&self, id: u32) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.app.id() == id)
    }

    /// Both ends known to this host, finished ones too.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> + Clone {
        self.finished.iter().chain(&self.endpoints)
    }

    /// The client's end with this id.
    #[must_use]
    pub fn endpoint(&self, id: u32) -> Option<&Endpoint> {
        self.endpoints().find(|endpoint| endpoint.app.id() == id)
    }

    /// Connections that the stack still holds, with their states, for a failure report.
    #[must_use]
    pub fn sockets(&self) -> Vec<String> {
        self.endpoints
            .iter()
            .map(|endpoint| {
                let socket = self.sockets.get::<Socket<'_>>(endpoint.handle);
                format!(
                    "{:?} -> {:?} {} {:?} received {}",
                    socket.local_endpoint(),
                    socket.remote_endpoint(),
                    socket.state(),
                    endpoint.app.progress(),
                    endpoint.app.checker().received()
                )
            })
            .collect()
    }

    /// A listening port takes a socket only while a SYN for it is being handled, like a backlog without a limit.
    fn open_listener(&mut self, now: u64, packet: &[u8]) {
        let Some(view) = TcpView::parse(packet) else { return };
        let known = self.find(view.dst, view.src);
        let heard = self.endpoints.iter_mut().find(|endpoint| Some(endpoint.handle) == known);
        if let Some(endpoint) = heard.filter(|_| !view.has(SYN)) {
            endpoint.heard_at = now;
        }
        let is_first = view.has(SYN) && view.flags & (ACK | RST) == 0;
        if !is_first || view.dst.ip() != self.spec.addr || packets::tcp_sum(packet) == Some(Sum::Invalid) {
            return;
        }
        let Some(dialogue) = self.listening.get(&view.dst.port()).copied() else { return };
        if let Some(handle) = known {
            if self.sockets.get::<Socket<'_>>(handle).state() == State::LastAck {
                self.challenge(handle);
            }
            if !matches!(self.sockets.get::<Socket<'_>>(handle).state(), State::TimeWait | State::Closed) {
                return;
            }
            self.forget(view.dst, view.src);
        }
        let mut socket = self.new_socket();
        // A fresh socket and a non-zero port: listening cannot be refused.
        socket.listen(view.dst.port()).unwrap_or_default();
        socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(20)));
        let id = self.take_id();
        let handle = self.sockets.add(socket);
        let app = App::new(dialogue, Way::ToClient, id);
        self.endpoints.push(Endpoint::new(now, handle, view.src.port(), Some(view.dst.port()), app));
    }

    fn run_apps(&mut self, now: u64) {
        let mut at = 0;
        while at < self.endpoints.len() {
            let endpoint = &mut self.endpoints[at];
            let socket = self.sockets.get_mut::<Socket<'_>>(endpoint.handle);
            endpoint.app.step(socket);
            let age = now.saturating_sub(endpoint.opened_at);
            let is_deserted =
                endpoint.listen_port.is_some() && now.saturating_sub(endpoint.heard_at) > DEAD_PEER_PATIENCE;
            let is_over = match socket.state() {
                // An aborted socket keeps its remote end until its reset has left.
                State::Closed => socket.remote_endpoint().is_none(),
                State::Listen => true,
                State::SynReceived => age > HALF_OPEN_PATIENCE,
                State::SynSent
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck
                | State::TimeWait => {
                    is_deserted
                        || endpoint
                            .spent_since
                            .is_some_and(|since| now.saturating_sub(since) > ORPHAN_PATIENCE)
                }
            };
            if endpoint.app.is_spent(socket) {
                endpoint.spent_since.get_or_insert(now);
            }
            if is_over {
                self.retire(at);
            } else {
                at += 1;
            }
        }
    }

    /// Answers a SYN on the ports of a connection that waits for its last acknowledgement (RFC 9293 §3.10.7.4),
    /// which smoltcp 0.14 does not: the sender of the SYN resets what it does not know.
    fn challenge(&mut self, handle: SocketHandle) {
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.handle == handle);
        self.device.tx.extend(endpoint.and_then(|endpoint| endpoint.fin.challenge()));
    }

    fn remember_fin(&mut self, now: u64, packet: &[u8]) {
        let Some(view) = TcpView::parse(packet) else { return };
        let Some(handle) = self.find(view.src, view.dst) else { return };
        if let Some(endpoint) = self.endpoints.iter_mut().find(|endpoint| endpoint.handle == handle) {
            endpoint.fin.remember(now, &view);
        }
    }

    fn repeat_fins(&mut self, now: u64) {
        for endpoint in &mut self.endpoints {
            let state = self.sockets.get::<Socket<'_>>(endpoint.handle).state();
            if !matches!(state, State::FinWait1 | State::Closing | State::LastAck) {
                endpoint.fin = LastFin::default();
            } else if endpoint.fin.due_at().is_some_and(|at| at <= now) {
                self.device.tx.extend(endpoint.fin.packet());
            }
        }
    }

    fn transmit(&mut self, now: u64) {
        while self.iface.poll_egress(stamp(now), &mut self.device, &mut self.sockets) != PollResult::None {}
    }

    fn retire(&mut self, at: usize) {
        let endpoint = self.endpoints.remove(at);
        self.sockets.remove(endpoint.handle);
        self.finished.push(endpoint);
    }

    fn forget(&mut self, local: SocketAddr, remote: SocketAddr) {
        let Some(handle) = self.find(local, remote) else { return };
        if let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.handle == handle) {
            self.retire(at);
        }
    }

    fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketHandle> {
        let (local, remote) = (IpEndpoint::from(local), IpEndpoint::from(remote));
        self.endpoints.iter().map(|endpoint| endpoint.handle).find(|handle| {
            let socket = self.sockets.get::<Socket<'_>>(*handle);
            socket.local_endpoint() == Some(local) && socket.remote_endpoint() == Some(remote)
        })
    }

    fn new_socket(&self) -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; self.spec.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(self.spec.nagle);
        socket.set_ack_delay(self.spec.ack_delay.map(|delay| {
            smoltcp::time::Duration::from_micros(u64::try_from(delay.as_micros()).unwrap_or(0))
        }));
        if self.spec.timestamps {
            socket.set_tsval_generator(Some(|| 0x0102_0304));
        }
        socket
    }

    const fn take_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }
}

fn stamp(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1000).unwrap_or(i64::MAX))
}
