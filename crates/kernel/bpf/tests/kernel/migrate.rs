//! Pins of other versions of the layouts are taken over, and no PU is open for a moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::{HashMap, MapData};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::{
    NlOptions, SchedClassifier, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
};
use aya::{Ebpf, EbpfLoader};
use trireme_bpf::{AttachMethod, Class, Counter, Edge, FlowKey, PlaneConfig, Role};
use trireme_bpf_abi::{EdgeRecord, edge_flag};
use trireme_netns::{Links, Namespace};
use zerocopy::IntoBytes as _;

use crate::lab::{GHOST_PEER, GHOST_PU, Lab, PU, from_pu, ghost_key, host_edge, state, take, to_pu};
use crate::wire::{ACK, SYN};

/// An object with the alignment that its reader needs.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static V1: &Aligned<[u8]> = &Aligned(*include_bytes!("../fixtures/v1.bpf.o"));
static V2: &Aligned<[u8]> = &Aligned(*include_bytes!("../fixtures/v2.bpf.o"));

pub(crate) fn pins(lab: &Lab, version: u32) -> PathBuf {
    Path::new("/sys/fs/bpf/trireme").join(&lab.instance).join(format!("v{version}"))
}

/// Loads the object of version 1 with its pins in a directory.
pub(crate) fn load_v1(directory: &Path, edge_key: u32) -> Ebpf {
    load(&V1.0, directory, edge_key)
}

fn load(object: &[u8], directory: &Path, edge_key: u32) -> Ebpf {
    std::fs::create_dir_all(directory.join("links")).unwrap();
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(directory).override_global("edge_key", &edge_key, true);
    loader.load(object).unwrap()
}

/// What an agent of version 1 leaves: one PU with one connection of a responder, epoch 4.
pub(crate) fn leave_v1(lab: &Lab, version: u32, method: AttachMethod, edge: &Edge) {
    let inside = matches!(edge, Edge::Namespace { .. });
    let (namespace, device) = if inside { (&lab.pu, "eth0") } else { (&lab.node, "host0") };
    let ifindex = namespace.run(|| Links::connect().unwrap().by_name(device).unwrap().index).unwrap();
    let directory = pins(lab, version);
    let edge_key = if inside { 0x8000_0000 | PU.0 } else { 0 };
    let mut object = load_v1(&directory, edge_key);
    let mut flags = if inside { edge_flag::NAMESPACE } else { 0 };
    if method == AttachMethod::Clsact {
        flags |= edge_flag::CLSACT | edge_flag::QDISC_CREATED;
    }
    let key = if inside { edge_key } else { ifindex };
    let pu = [&PU.0.to_ne_bytes()[..], &4_u32.to_ne_bytes(), &[0, 1, 0, 0], &ifindex.to_ne_bytes()].concat();
    insert::<4, 16>(&mut object, "pus", key.to_ne_bytes(), &pu);
    let record = record(lab, namespace, ifindex, flags, device, inside);
    insert::<4, 256>(&mut object, "edges", PU.0.to_ne_bytes(), record.as_bytes());
    insert::<40, 120>(&mut object, "connections", flow_key(4000), &connection_v1(1));
    insert::<40, 120>(&mut object, "closing", flow_key(4001), &connection_v1(3));
    namespace.run(|| put_on(&mut object, device, method, inside, &directory)).unwrap();
}

/// What an agent of version 2 leaves on the host's interface: the same, and a peer that it knew.
fn leave_v2(lab: &Lab) {
    let ifindex = lab.node.run(|| Links::connect().unwrap().by_name("host0").unwrap().index).unwrap();
    let directory = pins(lab, 2);
    let mut object = load(&V2.0, &directory, 0);
    let mut pu =
        [&PU.0.to_ne_bytes()[..], &4_u32.to_ne_bytes(), &[0, 1, 0, 1], &ifindex.to_ne_bytes()].concat();
    pu.resize(112, 0);
    insert::<4, 112>(&mut object, "pus", ifindex.to_ne_bytes(), &pu);
    let record = record(lab, &lab.node, ifindex, 0, "host0", false);
    insert::<4, 256>(&mut object, "edges", PU.0.to_ne_bytes(), record.as_bytes());
    let (head, tail) = (connection_v1(1)[..32].to_vec(), connection_v1(1)[32..].to_vec());
    let connection = [&head[..], &77_u32.to_ne_bytes(), &[0; 4], &tail].concat();
    insert::<40, 128>(&mut object, "connections", flow_key(4000), &connection);
    insert::<16, 64>(&mut object, "peers", [5; 16], &[6; 64]);
    lab.node.run(|| put_on(&mut object, "host0", AttachMethod::Auto, false, &directory)).unwrap();
}

fn put_on(object: &mut Ebpf, device: &str, method: AttachMethod, inside: bool, directory: &Path) {
    if method == AttachMethod::Clsact {
        qdisc_add_clsact(device).unwrap();
    }
    for (name, from) in [("from_pu", true), ("to_pu", false)] {
        let program: &mut SchedClassifier = object.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        let side = if from != inside { TcAttachType::Ingress } else { TcAttachType::Egress };
        if method == AttachMethod::Clsact {
            let handle = TcHandle::new(0x7472, 0x6d65);
            let options = TcAttachOptions::Netlink(NlOptions { priority: 1, handle, classid: None });
            let id = program.attach_with_options(device, side, options).unwrap();
            std::mem::forget(program.take_link(id).unwrap());
        } else {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(device, side, options).unwrap();
            let link = FdLink::try_from(program.take_link(id).unwrap()).unwrap();
            let pin = format!("links/{PU}-{}", if from { "from" } else { "to" });
            link.pin(directory.join(pin)).unwrap();
        }
    }
}

fn insert<const K: usize, const V: usize>(object: &mut Ebpf, map: &str, key: [u8; K], value: &[u8]) {
    let mut map: HashMap<&mut MapData, [u8; K], [u8; V]> = object.map_mut(map).unwrap().try_into().unwrap();
    map.insert(key, <[u8; V]>::try_from(value).unwrap(), 0).unwrap();
}

fn record(
    lab: &Lab,
    namespace: &Namespace,
    ifindex: u32,
    flags: u32,
    device: &str,
    inside: bool,
) -> EdgeRecord {
    let id = namespace.id();
    let (netns_device, netns_inode) = (id.device, id.inode);
    let mut record = EdgeRecord { ifindex, flags, netns_device, netns_inode, name: [0; 16], path: [0; 216] };
    record.name[..device.len()].copy_from_slice(device.as_bytes());
    if inside {
        let path = lab.path(namespace);
        let path = path.to_str().unwrap();
        record.path[..path.len()].copy_from_slice(path.as_bytes());
    }
    record
}

fn flow_key(local_port: u16) -> [u8; 40] {
    let mapped = |address: [u8; 4]| std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets();
    let ports = [local_port.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    [&PU.0.to_ne_bytes()[..], &ports, &mapped(GHOST_PU), &mapped(GHOST_PEER)].concat().try_into().unwrap()
}

/// Responder, confirmed, with an attested address, as version 1 laid it out.
fn connection_v1(flags: u32) -> Vec<u8> {
    let mut entry: Vec<u8> =
        [4, flags, 3, 1, 1000, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    entry.extend(8080_u16.to_ne_bytes());
    entry.extend([4, 1, 0, 0, 0, 0]);
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 1, 2, 3]);
    entry.extend(address);
    entry.extend([9; 16]);
    entry.extend([7; 16]);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    entry.extend((u64::try_from(now.tv_sec).unwrap() * 1_000_000_000).to_ne_bytes());
    for number in [11_u64, 12, 13, 14] {
        entry.extend(number.to_ne_bytes());
    }
    entry
}

fn is_syn(frame: &[u8]) -> bool {
    frame.len() > 36 && frame[..2] == [8, 0] && frame[11] == 6 && frame[35] & SYN != 0
}

/// Opens the plane while the PU sends segments of its connection and SYNs; returns how many segments left and arrived.
fn open_under_traffic(lab: &Lab, config: PlaneConfig) -> (trireme_bpf::Plane, u32, u32) {
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                pu.send(&from_pu(ACK, sent, b"established").packet());
                // Inside, a drop is the sender's error.
                let _dropped = pu.try_send(&from_pu(SYN, sent, b"").packet());
                sent += 1;
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
            sent
        });
        let receiver = scope.spawn(|| {
            let mut arrived = 0;
            let of_interest = |frame: &[u8]| is_syn(frame) || frame.ends_with(b"established");
            while let Some(frame) = peer.within(std::time::Duration::from_millis(500), of_interest) {
                assert!(!is_syn(&frame));
                arrived += 1;
            }
            arrived
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        let plane = lab.open_with(config);
        std::thread::sleep(std::time::Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        (plane, sender.join().unwrap(), receiver.join().unwrap())
    })
}

#[test]
fn version_1_is_taken_over_under_traffic_without_a_loss_or_a_leak() {
    for (method, inside) in
        [(AttachMethod::Auto, false), (AttachMethod::Clsact, false), (AttachMethod::Auto, true)]
    {
        let lab = Lab::new();
        let before = lab.state();
        let edge = if inside { lab.inside_edge() } else { host_edge() };
        leave_v1(&lab, 1, method, &edge);

        let (mut plane, sent, arrived) =
            open_under_traffic(&lab, PlaneConfig { attach: method, ..lab.config() });

        assert!(sent > 100, "{sent}");
        assert_eq!(arrived, sent, "{method:?} {inside}");
        assert!(!pins(&lab, 1).exists());
        let edges = plane.edges();
        assert_eq!(edges.len(), 1);
        assert_eq!((edges[0].slot, &edges[0].edge, edges[0].state.epoch), (PU, &edge, 4));
        assert_eq!(edges[0].state.other_protocols, trireme_bpf::OtherProtocols::Allow);
        let (entry, activity) = plane.connection(&ghost_key(4000, 80)).unwrap().unwrap();
        assert_eq!((entry.role, entry.class, entry.epoch), (Role::Responder, Class::Identity, 4));
        assert_eq!((entry.peer_token, entry.proof_mac, entry.proof_seq), ([7; 16], [9; 16], 1000));
        assert_eq!(entry.attested, Some(([10, 1, 2, 3].into(), 8080)));
        assert_eq!((entry.peer_slot, entry.peer_generation, entry.confirmed), (3, 1, true));
        assert!(activity.packets_from > 11 && activity.packets_to == 13, "{activity:?}");
        // The one that was closing has its last segments to go.
        assert_eq!(plane.count_connections().unwrap(), 2);
        assert_eq!(plane.self_check(), []);
        plane.drain(100_000, |_| {});
        lab.pu_wire().send(&from_pu(SYN, 7, b"").packet());
        assert_eq!(take(&mut plane, 1).len(), 1);

        plane.detach(PU).unwrap();
        drop(plane);
        assert_eq!(lab.state(), before, "{method:?} {inside}");
    }
}

#[test]
fn version_2_is_taken_over_under_traffic_with_what_it_knew() {
    let lab = Lab::new();
    let before = lab.state();
    leave_v2(&lab);

    let (mut plane, sent, arrived) = open_under_traffic(&lab, lab.config());

    assert!(sent > 100, "{sent}");
    assert_eq!(arrived, sent);
    assert!(!pins(&lab, 2).exists());
    let state = plane.edges()[0].state;
    assert_eq!((state.epoch, state.fast), (4, true));
    let (entry, activity) = plane.connection(&ghost_key(4000, 80)).unwrap().unwrap();
    assert_eq!((entry.role, entry.class, entry.epoch), (Role::Responder, Class::Identity, 4));
    assert_eq!((entry.proof_seq, entry.syn_ack, entry.peer_token), (1000, 77, [7; 16]));
    assert_eq!(entry.attested, Some(([10, 1, 2, 3].into(), 8080)));
    assert!(activity.packets_from > 11 && activity.packets_to == 13, "{activity:?}");
    assert_eq!(plane.peers().unwrap().len(), 1);

    plane.detach(PU).unwrap();
    drop(plane);
    assert_eq!(lab.state(), before);
}

#[test]
fn takeover_that_was_interrupted_is_finished_and_brings_nothing_back() {
    let lab = Lab::new();
    leave_v1(&lab, 1, AttachMethod::Auto, &host_edge());
    let mut plane = lab.open();
    assert!(plane.connection_remove(&ghost_key(4000, 80)).unwrap());
    drop(plane);
    // As if the old pins had not been removed yet.
    let mut object = load_v1(&pins(&lab, 1), 0);
    insert::<40, 120>(&mut object, "connections", flow_key(4000), &connection_v1(1));
    drop(object);

    let plane = lab.open();

    assert!(!pins(&lab, 1).exists());
    assert_eq!(plane.edges().len(), 1);
    assert!(plane.connection(&ghost_key(4000, 80)).unwrap().is_none());
    assert_eq!(plane.count_connections().unwrap(), 1);
}

#[test]
fn pu_of_an_unknown_version_is_closed_until_it_is_attached() {
    let lab = Lab::new();
    let before = lab.state();
    leave_v1(&lab, 7, AttachMethod::Auto, &host_edge());
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let established = from_pu(ACK, 1, b"x");
    pu.send(&established.packet());
    peer.expect(|frame| established.is(frame));

    let mut plane = lab.open();

    assert_eq!(plane.edges(), []);
    assert!(!pins(&lab, 7).exists());
    pu.send(&established.packet());
    peer.send(&to_pu(SYN, 1, b"").packet());
    peer.expect_nothing(|frame| established.is(frame));
    pu.expect_nothing(is_syn);
    let none = |plane: &trireme_bpf::Plane| plane.counters().unwrap().last().unwrap().1.of(Counter::NoOwner);
    assert!(none(&plane) >= 2);
    // A restart does not open it.
    drop(plane);
    plane = lab.open();
    pu.send(&established.packet());
    peer.expect_nothing(|frame| established.is(frame));

    // Under another slot than it had.
    let slot = trireme_bpf::Slot(9);
    plane.attach(&host_edge(), slot, state(1)).unwrap();
    let key = FlowKey { slot, ..ghost_key(4000, 80) };
    plane.connection_insert(&key, &crate::lab::entry(1)).unwrap();
    pu.send(&established.packet());
    peer.expect(|frame| established.is(frame));
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        let on_it = lab.node.run(|| SchedClassifier::query_tcx("host0", side).unwrap().1.len()).unwrap();
        assert_eq!(on_it, 1);
    }
    plane.detach(slot).unwrap();
    drop(plane);
    assert_eq!(lab.state(), before);
}

#[test]
fn cleanup_removes_what_another_version_left() {
    for (version, method) in [(1, AttachMethod::Auto), (1, AttachMethod::Clsact), (7, AttachMethod::Auto)] {
        let lab = Lab::new();
        let before = lab.state();
        leave_v1(&lab, version, method, &host_edge());

        lab.node.run(|| trireme_bpf::Plane::cleanup("/sys/fs/bpf".as_ref(), &lab.instance)).unwrap().unwrap();

        assert_eq!(lab.state(), before, "{version} {method:?}");
    }
}
