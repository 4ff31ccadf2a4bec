//! What only another kernel has: `make test-guest` runs this on Debian 12's own, in an emulated machine.
//!
//! Queues of nftables itself, and networks that delay, reorder, lose and duplicate.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use trireme_testkit::lab::{Family, LabError, Pu, Reach, Server, Side, connect, eventually, uninterrupted};
use trireme_tests_netns::{HostsSpec, Judge, PORT, WorldSpec, by_each, is_alive};

/// An emulated processor takes its time.
const SLOW: Duration = Duration::from_secs(20);
/// A fifth of all packets lost, the stack doubles its pause with every loss.
const VERY_SLOW: Duration = Duration::from_secs(200);

fn behind_native_queues() -> WorldSpec {
    let mut spec = WorldSpec::new().judged_by(Judge::Queue);
    for config in [&mut spec.a, &mut spec.b] {
        config.datapath_more.push_str("rules = \"nft\"\n");
    }
    spec
}

/// One exchange of some segments each way.
fn echoes(client: &Pu, to: SocketAddr) {
    let sent: Vec<u8> = (0..16 * 1024_u32).flat_map(u32::to_le_bytes).take(16 * 1024).collect();
    // Where a fifth of all packets is lost, looking for a neighbour may fail three times.
    let unreachable = |error: &LabError| matches!(error, LabError::Io { source, .. } if source.kind() == ErrorKind::HostUnreachable);
    let mut tries = (0..5).map(|_| connect(&client.namespace, to, VERY_SLOW));
    let mut stream = tries.find(|tried| !tried.as_ref().is_err_and(unreachable)).unwrap().unwrap();
    stream.set_read_timeout(Some(VERY_SLOW)).unwrap();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let len = uninterrupted(|| stream.read(&mut chunk)).unwrap();
        let Some(part) = chunk.get(..len).filter(|part| !part.is_empty()) else { break };
        received.extend_from_slice(part);
    }
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
}

#[test]
fn queues_of_nftables_itself_admit_the_known_and_refuse_the_others() {
    let world = behind_native_queues().start();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    for agent in [&world.a, &world.b] {
        let status = agent.status().unwrap();
        let detail = status.pointer("/datapath/detail").unwrap_or_else(|| panic!("{status}")).to_string();
        assert!(detail.contains("rules by nft,"), "{detail}");
    }
    for family in Family::BOTH {
        for round in 0..5 {
            let reach = world.client_sees_within(family, SLOW);
            assert_eq!(reach, Reach::Answered, "{family} {round}\n{}", world.look());
        }
        let before = server.accepted();
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
        assert_eq!(server.accepted(), before, "somebody unknown got in");
        echoes(&world.client, world.server.at(family, PORT));
    }
    let rules = world.server.namespace.run("nft", &["list", "table", "inet", "trireme"]).unwrap();
    assert!(rules.contains(" queue to 0"), "{rules}");
}

#[test]
fn without_an_agent_native_queues_let_nobody_in_and_live_connections_go_on() {
    let spec = behind_native_queues();
    let config = spec.b.clone();
    let mut world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let to = world.server.at(Family::V4, PORT);
    assert_eq!(world.client_sees_within(Family::V4, SLOW), Reach::Answered, "{}", world.look());
    let live = connect(&world.client.namespace, to, SLOW).unwrap();
    assert!(is_alive(&live), "{}", world.look());
    world.b.kill().unwrap();
    for _ in 0..3 {
        assert!(is_alive(&live), "{}", world.logs());
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent);
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
    }
    world.b.restart(&world.lab, &config).unwrap();
    let answers = || Ok(world.client_sees_within(Family::V4, SLOW) == Reach::Answered);
    eventually("a connect", VERY_SLOW, answers, || world.look()).unwrap();
    assert!(is_alive(&live), "{}", world.look());
}

#[test]
fn connections_complete_and_arrive_intact_through_delay_reordering_loss_and_duplication() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for interface in ["to-a", "to-b"] {
            let bad = "root netem delay 300ms 50ms reorder 25% 50% loss 20% duplicate 10%";
            let add = ["qdisc", "add", "dev", interface];
            world.lab.router().run("tc", &[&add[..], &bad.split(' ').collect::<Vec<_>>()].concat()).unwrap();
        }
        for family in Family::BOTH {
            for _ in 0..3 {
                echoes(&world.client, world.server.at(family, PORT));
            }
            assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}\n{}", world.logs());
        }
    });
}

#[test]
fn queues_of_nftables_itself_judge_units_of_the_host() {
    let mut spec = HostsSpec::new();
    for config in [&mut spec.a, &mut spec.b] {
        config.datapath_more.push_str("rules = \"nft\"\n");
    }
    let hosts = spec.start();
    let server = hosts.server.echo(PORT);
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, PORT);
        for round in 0..3 {
            assert_eq!(hosts.client.sees(to, SLOW), Reach::Answered, "{family} {round}\n{}", hosts.look());
        }
        let before = server.accepted();
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(server.accepted(), before, "somebody unknown got in");
        let stream = hosts.client.connect(to, SLOW);
        assert!((0..20).all(|_| is_alive(&stream)), "{family}\n{}", hosts.look());
    }
}
