//! A node with one PU and one peer, each in a namespace of its own, and a thread that drives the plane.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use trireme_bpf::{
    Connection, Edge, FlowKey, Hook, Injection, Plane, PlaneConfig, PuState, PuntReason, Slot, Toward, Waker,
};
use trireme_netns::{Links, Namespace};

use crate::wire::{Segment, Wire};

/// Addresses that nobody owns but the wires answer for: no stack interferes.
pub(crate) const GHOST_PU: [u8; 4] = [10, 9, 0, 77];
pub(crate) const GHOST_PEER: [u8; 4] = [10, 8, 0, 77];
pub(crate) const PU: Slot = Slot(5);

/// PU (eth0, 10.9.0.2, fd09::2) - host0 [node] up0 - peer (eth0, 10.8.0.2, fd08::2).
pub(crate) struct Lab {
    pub(crate) pu: Namespace,
    pub(crate) node: Namespace,
    pub(crate) peer: Namespace,
    pub(crate) instance: String,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("test-{}-{number}", std::process::id());
        let make = || Namespace::anonymous().expect("root is needed");
        let lab = Self { pu: make(), node: make(), peer: make(), instance };
        lab.node.run(|| lab.wire_up()).unwrap();
        let pu_mac = mac(&lab.pu, "eth0");
        let peer_mac = mac(&lab.peer, "eth0");
        lab.ip(&lab.node, &format!("neigh add 10.9.0.77 lladdr {} dev host0", text(pu_mac)));
        lab.ip(&lab.node, &format!("neigh add 10.8.0.77 lladdr {} dev up0", text(peer_mac)));
        lab.await_carrier();
        lab
    }

    /// A link that has just come up says so a moment later; states would differ for that alone.
    fn await_carrier(&self) {
        for _ in 0..500 {
            if ["host0", "up0"]
                .iter()
                .all(|device| run(&self.node, "ip", &format!("link show {device}")).contains("state UP"))
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the lab's links do not come up");
    }

    fn wire_up(&self) {
        let links = Links::connect().unwrap();
        for (host, inside) in [("host0", &self.pu), ("up0", &self.peer)] {
            let (_, end) = links.create_veth(host, "eth0").unwrap();
            links.move_into(end.index, inside).unwrap();
        }
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
        }
        for (device, net) in [("host0", 9), ("up0", 8)] {
            self.ip(&self.node, &format!("addr add 10.{net}.0.1/24 dev {device}"));
            self.ip(&self.node, &format!("addr add fd0{net}::1/64 dev {device} nodad"));
            self.ip(&self.node, &format!("link set {device} up"));
        }
        for (namespace, net) in [(&self.pu, 9), (&self.peer, 8)] {
            self.ip(namespace, &format!("addr add 10.{net}.0.2/24 dev eth0"));
            self.ip(namespace, &format!("addr add fd0{net}::2/64 dev eth0 nodad"));
            self.ip(namespace, "link set eth0 up");
            self.ip(namespace, "link set lo up");
            self.ip(namespace, &format!("route add default via 10.{net}.0.1"));
            self.ip(namespace, &format!("-6 route add default via fd0{net}::1"));
        }
    }

    pub(crate) fn ip(&self, namespace: &Namespace, arguments: &str) {
        run(namespace, "ip", arguments);
    }

    pub(crate) fn config(&self) -> PlaneConfig {
        PlaneConfig::new(&self.instance)
    }

    pub(crate) fn open(&self) -> Plane {
        self.open_with(self.config())
    }

    pub(crate) fn open_with(&self, config: PlaneConfig) -> Plane {
        self.node.run(|| Plane::open(config)).unwrap().unwrap()
    }

    /// A plane with the PU attached.
    pub(crate) fn attached(&self) -> Plane {
        self.attached_with(self.config())
    }

    pub(crate) fn attached_with(&self, config: PlaneConfig) -> Plane {
        let mut plane = self.open_with(config);
        plane.attach(&host_edge(), PU, state(1)).unwrap();
        plane
    }

    /// The edge inside the PU's namespace.
    pub(crate) fn inside_edge(&self) -> Edge {
        Edge::Namespace { path: self.path(&self.pu), device: "eth0".to_owned() }
    }

    pub(crate) fn path(&self, namespace: &Namespace) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd()))
    }

    pub(crate) fn pu_wire(&self) -> Wire {
        Wire::open(&self.pu, "eth0", mac(&self.node, "host0"))
    }

    pub(crate) fn peer_wire(&self) -> Wire {
        Wire::open(&self.peer, "eth0", mac(&self.node, "up0"))
    }

    /// Everything an operator can see of the node's and the PU's interfaces.
    pub(crate) fn state(&self) -> String {
        let mut all = String::new();
        for (name, namespace) in [("node", &self.node), ("pu", &self.pu)] {
            let device = if name == "node" { "host0" } else { "eth0" };
            for command in [
                "ip -d link show".to_owned(),
                "tc qdisc show".to_owned(),
                format!("tc filter show dev {device} ingress"),
                format!("tc filter show dev {device} egress"),
                "bpftool net show".to_owned(),
                "sysctl -a --pattern net.*(rp_filter|forwarding|disable_ipv6|arp_)".to_owned(),
            ] {
                let (program, arguments) = command.split_once(' ').unwrap();
                all += &format!("## {name}: {command}\n{}\n", run(namespace, program, arguments));
            }
        }
        all
    }

    /// The same, once every new link has noticed that its other end is up.
    pub(crate) fn settled_state(&self) -> String {
        loop {
            let state = self.state();
            if !state.contains("LOWERLAYERDOWN") {
                return state;
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let left = self.node.run(|| Plane::cleanup("/sys/fs/bpf".as_ref(), &self.instance));
        if !std::thread::panicking() {
            left.unwrap().unwrap();
        }
    }
}

pub(crate) fn host_edge() -> Edge {
    Edge::Interface("host0".to_owned())
}

pub(crate) fn state(epoch: u32) -> PuState {
    PuState { epoch, ..PuState::default() }
}

/// Runs a program inside a namespace and returns what it printed.
pub(crate) fn run(namespace: &Namespace, program: &str, arguments: &str) -> String {
    let output = namespace
        .run(|| Command::new(program).args(arguments.split_whitespace()).output())
        .unwrap()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success() || program == "sysctl",
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn mac(namespace: &Namespace, device: &str) -> [u8; 6] {
    namespace.run(|| Links::connect().unwrap().by_name(device).unwrap().address.try_into().unwrap()).unwrap()
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Key of the ghosts' connection.
pub(crate) fn ghost_key(local_port: u16, remote_port: u16) -> FlowKey {
    FlowKey { slot: PU, local: (GHOST_PU.into(), local_port), remote: (GHOST_PEER.into(), remote_port) }
}

/// Segment from the ghost PU.
pub(crate) fn from_pu(flags: u8, seq: u32, payload: &[u8]) -> Segment {
    Segment { from: (GHOST_PU, 4000), to: (GHOST_PEER, 80), seq, ack: 1, flags, payload: payload.to_vec() }
}

/// Segment to the ghost PU.
pub(crate) fn to_pu(flags: u8, seq: u32, payload: &[u8]) -> Segment {
    Segment { from: (GHOST_PEER, 80), to: (GHOST_PU, 4000), seq, ack: 1, flags, payload: payload.to_vec() }
}

/// An entry of a responder.
pub(crate) fn entry(epoch: u32) -> Connection {
    Connection {
        role: trireme_bpf::Role::Responder,
        class: trireme_bpf::Class::Identity,
        epoch,
        peer_token: [7; 16],
        peer_slot: 3,
        peer_generation: 1,
        attested: None,
        proof_seq: 1000,
        proof_mac: [9; 16],
        confirmed: true,
        syn_ack: 0,
        data_seen: false,
    }
}

/// What a punt said, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) hook: Hook,
    pub(crate) reason: PuntReason,
    pub(crate) connection: Option<Connection>,
    pub(crate) closing: bool,
    pub(crate) gso: bool,
    pub(crate) bytes: Vec<u8>,
}

/// Takes what is punted within a moment, without putting it back.
pub(crate) fn take(plane: &mut Plane, wanted: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    for _ in 0..200 {
        plane.beat().unwrap();
        plane.poll(Some(Duration::from_millis(10))).unwrap();
        plane.drain(1024, |punt| {
            // Multicast chatter of the stacks is not TCP and never here.
            seen.push(Seen {
                hook: punt.hook,
                reason: punt.reason,
                connection: punt.connection.map(|(connection, _)| connection),
                closing: punt.closing,
                gso: punt.gso_size.is_some(),
                bytes: punt.bytes.to_vec(),
            });
        });
        if seen.len() >= wanted {
            break;
        }
    }
    seen
}

/// A thread that puts back every packet.
pub(crate) struct PassAll {
    stop: Sender<()>,
    waker: Waker,
    thread: Option<JoinHandle<Plane>>,
    pub(crate) punts: Arc<Mutex<Vec<(Hook, PuntReason, bool)>>>,
}

impl PassAll {
    pub(crate) fn start(plane: Plane) -> Self {
        let (stop, stopped) = channel();
        let punts = Arc::new(Mutex::new(Vec::new()));
        let (waker, log) = (plane.waker(), Arc::clone(&punts));
        let thread = Some(std::thread::spawn(move || pass_all(plane, &stopped, &log)));
        Self { stop, waker, thread, punts }
    }

    pub(crate) fn count(&self) -> usize {
        self.punts.lock().unwrap().len()
    }

    pub(crate) fn stop(mut self) -> Plane {
        self.end().unwrap()
    }

    fn end(&mut self) -> Option<Plane> {
        let thread = self.thread.take()?;
        // The thread ends when nobody can send it anything.
        self.stop = channel().0;
        self.waker.wake();
        thread.join().ok()
    }
}

impl Drop for PassAll {
    fn drop(&mut self) {
        self.end();
    }
}

fn pass_all(mut plane: Plane, stopped: &Receiver<()>, log: &Mutex<Vec<(Hook, PuntReason, bool)>>) -> Plane {
    use std::sync::mpsc::TryRecvError;
    let mut batch = Vec::new();
    while stopped.try_recv() != Err(TryRecvError::Disconnected) {
        plane.beat().unwrap();
        let mut seen = Vec::new();
        let count = plane.drain(256, |punt| {
            seen.push((punt.hook, punt.reason, punt.gso_size.is_some()));
            batch.push(Injection {
                slot: punt.slot,
                toward: if punt.hook == Hook::FromPu { Toward::Network } else { Toward::Pu },
                bytes: punt.bytes.to_vec(),
                gso_size: punt.gso_size,
                token: Some(punt.token),
            });
        });
        log.lock().unwrap().extend(seen);
        if count == 0 {
            plane.poll(Some(Duration::from_millis(100))).unwrap();
            continue;
        }
        let report = plane.reinject(&mut batch);
        assert_eq!((report.unaddressed, report.unattached), (0, 0));
    }
    plane
}
