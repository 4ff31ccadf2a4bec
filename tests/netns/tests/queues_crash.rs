//! Agents of netfilter queues that die: what lives goes on, nobody comes in, and it is all as before when they are back.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Family, Reach, Server, connect, eventually, probe};
use trireme_tests_netns::{
    AWAY, Judge, PATIENT, POLICY, PORT, PROMPT, World, WorldSpec, is_alive, is_alive_within,
};

/// The time that a change may take to cut, ten times what it should, with room for a busy machine.
const SOON: Duration = Duration::from_millis(1000);

fn live(world: &World) -> Vec<TcpStream> {
    let open = |family| connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
    let streams: Vec<_> = Family::BOTH.into_iter().map(open).collect();
    assert!(streams.iter().all(is_alive), "{}", world.look());
    streams
}

/// Neither a unit that no server admits nor somebody without an agent gets anything through.
fn nobody_else_comes_in(world: &World, server: &Server) {
    let before = server.accepted();
    for family in Family::BOTH {
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}: the stranger");
        let outsider = probe(world.lab.router(), world.server.at(family, PORT), PROMPT).unwrap();
        assert_eq!(outsider, Reach::Silent, "{family}: somebody without an agent");
    }
    assert_eq!(server.accepted(), before);
}

#[test]
fn killed_agents_leave_live_connections_open_and_judge_them_again_when_they_are_back() {
    let spec = WorldSpec::new().judged_by(Judge::Queue);
    let configs = (spec.a.clone(), spec.b.clone());
    let mut world = spec.start();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    let streams = live(&world);
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    assert!(streams.iter().all(is_alive), "a live connection ended with the agents");
    for _ in 0..2 {
        for family in Family::BOTH {
            // Silent: a refusal would be an answer of somebody.
            assert_eq!(world.client_sees(family, PORT), Reach::Silent, "{family}, without agents");
        }
        nobody_else_comes_in(&world, &server);
        thread::sleep(AWAY);
    }
    assert!(streams.iter().all(is_alive), "a live connection ended without agents");
    world.a.restart(&world.lab, &configs.0).unwrap();
    world.b.restart(&world.lab, &configs.1).unwrap();
    assert!(streams.iter().all(is_alive), "a live connection ended with the restart\n{}", world.look());
    for family in Family::BOTH {
        assert_eq!(world.client_sees_within(family, PATIENT), Reach::Answered, "{family}\n{}", world.look());
    }
    nobody_else_comes_in(&world, &server);

    // The table that the earlier run has kept says whose they are, and nothing else: the connections do not any more.
    // Other policies of the same units, which allow the same connections.
    let [more, ports] = [("[{role: client}]", "[{role: client}, {role: other}]"), ("8081/tcp]", "8082/tcp]")]
        .map(|(from, to)| POLICY.replace(from, to));
    let peers = POLICY.replace("[{role: server}]", "[{role: server}, {role: other}]");
    for (agent, text) in [(&world.b, more), (&world.b, ports), (&world.a, peers)] {
        fs::write(agent.policy_file(), text).unwrap();
        thread::sleep(Duration::from_millis(500));
        assert!(streams.iter().all(is_alive), "an allowed connection was cut\n{}", world.look());
    }
    forbid_and_see(&world, &streams);
}

fn forbid_and_see(world: &World, streams: &[TcpStream]) {
    let start = Instant::now();
    fs::write(world.b.policy_file(), POLICY.replace("role: client}]", "role: nobody}]")).unwrap();
    for stream in streams {
        let cut = || Ok(!is_alive_within(stream, Duration::from_millis(100)));
        eventually("the cut", SOON, cut, || world.look()).unwrap();
        assert!(start.elapsed() < SOON + SOON, "{:?}\n{}", start.elapsed(), world.look());
    }
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "{}", world.look());
}

#[test]
fn a_policy_that_changed_while_the_agents_were_dead_cuts_what_it_forbids_when_they_are_back() {
    let spec = WorldSpec::new().judged_by(Judge::Queue);
    let (config_a, mut config_b) = (spec.a.clone(), spec.b.clone());
    let mut world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let streams = live(&world);
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    config_b.policy = POLICY.replace("role: client}]", "role: nobody}]");
    world.a.restart(&world.lab, &config_a).unwrap();
    world.b.restart(&world.lab, &config_b).unwrap();
    for stream in &streams {
        let cut = || Ok(!is_alive_within(stream, Duration::from_millis(200)));
        eventually("the cut", SOON, cut, || world.look()).unwrap();
    }
}

#[test]
fn a_connect_made_while_the_agents_are_dead_completes_when_they_are_back() {
    let spec = WorldSpec::new().judged_by(Judge::Queue);
    let configs = (spec.a.clone(), spec.b.clone());
    let mut world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    let (client, to) = (world.client.clone(), world.server.at(Family::V4, PORT));
    let waiting = thread::spawn(move || probe(&client.namespace, to, Duration::from_secs(20)));
    thread::sleep(Duration::from_millis(200));
    world.a.restart(&world.lab, &configs.0).unwrap();
    world.b.restart(&world.lab, &configs.1).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), Reach::Answered, "{}", world.look());
}
