//! Real sockets through a user space that puts back every packet.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use trireme_bpf::{AttachMethod, Counter, Hook, PlaneConfig};
use trireme_netns::Namespace;

use crate::lab::{Lab, PU, PassAll, run};

const SIZE: usize = 10_000_000;

/// Moves 10 MB each way over one connection and compares every byte.
pub(crate) fn transfer(client: &Namespace, server: &Namespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let there = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        both_ways(stream, 1, 2);
    });
    let stream =
        client.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5))).unwrap().unwrap();
    both_ways(stream, 2, 1);
    there.join().unwrap();
}

fn both_ways(mut stream: TcpStream, sends: usize, receives: usize) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        writer.write_all(&pattern(sends)).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == pattern(receives), "{} bytes differ from what was sent", received.len());
    thread.join().unwrap();
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..SIZE).map(|n| u8::try_from((n * 31 + n / 4099 + seed * 101) % 251).unwrap()).collect()
}

fn all_ways(config: PlaneConfig, lab: &Lab) -> PassAll {
    let pass = PassAll::start(lab.attached_with(config));
    for address in ["10.8.0.2:7001", "[fd08::2]:7001"] {
        transfer(&lab.pu, &lab.peer, address);
    }
    for address in ["10.9.0.2:7002", "[fd09::2]:7002"] {
        transfer(&lab.peer, &lab.pu, address);
    }
    pass
}

#[test]
fn ten_megabytes_arrive_both_ways_with_segmentation_offload() {
    let lab = Lab::new();

    let pass = all_ways(lab.config(), &lab);

    let punts = pass.punts.lock().unwrap().clone();
    let big = |hook| punts.iter().filter(|punt| punt.0 == hook && punt.2).count();
    assert!(big(Hook::FromPu) > 100 && big(Hook::ToPu) > 100, "{} {}", big(Hook::FromPu), big(Hook::ToPu));
    let counters = pass.stop().counters().unwrap()[0].1;
    assert!(counters.of(Counter::Reinjected) > 1000);
    assert_eq!(counters.of(Counter::PuntedFrom) + counters.of(Counter::PuntedTo), punts.len() as u64);
    for drop in [Counter::Oversize, Counter::Truncated, Counter::NoOwner, Counter::Vlan, Counter::Forged] {
        assert_eq!(counters.of(drop), 0, "{drop:?}");
    }
}

#[test]
fn ten_megabytes_arrive_both_ways_without_segmentation_offload() {
    let lab = Lab::new();
    for (namespace, device) in
        [(&lab.pu, "eth0"), (&lab.peer, "eth0"), (&lab.node, "host0"), (&lab.node, "up0")]
    {
        run(namespace, "ethtool", &format!("-K {device} tso off gso off gro off tx off rx off"));
    }

    let pass = all_ways(lab.config(), &lab);

    assert_eq!(pass.punts.lock().unwrap().iter().filter(|punt| punt.2).count(), 0);
}

#[test]
fn filters_on_clsact_do_what_links_do() {
    let lab = Lab::new();
    let before = lab.state();

    let pass = all_ways(PlaneConfig { attach: AttachMethod::Clsact, ..lab.config() }, &lab);

    let mut plane = pass.stop();
    assert!(run(&lab.node, "tc", "filter show dev host0 ingress").contains("from_pu"));
    plane.detach(PU).unwrap();
    drop(plane);
    assert_eq!(lab.state(), before);
}

#[test]
fn traffic_of_others_is_untouched() {
    let lab = Lab::new();
    let plane = lab.attached();
    let pass = PassAll::start(plane);

    transfer(&lab.node, &lab.peer, "10.8.0.2:7003");
    transfer(&lab.peer, &lab.node, "[fd08::1]:7003");

    assert_eq!(pass.count(), 0);
    let counters = pass.stop().counters().unwrap();
    assert!(counters.iter().all(|(_, set)| {
        [Counter::PuntedFrom, Counter::PuntedTo, Counter::NoOwner].iter().all(|counter| set.of(*counter) == 0)
    }));
}
