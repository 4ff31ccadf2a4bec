//! Opening, adopting, cleaning up, and every way to be refused.

use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use trireme_bpf::{AttachMethod, Counter, OpenError, Plane, PlaneConfig, SweepLimits};

use crate::lab::{Lab, PU, entry, from_pu, ghost_key, host_edge, state, take, to_pu};
use crate::wire::{ACK, SYN};

#[test]
fn second_open_adopts_what_the_first_left_and_nothing_was_open_in_between() {
    for method in [AttachMethod::Auto, AttachMethod::Clsact] {
        let lab = Lab::new();
        let before = lab.state();
        let config = PlaneConfig { attach: method, ..lab.config() };
        let mut first = lab.attached_with(config.clone());
        first.update(PU, state(4)).unwrap();
        first.connection_insert(&ghost_key(4000, 80), &entry(4)).unwrap();
        let edges = first.edges();
        drop(first);

        let (pu, peer) = (lab.pu_wire(), lab.peer_wire());
        let (established, unknown) = (from_pu(ACK, 1, b"x"), from_pu(SYN, 7, b""));
        pu.send(&established.packet());
        pu.send(&unknown.packet());
        peer.expect(|frame| established.is(frame));
        peer.expect_nothing(|frame| unknown.is(frame));

        let mut second = lab.open_with(PlaneConfig {
            sizes: trireme_bpf::Sizes { ring_bytes: 1 << 20, ..config.sizes },
            ..config
        });
        assert_eq!(second.edges(), edges);
        assert_eq!(second.edges()[0].state, state(4));
        assert_eq!(second.connection(&ghost_key(4000, 80)).unwrap().unwrap().1.packets_from, 1);
        // What waited is stale by now.
        assert_eq!(second.drain(10, |_| {}), 0);
        second.attach(&host_edge(), PU, state(4)).unwrap();
        pu.send(&unknown.packet());
        assert_eq!(take(&mut second, 1).len(), 1);
        peer.send(&to_pu(ACK, 1, b"y").packet());
        pu.expect(|frame| to_pu(ACK, 1, b"y").is(frame));
        assert_eq!(second.sweep(&SweepLimits::default()).unwrap().established, 1);

        second.detach(PU).unwrap();
        drop(second);
        assert_eq!(lab.state(), before, "{method:?}");
    }
}

#[test]
fn cleanup_removes_every_pin_link_filter_and_interface() {
    for method in [AttachMethod::Auto, AttachMethod::Clsact] {
        for inside in [false, true] {
            let lab = Lab::new();
            let before = lab.state();
            let mut plane = lab.open_with(PlaneConfig { attach: method, ..lab.config() });
            let edge = if inside { lab.inside_edge() } else { host_edge() };
            plane.attach(&edge, PU, state(1)).unwrap();
            drop(plane);
            let directory = Path::new("/sys/fs/bpf/trireme").join(&lab.instance);
            assert!(directory.exists());

            let report =
                lab.node.run(|| Plane::cleanup("/sys/fs/bpf".as_ref(), &lab.instance)).unwrap().unwrap();

            assert_eq!(report.detached, [PU]);
            assert!(report.pins >= 9, "{report:?}");
            assert!(!directory.exists());
            assert_eq!(lab.state(), before, "{method:?} {inside}");
            let again =
                lab.node.run(|| Plane::cleanup("/sys/fs/bpf".as_ref(), &lab.instance)).unwrap().unwrap();
            assert_eq!(again, trireme_bpf::CleanupReport::default());
        }
    }
}

#[test]
fn edge_that_is_gone_is_not_adopted_and_leaves_nothing() {
    let lab = Lab::new();
    drop(lab.attached());
    lab.ip(&lab.node, "link del host0");

    let plane = lab.open();

    assert_eq!(plane.edges(), []);
    let links = Path::new("/sys/fs/bpf/trireme")
        .join(&lab.instance)
        .join(format!("v{}/links", trireme_bpf_abi::ABI_VERSION));
    assert_eq!(std::fs::read_dir(links).unwrap().count(), 0);
}

#[test]
fn missing_capability_is_named_before_anything_is_changed() {
    let lab = Lab::new();
    for (capability, name) in [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN")] {
        let error = lab
            .node
            .run(|| {
                let mut sets = capabilities(None).unwrap();
                sets.effective -= capability;
                set_capabilities(None, sets).unwrap();
                Plane::open(lab.config()).unwrap_err().to_string()
            })
            .unwrap();

        assert!(error.starts_with(&format!("{name} is missing: run as root")), "{error}");
        assert!(!Path::new("/sys/fs/bpf/trireme").join(&lab.instance).exists());
    }
}

#[test]
fn wrong_configuration_is_refused_before_anything_is_changed() {
    let lab = Lab::new();
    let open = |config: PlaneConfig| lab.node.run(|| Plane::open(config)).unwrap().unwrap_err();

    let name = open(PlaneConfig::new("../escape"));
    assert!(matches!(&name, OpenError::Instance(name) if name == "../escape"), "{name}");
    let mut config = lab.config();
    config.sizes.ring_bytes = 100_000;
    assert!(open(config).to_string().starts_with("ring_bytes must be a power of two"));
    let mut config = lab.config();
    config.sizes.connections = 0;
    assert!(matches!(open(config), OpenError::Size { field: "connections", .. }));
    let nowhere = PlaneConfig { bpffs: "/proc/nowhere".into(), ..lab.config() };
    assert!(matches!(open(nowhere), OpenError::BpfFs { .. }));
}

#[test]
fn file_system_is_mounted_where_it_is_absent() {
    let lab = Lab::new();
    let place = std::env::temp_dir().join(format!("trireme-bpffs-{}", lab.instance));
    let config = PlaneConfig { bpffs: place.clone(), ..lab.config() };

    let mut plane = lab.open_with(config);
    plane.attach(&host_edge(), PU, state(1)).unwrap();
    lab.pu_wire().send(&from_pu(SYN, 1, b"").packet());
    assert_eq!(take(&mut plane, 1).len(), 1);
    assert_eq!(plane.counters().unwrap()[0].1.of(Counter::PuntedFrom), 1);
    drop(plane);

    let report = lab.node.run(|| Plane::cleanup(&place, &lab.instance)).unwrap().unwrap();
    assert_eq!(report.detached, [PU]);
    assert!(std::process::Command::new("umount").arg(&place).status().unwrap().success());
    std::fs::remove_dir(&place).unwrap();
}
