//! Someone takes our programs off: it is noticed, repaired and told.

use aya::programs::SchedClassifier;
use aya::programs::links::{FdLink, PinnedLink};
use trireme_bpf::{AttachMethod, Damage, Edge, Hook, Plane, PlaneConfig, Repair};
use trireme_bpf_abi::ABI_VERSION;

use crate::lab::{Lab, PU, from_pu, host_edge, run, state, take, to_pu};
use crate::migrate::{load_v1, pins};
use crate::wire::SYN;

fn repaired(hook: Option<Hook>, damage: Damage) -> Repair {
    Repair { slot: PU, hook, damage, error: None }
}

fn attached(lab: &Lab, method: AttachMethod, inside: bool) -> Plane {
    let mut plane = lab.open_with(PlaneConfig { attach: method, ..lab.config() });
    let edge = if inside { lab.inside_edge() } else { host_edge() };
    plane.attach(&edge, PU, state(1)).unwrap();
    assert_eq!(plane.self_check(), []);
    plane
}

/// Both directions go to user space and nowhere else.
#[track_caller]
fn is_closed(lab: &Lab, plane: &mut Plane) {
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let (out, back) = (from_pu(SYN, 9, b""), to_pu(SYN, 9, b""));
    plane.beat().unwrap();
    pu.send(&out.packet());
    peer.send(&back.packet());
    assert_eq!(take(plane, 2).len(), 2);
    peer.expect_nothing(|frame| out.is(frame));
    // Inside its namespace, we look in front of the program.
    if matches!(plane.edges()[0].edge, Edge::Interface(_)) {
        pu.expect_nothing(|frame| back.is(frame));
    }
}

#[track_caller]
fn is_open(lab: &Lab) {
    let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
    let out = from_pu(SYN, 8, b"");
    pu.send(&out.packet());
    peer.expect(|frame| out.is(frame));
}

fn link_pin(lab: &Lab, hook: &str) -> String {
    pins(lab, ABI_VERSION).join(format!("links/{PU}-{hook}")).display().to_string()
}

#[test]
fn detached_links_are_attached_again() {
    for inside in [false, true] {
        let lab = Lab::new();
        let mut plane = attached(&lab, AttachMethod::Auto, inside);
        for hook in ["from", "to"] {
            run(&lab.node, "bpftool", &format!("link detach pinned {}", link_pin(&lab, hook)));
        }
        is_open(&lab);

        let repairs = plane.self_check();

        let expected = [Hook::ToPu, Hook::FromPu].map(|hook| repaired(Some(hook), Damage::Detached));
        assert_eq!(repairs, expected);
        assert_eq!(plane.self_check(), []);
        is_closed(&lab, &mut plane);
        // The new links outlive the agent as well.
        drop(plane);
        let out = from_pu(SYN, 7, b"");
        let _dropped = lab.pu_wire().try_send(&out.packet());
        lab.peer_wire().expect_nothing(|frame| out.is(frame));
    }
}

#[test]
fn removed_pin_opens_nothing_and_is_pinned_again() {
    let lab = Lab::new();
    let before = lab.state();
    let mut plane = attached(&lab, AttachMethod::Auto, false);
    std::fs::remove_file(link_pin(&lab, "from")).unwrap();
    is_closed(&lab, &mut plane);

    assert_eq!(plane.self_check(), [repaired(Some(Hook::FromPu), Damage::Unpinned)]);

    assert!(std::fs::exists(link_pin(&lab, "from")).unwrap());
    assert_eq!(plane.self_check(), []);
    is_closed(&lab, &mut plane);
    // Detaching leaves nothing either, with the pin gone again.
    std::fs::remove_file(link_pin(&lab, "to")).unwrap();
    plane.detach(PU).unwrap();
    drop(plane);
    assert_eq!(lab.state(), before);
}

#[test]
fn program_of_someone_else_on_our_link_is_replaced() {
    let lab = Lab::new();
    let mut plane = attached(&lab, AttachMethod::Auto, false);
    let mut other = load_v1(&std::path::Path::new("/sys/fs/bpf/trireme").join(&lab.instance).join("else"), 0);
    let program: &mut SchedClassifier = other.program_mut("inject").unwrap().try_into().unwrap();
    program.load().unwrap();
    let link = FdLink::from(PinnedLink::from_pin(link_pin(&lab, "to")).unwrap());
    program.attach_to_link(link.try_into().unwrap()).unwrap();

    assert_eq!(plane.self_check(), [repaired(Some(Hook::ToPu), Damage::Replaced)]);

    assert_eq!(plane.self_check(), []);
    is_closed(&lab, &mut plane);
}

#[test]
fn deleted_filters_and_qdiscs_are_made_again() {
    for inside in [false, true] {
        let lab = Lab::new();
        let before = lab.state();
        let (namespace, device) = if inside { (&lab.pu, "eth0") } else { (&lab.node, "host0") };
        let mut plane = attached(&lab, AttachMethod::Clsact, inside);
        let ingress = if inside { Hook::ToPu } else { Hook::FromPu };
        run(namespace, "tc", &format!("filter del dev {device} ingress"));

        assert_eq!(plane.self_check(), [repaired(Some(ingress), Damage::Detached)]);
        assert_eq!(plane.self_check(), []);
        is_closed(&lab, &mut plane);

        run(namespace, "tc", &format!("qdisc del dev {device} clsact"));
        is_open(&lab);
        let expected = [Hook::ToPu, Hook::FromPu].map(|hook| repaired(Some(hook), Damage::Detached));
        assert_eq!(plane.self_check(), expected);
        assert_eq!(plane.self_check(), []);
        is_closed(&lab, &mut plane);
        plane.detach(PU).unwrap();
        drop(plane);
        assert_eq!(lab.state(), before);
    }
}

#[test]
fn state_that_someone_removed_is_written_again() {
    let lab = Lab::new();
    let mut plane = attached(&lab, AttachMethod::Auto, false);
    let key: Vec<String> = plane.edges()[0].ifindex.to_ne_bytes().iter().map(u8::to_string).collect();
    let pus = pins(&lab, ABI_VERSION).join("pus");
    run(&lab.node, "bpftool", &format!("map delete pinned {} key {}", pus.display(), key.join(" ")));

    assert_eq!(plane.self_check(), [repaired(None, Damage::Forgotten)]);

    assert_eq!(plane.self_check(), []);
    is_closed(&lab, &mut plane);
}

#[test]
fn interface_that_is_gone_is_not_damaged() {
    for method in [AttachMethod::Auto, AttachMethod::Clsact] {
        let lab = Lab::new();
        let mut plane = attached(&lab, method, false);

        lab.ip(&lab.node, "link del host0");

        assert_eq!(plane.self_check(), []);
        assert_eq!(plane.vanished(), [PU]);
    }
}
