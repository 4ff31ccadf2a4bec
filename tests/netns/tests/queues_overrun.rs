//! More packets than a stopped agent takes out of its queue.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use trireme_testkit::lab::{Agent, Family, RawSender, Reach, Server, connect, eventually, probe};
use trireme_tests_netns::{Judge, PATIENT, PORT, PROMPT, World, WorldSpec, is_alive};
use trireme_wire::build::{self, TcpSpec};
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

/// Connects that begin while the agent is stopped.
const BURST: usize = 200;
const STOPPED: Duration = Duration::from_secs(5);
/// A SYN that began then is repeated after 1, 3, 7, 15 and 31 seconds.
const REPEATED: Duration = Duration::from_secs(40);

/// An agent that does not run until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(agent: &Agent) -> Self {
        let id = Pid::from_raw(agent.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, Signal::STOP).unwrap();
        Self(id)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Whoever has ended goes on no more.
        kill_process(self.0, Signal::CONT).unwrap_or_default();
    }
}

/// What the kernel says of the server's queue: packets that did not fit into the queue, and into the agent's socket.
fn dropped(world: &World) -> [u64; 2] {
    let text = world.server.namespace.run("cat", &["/proc/self/net/netfilter/nfnetlink_queue"]).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    [numbers.get(5).copied().unwrap(), numbers.get(6).copied().unwrap()]
}

fn counted(agent: &Agent) -> [u64; 2] {
    ["queue-full", "queue-not-delivered"].map(|name| agent.kernel_count(name).unwrap())
}

#[test]
fn connects_during_a_pause_of_the_agent_complete_afterwards_and_nobody_else_comes_in() {
    let world = WorldSpec::new().judged_by(Judge::Queue).start();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    let to = world.server.at(Family::V4, PORT);
    let live = connect(&world.client.namespace, to, PROMPT).unwrap();
    assert!(is_alive(&live), "{}", world.look());
    let before = server.accepted();
    let stopped = Stopped::new(&world.b);
    let seen: Vec<Reach> = thread::scope(|scope| {
        let call = || probe(&world.client.namespace, to, REPEATED).unwrap();
        let calls: Vec<_> = (0..BURST).map(|_| scope.spawn(call)).collect();
        let knocks: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| [&world.stranger.namespace, world.lab.router()].map(|from| (from, family)))
            .map(|(from, family)| {
                let to = world.server.at(family, PORT);
                scope.spawn(move || probe(from, to, STOPPED).unwrap())
            })
            .collect();
        for knock in knocks {
            assert_eq!(knock.join().unwrap(), Reach::Silent, "while the agent was stopped");
        }
        assert_eq!(server.accepted(), before, "somebody came in while the agent was stopped");
        assert!(is_alive(&live), "a live connection needs the agent");
        drop(stopped);
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let missed = seen.iter().filter(|reach| **reach != Reach::Answered).count();
    assert_eq!(missed, 0, "of {BURST}\n{}", world.look());
    assert_eq!(server.accepted(), before + BURST);
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
}

#[test]
fn packets_that_do_not_fit_into_the_queue_are_dropped_and_counted() {
    let world = WorldSpec::new().judged_by(Judge::Queue).start();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    let live = connect(&world.client.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    assert!(is_alive(&live), "{}", world.look());
    let before = server.accepted();
    let stopped = Stopped::new(&world.b);
    flood(&world, 20_000);
    let lost = dropped(&world);
    assert!(lost.iter().sum::<u64>() > 0, "this was no overrun");
    assert!(is_alive(&live), "a live connection was lost with the queue");
    for family in Family::BOTH {
        let reach = probe(world.lab.router(), world.server.at(family, PORT), PROMPT).unwrap();
        assert_eq!(reach, Reach::Silent, "{family}: a full queue is open");
    }
    drop(stopped);
    let told = || Ok(counted(&world.b) == dropped(&world));
    eventually("the count of what was dropped", PATIENT, told, || {
        format!("{:?} of {:?}\n{}", counted(&world.b), dropped(&world), world.look())
    })
    .unwrap();
    eprintln!("dropped (full, not delivered): {lost:?}");
    assert_eq!(server.accepted(), before);
    let answers = || Ok(world.client_sees(Family::V4, PORT) == Reach::Answered);
    eventually("a known peer that connects", PATIENT, answers, || world.look()).unwrap();
    assert!(is_alive(&live));
}

/// Sends SYNs of somebody without an agent to the server.
fn flood(world: &World, count: u16) {
    let sender = RawSender::open(world.lab.router()).unwrap();
    let to = Endpoint::new(world.server.v4.into(), PORT);
    for port in (1024..).take(count.into()) {
        let from = Endpoint::new([10, 200, 2, 1].into(), port);
        let spec = TcpSpec::new(from, to, port.into(), 0, Flags::SYN);
        sender.send(&build::tcp(&spec).unwrap()).unwrap();
    }
}
