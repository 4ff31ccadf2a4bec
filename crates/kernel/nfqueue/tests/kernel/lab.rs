//! Namespaces, queues and sockets of the tests.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use trireme_netns::{Links, Namespace};
use trireme_nfqueue::{Buffers, Packet, Queue, QueueConfig, Received, Verdicts};

pub(crate) const CONFIG: QueueConfig = QueueConfig { number: 7, length: 1024, receive_buffer: 1 << 20 };
pub(crate) const PATIENT: Duration = Duration::from_secs(10);

/// Runs a command in the namespace of the calling thread.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a namespace where what goes to the port is queued.
pub(crate) fn namespace(port: u16) -> Namespace {
    let namespace = Namespace::anonymous().unwrap();
    namespace
        .run(|| {
            run("ip link set lo up");
            for tables in ["iptables", "ip6tables"] {
                run(&format!("{tables} -A OUTPUT -p udp --dport {port} -j NFQUEUE --queue-num 7"));
            }
        })
        .unwrap();
    namespace
}

/// Runs in such a namespace.
pub(crate) fn queued(port: u16, what: impl FnOnce(&mut Buffers) + Send) {
    namespace(port).run(|| what(&mut Buffers::new())).unwrap();
}

/// Two namespaces and a link: 198.51.100.1 and 2001:db8:1::1 at the one end, .2 and ::2 at the other.
pub(crate) fn linked() -> (Namespace, Namespace) {
    let (near, far) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
    near.run(|| {
        let links = Links::connect().unwrap();
        let (_, end) = links.create_veth("near0", "far0").unwrap();
        links.move_into(end.index, &far).unwrap();
    })
    .unwrap();
    for (namespace, name, host) in [(&near, "near0", 1), (&far, "far0", 2)] {
        namespace
            .run(|| {
                run("ip link set lo up");
                run(&format!("ip address add 198.51.100.{host}/24 dev {name}"));
                run(&format!("ip address add 2001:db8:1::{host}/64 dev {name} nodad"));
                run(&format!("ip link set {name} up"));
            })
            .unwrap();
    }
    (near, far)
}

pub(crate) fn receiver(address: SocketAddr) -> UdpSocket {
    let receiver = UdpSocket::bind(address).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    receiver
}

pub(crate) fn pair(address: SocketAddr) -> (UdpSocket, UdpSocket, SocketAddr) {
    let receiver = receiver(address);
    let to = receiver.local_addr().unwrap();
    (UdpSocket::bind((to.ip(), 0)).unwrap(), receiver, to)
}

/// Calls until that many packets were handed out.
pub(crate) fn take(
    queue: &mut Queue,
    buffers: &mut Buffers,
    count: usize,
    mut each: impl FnMut(Packet<'_>, &mut Verdicts),
) -> Received {
    let (mut all, end) = (Received::default(), Instant::now() + PATIENT);
    while all.packets < count {
        assert!(Instant::now() < end, "{all:?}");
        let received = queue.receive(buffers, &mut each).unwrap();
        all.packets += received.packets;
        all.refused += received.refused;
        all.unknown += received.unknown;
        all.overrun |= received.overrun;
        std::thread::yield_now();
    }
    all
}

/// Waits until it holds.
pub(crate) fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
