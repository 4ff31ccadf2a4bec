//! Agents come and go; enforcement stays.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use trireme_testkit::lab::{
    Agent, AgentConfig, Family, Reach, Server, connect, eventually, probe, uninterrupted,
};
use trireme_tests_netns::{AWAY, Judge, PATIENT, POLICY, PORT, PROMPT, World, WorldSpec};

/// Says a byte and hears it back.
fn is_alive(mut stream: &TcpStream) -> bool {
    let mut byte = [9];
    stream.set_read_timeout(Some(PATIENT)).unwrap();
    stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok()
}

type End = fn(&mut Agent);

#[test]
fn a_killed_agent_leaves_live_connections_open_and_known_peers_connecting_until_it_is_back() {
    ends_and_comes_back(|agent| agent.kill().unwrap());
}

#[test]
fn a_stopped_agent_leaves_live_connections_open_and_known_peers_connecting_until_it_is_back() {
    ends_and_comes_back(|agent| agent.stop().unwrap());
}

fn ends_and_comes_back(end: End) {
    for judge in [Judge::Agent, Judge::Kernel] {
        let spec = WorldSpec::new().judged_by(judge);
        let config = spec.b.clone();
        let mut world = spec.start();
        if judge == Judge::Kernel {
            world.introduce();
        }
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let streams = Family::BOTH.map(|family| {
            let stream = connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
            assert!(is_alive(&stream), "{}", world.logs());
            stream
        });
        end(&mut world.b);
        assert!(streams.iter().all(is_alive), "a live connection ended with the agent");
        // Right away, and when the programs have noticed that nobody answers.
        for _ in 0..2 {
            for family in Family::BOTH {
                let known = if judge == Judge::Kernel { Reach::Answered } else { Reach::Silent };
                assert_eq!(world.client_sees(family, PORT), known, "{judge:?}, without an agent");
                assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "open without an agent");
            }
            thread::sleep(AWAY);
        }
        world.b.restart(&world.lab, &config).unwrap();
        assert!(streams.iter().all(is_alive), "a live connection ended with the restart\n{}", world.logs());
        for family in Family::BOTH {
            assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{}", world.logs());
            assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
        }
    }
}

#[test]
fn a_connect_made_while_the_agent_is_away_completes_when_it_is_back() {
    let spec = WorldSpec::new().judged_by(Judge::Agent);
    let config = spec.b.clone();
    let mut world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    world.b.kill().unwrap();
    let (client, to) = (world.client.clone(), world.server.at(Family::V4, PORT));
    let waiting = thread::spawn(move || probe(&client.namespace, to, Duration::from_secs(15)));
    thread::sleep(Duration::from_millis(200));
    world.b.restart(&world.lab, &config).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), Reach::Answered, "{}", world.logs());
}

#[test]
fn clean_up_opens_the_workload_and_leaves_nothing_in_the_kernel() {
    let mut world = World::start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
    for agent in [&mut world.a, &mut world.b] {
        agent.stop().unwrap();
        agent.clean_up().unwrap();
    }
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Answered, "nothing enforces any more");
    let pins: Vec<_> = fs::read_dir(world.lab.bpffs())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".debug"))
        .collect();
    assert_eq!(pins, Vec::<String>::new());
    for pu in [&world.client, &world.server] {
        let node = &world.lab.node(pu.side).namespace;
        let qdiscs = node.run("tc", &["qdisc", "show", "dev", &pu.interface]).unwrap();
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    }
}

#[test]
fn a_new_policy_takes_force_on_live_connections_and_a_bad_one_does_not() {
    let world = World::start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let stream = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    assert!(is_alive(&stream), "{}", world.logs());
    fs::write(world.b.policy_file(), "apiVersion: trireme/v1\npolicies: nonsense\n").unwrap();
    let complains = || Ok(world.b.status()?.pointer("/policy/error").is_some_and(|error| error.is_string()));
    eventually("a complaint about the policy file", PATIENT, complains, || world.logs()).unwrap();
    assert!(is_alive(&stream), "a bad policy file changed something");
    fs::write(world.b.policy_file(), POLICY.replace("role: client}]", "role: nobody}]")).unwrap();
    let refused = || Ok(world.client_sees(Family::V4, PORT) == Reach::Silent);
    eventually("the new policy", PATIENT, refused, || world.logs()).unwrap();
    let mut stream = stream;
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream.write_all(b"x").unwrap();
    assert!(
        uninterrupted(|| stream.read(&mut [0])).is_err(),
        "a connection that is no longer allowed went on"
    );
}

#[test]
fn other_hooks_at_the_same_interface_still_see_packets_and_survive_us() {
    let spec = WorldSpec::new();
    let node = spec.lab.node(spec.server.side).namespace.clone();
    let interface = spec.server.interface.clone();
    node.run("tc", &["qdisc", "add", "dev", &interface, "clsact"]).unwrap();
    node.nft(&format!(
        "table netdev other {{ chain in {{ type filter hook ingress device {interface} priority 0; counter; }}; }}\n"
    ))
    .unwrap();
    let packets = || -> u64 {
        let rules = node.run("nft", &["list", "table", "netdev", "other"]).unwrap();
        rules.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse().unwrap()
    };
    let mut world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let before = packets();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
    // The SYN-ACK, the answer and the end.
    assert!(packets() >= before + 3, "{before} {}", packets());
    world.b.stop().unwrap();
    world.b.clean_up().unwrap();
    let qdiscs = node.run("tc", &["qdisc", "show", "dev", &interface]).unwrap();
    assert!(qdiscs.contains("clsact"), "another's hook is gone: {qdiscs}");
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Answered);
}

#[test]
fn a_second_agent_on_one_instance_is_refused_and_the_first_goes_on() {
    let spec = WorldSpec::new();
    let config: AgentConfig = spec.b.clone();
    let world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let first = world.b.id();
    let error = world.b.start_second(&config).unwrap_err().to_string();
    assert!(error.contains("agent"), "{error}");
    assert_eq!(world.b.id(), first);
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
}
