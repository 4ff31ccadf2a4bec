//! Ports, places and identities that are used again.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use trireme_testkit::lab::{AgentConfig, Family, Reach, Server, eventually, uninterrupted};
use trireme_tests_netns::{
    Judge, PATIENT, PORT, PROMPT, World, WorldSpec, abort, by_each, connect_from, is_alive,
};

#[test]
fn the_same_ports_serve_one_connection_after_another() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            let to = world.server.at(family, PORT);
            for round in 0..50 {
                let stream = connect_once_free(world, 45_000, to);
                assert!(is_alive(&stream), "{family}, round {round}\n{}", world.look());
                abort(stream);
            }
        }
    });
}

#[test]
fn a_port_whose_last_connection_is_in_time_wait_at_the_server_can_be_used_again() {
    by_each(|world| {
        // The end that closes first is the one that waits.
        let _server = Server::start(&world.server.namespace, PORT, |mut stream| {
            let mut byte = [0];
            if uninterrupted(|| stream.read_exact(&mut byte)).is_ok() {
                drop(stream.write_all(&byte));
            }
        })
        .unwrap();
        for family in Family::BOTH {
            let to = world.server.at(family, PORT);
            for round in 0..5 {
                let mut stream = connect_once_free(world, 45_100, to);
                assert!(is_alive(&stream), "{family}, round {round}\n{}", world.look());
                assert_eq!(uninterrupted(|| stream.read(&mut [0])).unwrap(), 0);
                drop(stream);
            }
            let waits = world.server.namespace.run("ss", &["-tanH", "state", "time-wait"]).unwrap();
            assert!(waits.contains("45100"), "the server's end does not wait: {waits}");
        }
    });
}

/// Connects as soon as the server has acknowledged the end of the port's last connection.
fn connect_once_free(world: &World, port: u16, to: SocketAddr) -> TcpStream {
    let mut stream = None;
    let free = || match connect_from(&world.client, port, to, PATIENT) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Ok(false),
        result => {
            stream = Some(result.unwrap());
            Ok(true)
        }
    };
    eventually("a free port", PATIENT, free, || world.look()).unwrap();
    stream.unwrap()
}

#[test]
fn a_client_that_closes_first_can_connect_again_from_another_port_at_once() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            for port in 45_200..45_250 {
                let stream =
                    connect_from(&world.client, port, world.server.at(family, PORT), PROMPT).unwrap();
                assert!(is_alive(&stream), "{family}\n{}", world.look());
            }
        }
    });
}

/// Acquainted, with both agents' settings.
fn acquainted() -> (World, AgentConfig, AgentConfig) {
    let spec = WorldSpec::new().judged_by(Judge::Kernel);
    let configs = (spec.a.clone(), spec.b.clone());
    let world = spec.start();
    world.introduce();
    (world, configs.0, configs.1)
}

#[test]
fn a_workload_that_gets_the_place_of_another_inherits_none_of_its_rights() {
    let (mut world, config_a, _) = acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    // Its place at node a is the first that is free.
    world.a.stop().unwrap();
    let mut only_stranger = config_a.clone();
    only_stranger.pus.retain(|(pu, _)| pu.name == "stranger");
    world.a.restart(&world.lab, &only_stranger).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{}", world.look());
    }
    world.a.stop().unwrap();
    // And the other way round: who was the stranger's heir is known as itself again.
    let mut only_client = config_a;
    only_client.pus.retain(|(pu, _)| pu.name == "client");
    world.a.restart(&world.lab, &only_client).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.client_sees_within(family, PATIENT), Reach::Answered, "{}", world.look());
    }
}

#[test]
fn a_workload_that_changes_its_identity_loses_and_regains_its_access_under_traffic() {
    let (mut world, config_a, _) = acquainted();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let mut changed = config_a.clone();
    for (pu, tags) in &mut changed.pus {
        if pu.name == "client" {
            *tags = vec!["role=nobody".to_owned()];
        }
    }
    for round in 0..3 {
        world.a.stop().unwrap();
        world.a.restart(&world.lab, &changed).unwrap();
        for family in Family::BOTH {
            assert_eq!(world.client_sees(family, PORT), Reach::Silent, "round {round}\n{}", world.look());
        }
        world.a.stop().unwrap();
        world.a.restart(&world.lab, &config_a).unwrap();
        for family in Family::BOTH {
            let reach = world.client_sees_within(family, PATIENT);
            assert_eq!(reach, Reach::Answered, "round {round}\n{}", world.look());
        }
    }
}
