//! Netfilter queues in place of programs: who is admitted, by whatever rules, and what is not TCP.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use trireme_testkit::lab::{Family, LabError, Namespace, Reach, Server, Side, eventually, probe};
use trireme_tests_netns::{Judge, PATIENT, PORT, PROMPT, World, WorldSpec, echo_megabytes};

/// Where datagrams are answered.
const DATAGRAMS: u16 = 9000;

/// Where clients are allowed to call.
const TO_SERVERS: &str = "    to: [{role: server}]\n";

/// Counters of rules are looked at every second.
const COUNTED: Duration = Duration::from_secs(5);

fn world_with(datapath: &str, other_protocols: &'static str) -> World {
    let mut spec = WorldSpec::new().judged_by(Judge::Queue);
    for config in [&mut spec.a, &mut spec.b] {
        config.datapath_more.push_str(datapath);
        config.other_protocols = other_protocols;
        // A rule without services speaks about every protocol.
        config.policy = config.policy.replace(TO_SERVERS, &format!("{TO_SERVERS}    ports: [tcp]\n"));
    }
    spec.start()
}

/// Somebody without an agent.
fn outsider_sees(world: &World, family: Family) -> Reach {
    probe(world.lab.router(), world.server.at(family, PORT), PROMPT).unwrap()
}

#[test]
fn rules_written_by_iptables_nft_admit_the_known_and_refuse_the_others() {
    admits_and_refuses_by("iptables-nft");
}

#[test]
fn rules_written_by_iptables_legacy_admit_the_known_and_refuse_the_others() {
    admits_and_refuses_by("iptables-legacy");
}

fn admits_and_refuses_by(rules: &str) {
    let world = world_with(&format!("rules = \"{rules}\"\n"), "deny");
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    for agent in [&world.a, &world.b] {
        let status = agent.status().unwrap();
        let detail = status.pointer("/datapath/detail").unwrap_or_else(|| panic!("{status}")).to_string();
        assert!(detail.contains(&format!("rules by {rules},")), "{detail}");
    }
    for family in Family::BOTH {
        for round in 0..5 {
            assert_eq!(
                world.client_sees(family, PORT),
                Reach::Answered,
                "{family} {round}\n{}",
                world.look()
            );
        }
        let before = server.accepted();
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
        assert_eq!(outsider_sees(&world, family), Reach::Silent, "{family}\n{}", world.look());
        assert_eq!(server.accepted(), before, "somebody unknown got in");
        let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 2);
        assert_eq!(echoed.sent, echoed.received, "{family}");
    }
}

/// Answers every datagram with itself until none has come for a while.
fn echo_datagrams(namespace: &Namespace, at: SocketAddr) {
    let socket = namespace.enter(|| UdpSocket::bind(at).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENT)).unwrap();
    drop(std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok((len, from)) = socket.recv_from(&mut byte) {
            drop(socket.send_to(byte.get(..len).unwrap_or_default(), from));
        }
    }));
}

/// Sends a few datagrams; true if one came back.
fn is_echoed(namespace: &Namespace, to: SocketAddr) -> bool {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = namespace.enter(|| UdpSocket::bind(any).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    (0..3).any(|_| {
        // A rule of the sender's own namespace that drops it is told as an error.
        socket.send_to(&[7], to).is_ok() && socket.recv_from(&mut [0]).is_ok()
    })
}

#[test]
fn datagrams_that_no_rule_admits_are_refused_and_counted() {
    let world = world_with("", "deny");
    for family in Family::BOTH {
        let to = world.server.at(family, DATAGRAMS);
        echo_datagrams(&world.server.namespace, to);
        for sender in [&world.stranger.namespace, world.lab.router()] {
            let refused = || -> Result<u64, LabError> {
                let status = world.b.status()?;
                let counters = status.pointer("/datapath/counters").and_then(Value::as_array);
                let of_unit = counters.into_iter().flatten().filter(|counter| {
                    let accepted = ["accepted", "downgraded"].map(Value::from);
                    let reason = counter.get("reason");
                    let kernel = reason.and_then(Value::as_str).is_some_and(|name| name.contains('/'));
                    counter.get("pu") == Some(&"server".into())
                        && !kernel
                        && !accepted.iter().any(|name| reason == Some(name))
                });
                Ok(of_unit.filter_map(|counter| counter.get("count")?.as_u64()).sum())
            };
            let before = refused().unwrap();
            assert!(!is_echoed(sender, to), "{family}\n{}", world.look());
            let counted = || Ok(refused()? > before);
            eventually("a refusal", COUNTED, counted, || world.look()).unwrap();
        }
    }
}

#[test]
fn other_protocols_pass_when_they_are_allowed() {
    let world = world_with("", "allow");
    for family in Family::BOTH {
        let to = world.server.at(family, DATAGRAMS);
        echo_datagrams(&world.server.namespace, to);
        assert!(is_echoed(&world.client.namespace, to), "{family}\n{}", world.look());
    }
}

#[test]
fn the_loopback_of_a_unit_is_left_alone() {
    let world = world_with("", "deny");
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    for (family, loopback) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        // Its own address is reached by the loopback as well.
        for to in [SocketAddr::new(loopback.parse().unwrap(), PORT), world.server.at(family, PORT)] {
            let reach = probe(&world.server.namespace, to, PROMPT).unwrap();
            assert_eq!(reach, Reach::Answered, "{to}\n{}", world.look());
        }
        let to = SocketAddr::new(loopback.parse().unwrap(), DATAGRAMS);
        echo_datagrams(&world.server.namespace, to);
        assert!(is_echoed(&world.server.namespace, to), "{to}\n{}", world.look());
    }
}

#[test]
fn neighbours_are_found_although_other_protocols_are_denied() {
    let world = world_with("", "deny");
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    for _ in 0..3 {
        let nodes = Side::BOTH.map(|side| &world.lab.node(side).namespace);
        for namespace in nodes.into_iter().chain([&world.client.namespace, &world.server.namespace]) {
            namespace.ip("neigh flush all\n").unwrap();
        }
        let reach = world.client_sees_within(Family::V6, PATIENT);
        assert_eq!(reach, Reach::Answered, "{}", world.look());
        let known = world.server.namespace.run("ip", &["-6", "neigh"]).unwrap();
        assert!(known.contains("fd00:10:2::1") && !known.contains("FAILED"), "{known}");
    }
}
