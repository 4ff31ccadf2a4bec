//! The laboratory itself, without any agent: what the other tests take for granted.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use trireme_testkit::lab::{
    Family, Fate, Lab, Reach, Relay, Server, Side, Translation, connect_times, probe,
};

const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn workloads_reach_each_other_on_one_node_and_across_nodes_in_both_families() {
    let mut lab = Lab::new().unwrap();
    let client = lab.add_pu(Side::A, "client").unwrap();
    let near = lab.add_pu(Side::A, "near").unwrap();
    let far = lab.add_pu(Side::B, "far").unwrap();
    for pu in [&near, &far] {
        let _server = Server::echo(&pu.namespace, 8080).unwrap();
        for family in Family::BOTH {
            let reach = probe(&client.namespace, pu.at(family, 8080), LIMIT).unwrap();
            assert_eq!((pu.name.as_str(), family, reach), (pu.name.as_str(), family, Reach::Answered));
            let closed = probe(&client.namespace, pu.at(family, 8081), LIMIT).unwrap();
            assert_eq!(closed, Reach::Refused);
        }
    }
    let times = connect_times(&client.namespace, far.at(Family::V4, 22), 1);
    assert!(times.is_err(), "nothing listens there: {times:?}");
}

#[test]
fn the_router_translates_both_ways_and_loses_what_it_is_told_to() {
    let mut lab = Lab::new().unwrap();
    let client = lab.add_pu(Side::A, "client").unwrap();
    let server = lab.add_pu(Side::B, "server").unwrap();
    let _echo = Server::echo(&server.namespace, 8080).unwrap();
    let services = ["10.96.0.10:80", "[fd00:96::10]:80"].map(|text| text.parse().unwrap());
    let translations: Vec<_> = services
        .iter()
        .zip(Family::BOTH)
        .map(|(service, family)| Translation { service: *service, backend: server.at(family, 8080) })
        .collect();
    lab.translate_destinations(&translations).unwrap();
    lab.translate_sources(Side::B).unwrap();
    for service in services {
        assert_eq!(probe(&client.namespace, service, LIMIT).unwrap(), Reach::Answered);
    }
    lab.stop_translating().unwrap();
    lab.lose(100).unwrap();
    assert_eq!(
        probe(&client.namespace, server.at(Family::V4, 8080), Duration::from_millis(300)).unwrap(),
        Reach::Silent
    );
}

#[test]
fn a_relay_forwards_changes_and_loses_packets_in_the_kernels_place() {
    let mut lab = Lab::new().unwrap();
    let client = lab.add_pu(Side::A, "client").unwrap();
    let server = lab.add_pu(Side::B, "server").unwrap();
    let _echo = Server::echo(&server.namespace, 8080).unwrap();
    for family in Family::BOTH {
        let relay = Relay::start(&lab, |_| Fate::Pass).unwrap();
        assert_eq!(probe(&client.namespace, server.at(family, 8080), LIMIT).unwrap(), Reach::Answered);
        drop(relay);
        let relay = Relay::start(&lab, |_| Fate::Drop).unwrap();
        let lost = probe(&client.namespace, server.at(family, 8080), Duration::from_millis(300)).unwrap();
        assert_eq!(lost, Reach::Silent);
        drop(relay);
        assert_eq!(probe(&client.namespace, server.at(family, 8080), LIMIT).unwrap(), Reach::Answered);
    }
}

#[test]
fn nothing_of_a_laboratory_is_left_after_a_panic() {
    let seen = std::sync::Mutex::new(String::new());
    let result = std::panic::catch_unwind(|| {
        let mut lab = Lab::new().unwrap();
        lab.add_pu(Side::A, "client").unwrap();
        lab.id().clone_into(&mut seen.lock().unwrap());
        assert_eq!(lab.id(), "no such id", "a failing test");
    });
    assert!(result.is_err());
    let id = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    assert_eq!(id.len(), 6);
    let left: Vec<_> = std::fs::read_dir("/run/netns")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(&id))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
