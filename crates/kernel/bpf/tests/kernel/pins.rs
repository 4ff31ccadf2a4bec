//! Pins that are not ours are refused by name, and left as they are.

use aya::maps::HashMap;
use aya::programs::SchedClassifier;
use trireme_bpf::{AttachMethod, OpenError};
use trireme_bpf_abi::ABI_VERSION;

use crate::lab::{Lab, PU, from_pu, host_edge};
use crate::migrate::{leave_v1, load_v1, pins};
use crate::wire::SYN;

fn refused(lab: &Lab) -> String {
    let error = lab.node.run(|| trireme_bpf::Plane::open(lab.config()).unwrap_err()).unwrap();
    let mut text = error.to_string();
    if let OpenError::OtherAbi { source, .. } = &error {
        text = format!("{text}: {source}");
    }
    text
}

#[test]
fn map_of_another_shape_is_refused() {
    let lab = Lab::new();
    let place = pins(&lab, ABI_VERSION);
    std::fs::create_dir_all(&place).unwrap();
    let map: HashMap<_, u32, u32> = HashMap::create(4, 0).unwrap();
    map.pin(place.join("pus")).unwrap();

    let text = refused(&lab);

    let expected = format!(
        "{} is a map of type Hash with keys of 4 and values of 4 bytes, not a map of type Hash with keys of 4 and values of 128 bytes: someone else pinned it",
        place.join("pus").display()
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(place.join("pus").exists());
    assert!(!place.join("edges").exists());
}

#[test]
fn program_in_the_place_of_a_map_is_refused() {
    let lab = Lab::new();
    let place = pins(&lab, ABI_VERSION);
    std::fs::create_dir_all(&place).unwrap();
    let elsewhere = place.join("else");
    let mut object = load_v1(&elsewhere, 0);
    let program: &mut SchedClassifier = object.program_mut("inject").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.pin(place.join("connections")).unwrap();

    let text = refused(&lab);

    assert!(text.contains("connections is a program, not a map of type Hash with keys of 40"), "{text}");
}

#[test]
fn predecessor_whose_maps_or_links_are_not_its_own_is_refused_and_its_pu_stays_closed() {
    let lab = Lab::new();
    leave_v1(&lab, 1, AttachMethod::Auto, &host_edge());
    let edges = pins(&lab, 1).join("edges");
    let kept = pins(&lab, 1).join("kept");
    std::fs::rename(&edges, &kept).unwrap();
    let map: HashMap<_, u32, u32> = HashMap::create(4, 0).unwrap();
    map.pin(&edges).unwrap();
    assert!(refused(&lab).contains("v1/edges is a map of type Hash with keys of 4 and values of 4 bytes"));
    std::fs::remove_file(&edges).unwrap();
    std::fs::rename(&kept, &edges).unwrap();
    let map: HashMap<_, u32, u32> = HashMap::create(4, 0).unwrap();
    map.pin(pins(&lab, 1).join("links/9-from")).unwrap();

    let text = refused(&lab);

    assert!(text.contains("cannot take over") && text.contains("9-from is a map of type Hash"), "{text}");
    lab.pu_wire().send(&from_pu(SYN, 1, b"").packet());
    lab.peer_wire().expect_nothing(|frame| from_pu(SYN, 1, b"").is(frame));
    std::fs::remove_file(pins(&lab, 1).join("links/9-from")).unwrap();
    assert_eq!(lab.open().edges()[0].slot, PU);
}
