//! What goes on and what stays closed while no agent answers.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Family, Reach, Server, connect, connect_times};
use trireme_tests_netns::{AWAY, Judge, PATIENT, PORT, PROMPT, World, WorldSpec, is_alive, raise_file_limit};

/// A world whose client knows its server, and whose agents are dead and known to be.
fn without_agents(change: impl FnOnce(&mut WorldSpec)) -> World {
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    change(&mut spec);
    let mut world = spec.start();
    world.introduce();
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    thread::sleep(AWAY);
    world
}

#[test]
fn known_peers_connect_and_strangers_do_not_while_both_agents_are_dead() {
    let world = without_agents(|_| {});
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        for _ in 0..10 {
            assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}");
        }
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}");
    }
    assert_eq!(server.accepted(), 20);
}

#[test]
fn fail_mode_open_lets_strangers_in_while_the_agents_are_dead_and_not_when_they_are_back() {
    let spec = |spec: &mut WorldSpec| {
        for config in [&mut spec.a, &mut spec.b] {
            config.enforcement.push_str("fail_mode = \"open\"\n");
        }
    };
    let mut configs = None;
    let mut world = without_agents(|world| {
        spec(world);
        configs = Some((world.a.clone(), world.b.clone()));
    });
    let (config_a, config_b) = configs.unwrap();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}");
        assert_eq!(world.stranger_sees(family, PORT), Reach::Answered, "{family}");
    }
    world.a.restart(&world.lab, &config_a).unwrap();
    world.b.restart(&world.lab, &config_b).unwrap();
    for family in Family::BOTH {
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{family}");
        assert_eq!(world.client_sees_within(family, PATIENT), Reach::Answered, "{family}\n{}", world.logs());
    }
}

#[test]
fn a_fail_mode_that_outlives_the_tokens_is_refused_at_the_start() {
    let mut spec = WorldSpec::new();
    spec.a.lifetime_secs = 60;
    spec.a.enforcement.push_str("fail_mode = \"last-known-for 61s\"\n");
    let error = trireme_testkit::lab::Agent::start(
        &spec.lab,
        trireme_testkit::lab::Side::A,
        &trireme_tests_netns::program(),
        &spec.a,
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("fail_mode") && error.contains("61"), "{error}");
}

/// How long a token lives in these tests: the shortest the program takes.
const LIFETIME: u64 = 60;

#[test]
fn known_peers_of_a_dead_agent_connect_through_two_reissue_intervals_of_its_peer() {
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    spec.a.lifetime_secs = LIFETIME;
    // The dead agent's tokens outlive the test; its peer's are issued anew every half life.
    spec.b.lifetime_secs = 600;
    // Two intervals are the whole life of the tokens that the dead agent knows.
    let end = Instant::now() + Duration::from_secs(LIFETIME - 2);
    let mut world = spec.start();
    world.introduce();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    world.b.kill().unwrap();
    let mut worst = Duration::ZERO;
    while Instant::now() < end {
        for family in Family::BOTH {
            let start = Instant::now();
            let reach = world.client_sees_within(family, PATIENT);
            let left = end.saturating_duration_since(start);
            assert_eq!(reach, Reach::Answered, "{family}, {left:?} before the end\n{}", world.a.log());
            worst = worst.max(start.elapsed());
        }
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
    }
    // A rotation costs a repetition of the SYN, once per peer.
    assert!(worst < Duration::from_secs(3), "{worst:?}");
}

#[test]
fn known_peers_of_a_dead_agent_are_refused_when_its_tokens_have_expired() {
    let world = without_agents(|spec| {
        spec.a.lifetime_secs = LIFETIME;
        spec.b.lifetime_secs = LIFETIME;
    });
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let stream = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    // Peers' tokens are believed for another minute.
    thread::sleep(Duration::from_secs(LIFETIME + 1));
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "an own token was used after its end");
    assert!(is_alive(&stream), "a live connection ended with a token");
}

#[test]
fn known_peers_of_dead_agents_are_known_for_as_long_as_the_fail_mode_says() {
    const KILLED_AT: Duration = Duration::from_secs(20);
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    for config in [&mut spec.a, &mut spec.b] {
        config.lifetime_secs = LIFETIME;
        config.enforcement.push_str(&format!("fail_mode = \"last-known-for {LIFETIME}s\"\n"));
    }
    let mut world = spec.start();
    // No token is younger than this.
    let issued = Instant::now();
    world.introduce();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    thread::sleep(KILLED_AT.saturating_sub(issued.elapsed()));
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    let killed = Instant::now();
    let tokens_end = issued + Duration::from_secs(LIFETIME);
    let mut afterwards = 0;
    while killed.elapsed() + Duration::from_secs(3) < Duration::from_secs(LIFETIME) {
        for family in Family::BOTH {
            let reach = world.client_sees(family, PORT);
            assert_eq!(
                reach,
                Reach::Answered,
                "{family}, {:?} after the end of the agents",
                killed.elapsed()
            );
        }
        assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
        afterwards += usize::from(Instant::now() > tokens_end);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(afterwards > 10, "the tokens did not end while the fail mode held");
    thread::sleep(Duration::from_secs(LIFETIME + 2).saturating_sub(killed.elapsed()));
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "known for longer than it was said");
}

#[test]
fn closed_connections_leave_the_table_and_live_ones_stay_while_the_agents_are_dead() {
    const LIVE: usize = 200;
    const CLOSED: usize = 5000;
    raise_file_limit();
    let mut configs = None;
    // As small as tables get: without a way out they would be full in no time.
    let mut world = without_agents(|spec| {
        for config in [&mut spec.a, &mut spec.b] {
            config.more.push_str("[limits]\nconnections = 1024\n");
        }
        configs = Some((spec.a.clone(), spec.b.clone()));
    });
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let to = world.server.at(Family::V4, PORT);
    let live: Vec<TcpStream> = world
        .client
        .namespace
        .enter(|| (0..LIVE).map(|_| TcpStream::connect_timeout(&to, PATIENT).unwrap()).collect())
        .unwrap();
    let times = connect_times(&world.client.namespace, to, CLOSED).unwrap();
    assert_eq!(times.len(), CLOSED);
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "the tables are full");
    let lost = live.iter().filter(|stream| !is_alive(stream)).count();
    assert_eq!(lost, 0, "of {LIVE} live connections");
    let (config_a, config_b) = configs.unwrap();
    world.a.restart(&world.lab, &config_a).unwrap();
    world.b.restart(&world.lab, &config_b).unwrap();
    let lost = live.iter().filter(|stream| !is_alive(stream)).count();
    assert_eq!(lost, 0, "of {LIVE} live connections, after the restart\n{}", world.look());
}
