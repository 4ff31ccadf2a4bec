//! Policies that change under live connections which netfilter marks have released.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Family, Server, connect, eventually};
use trireme_tests_netns::{Judge, PATIENT, POLICY, PORT, PROMPT, WorldSpec, is_alive};

/// How often the policy is changed.
const ROUNDS: usize = 20;

/// The time within which a change has cut.
const CUT: Duration = Duration::from_millis(500);

/// Longer than an answer takes on a busy machine.
const ANSWER: Duration = Duration::from_millis(400);

/// Sends bytes until none comes back any more; returns when the last one that came back was sent.
fn last_answered(stream: &mut TcpStream, start: Instant) -> Option<Duration> {
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let mut last = Duration::ZERO;
    while start.elapsed() < PATIENT {
        let sent = start.elapsed();
        if stream.write_all(&[1]).is_err() || stream.read_exact(&mut [0]).is_err() {
            return Some(last);
        }
        last = sent;
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

#[test]
fn a_policy_change_cuts_live_connections_that_it_forbids() {
    let world = WorldSpec::new().judged_by(Judge::Queue).start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let mut times = Vec::new();
    for (round, family) in Family::BOTH.into_iter().cycle().take(ROUNDS).enumerate() {
        let mut stream = None;
        let answers = || {
            let to = world.server.at(family, PORT);
            stream = connect(&world.client.namespace, to, PROMPT).ok().filter(is_alive);
            Ok(stream.is_some())
        };
        eventually("a connection that is allowed", PATIENT, answers, || world.look()).unwrap();
        let mut stream = stream.unwrap();
        let forbidden = POLICY.replace("role: client}]", "role: nobody}]");
        // By turns the server's policy and the client's own.
        let (agent, forbidden) = match round % 4 {
            0 | 1 => (&world.b, forbidden),
            _ => (&world.a, POLICY.replace("to: [{role: server}]", "to: [{role: nobody}]")),
        };
        let start = Instant::now();
        fs::write(agent.policy_file(), forbidden).unwrap();
        let cut = last_answered(&mut stream, start);
        times.push(cut.unwrap_or_else(|| panic!("round {round}: not cut at all\n{}", world.look())));
        fs::write(agent.policy_file(), POLICY).unwrap();
    }
    times.sort();
    let (median, worst) = (times.get(ROUNDS / 2).copied().unwrap(), times.last().copied().unwrap());
    eprintln!("from the write of the policy to the cut: median {median:?}, largest of {ROUNDS} {worst:?}");
    assert!(worst < CUT, "{times:?}\n{}", world.look());
}

#[test]
fn policy_changes_that_still_allow_them_leave_live_connections_alone() {
    let world = WorldSpec::new().judged_by(Judge::Queue).start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let open = |family| connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
    let streams = Family::BOTH.map(open);
    for round in 0..5 {
        let other = format!("{{role: other-{round}}}");
        // Another policy of the same unit, under which its connections are judged again.
        let servers = POLICY.replace("{role: client}]", &format!("{{role: client}}, {other}]"));
        let clients = POLICY.replace("[{role: server}]", &format!("[{{role: server}}, {other}]"));
        for (agent, text) in [(&world.a, clients), (&world.b, servers)] {
            fs::write(agent.policy_file(), text).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(streams.iter().all(is_alive), "round {round}\n{}", world.look());
    }
}
