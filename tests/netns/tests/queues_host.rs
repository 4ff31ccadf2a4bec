//! Units of the host: who is admitted, who is not, and who is left alone.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use trireme_flow::{Action, FlowRecord, Reason};
use trireme_testkit::lab::{Agent, Family, Namespace, Reach, Server, Side, eventually, probe};
use trireme_tests_netns::{CLOSED_PORT, Hosts, HostsSpec, PATIENT, POLICY, PORT, PROMPT, is_alive, section};

/// Where servers listen that are in no unit.
const ELSEWHERE: u16 = 9090;

/// Where datagrams are answered.
const DATAGRAMS: u16 = 9000;

/// Records are written in a moment.
const COUNTED: Duration = Duration::from_secs(5);

fn queued(agent: &Agent) -> u64 {
    agent.kernel_count("queued").unwrap()
}

#[test]
fn processes_of_cgroups_are_admitted_by_their_identities_and_refused_without_by_rules_of_iptables_nft() {
    admits_and_refuses_by("iptables-nft");
}

#[test]
fn processes_of_cgroups_are_admitted_by_their_identities_and_refused_without_by_rules_of_iptables_legacy() {
    admits_and_refuses_by("iptables-legacy");
}

fn admits_and_refuses_by(rules: &str) {
    let mut spec = HostsSpec::new();
    for config in [&mut spec.a, &mut spec.b] {
        config.datapath_more.push_str(&format!("rules = \"{rules}\"\n"));
    }
    let hosts = spec.start();
    for agent in [&hosts.a, &hosts.b] {
        let status = agent.status().unwrap().to_string();
        assert!(status.contains(&format!("rules by {rules}")) && status.contains("on the host"), "{status}");
    }
    let server = hosts.server.echo(PORT);
    for family in Family::BOTH {
        for round in 0..5 {
            assert_eq!(hosts.client_sees(family), Reach::Answered, "{family} {round}\n{}", hosts.look());
        }
        let before = server.accepted();
        assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}\n{}", hosts.look());
        assert_eq!(server.accepted(), before, "somebody unknown got in");
        let stream = hosts.client.connect(hosts.at(Side::B, family, PORT), PATIENT);
        assert!((0..100).all(|_| is_alive(&stream)), "{family}\n{}", hosts.look());
        // What is released is not queued any more; counters lag behind what came before.
        let before = [queued(&hosts.a), queued(&hosts.b)];
        assert!((0..500).all(|_| is_alive(&stream)), "{family}\n{}", hosts.look());
        std::thread::sleep(Duration::from_millis(1500));
        let after = [queued(&hosts.a), queued(&hosts.b)];
        let few = before.iter().zip(after).all(|(before, after)| after - before < 100);
        assert!(few, "{family}: segments of a released connection: {before:?}, {after:?}");
    }
    hosts.b.await_refusal(Reason::PolicyIngress).unwrap();
}

/// The connmarks of connections to a port, as the host has them.
fn connmarks(host: &Namespace, port: u16) -> Vec<u32> {
    let text = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap()).unwrap();
    let wanted = format!("dport={port} ");
    let lines = text.lines().filter(|line| line.contains(" tcp ") && line.contains(&wanted));
    lines
        .map(|line| line.split("mark=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn processes_in_no_unit_are_neither_queued_nor_hindered_and_keep_their_marks() {
    let hosts = Hosts::start();
    let (a, b) = (&hosts.client.host, &hosts.server.host);
    for host in [a, b] {
        host.nft(&format!(
            "table inet others {{ chain out {{ type filter hook postrouting priority 10; \
             tcp dport {ELSEWHERE} meta mark and 0x0000ffff == 0x1234 ct mark set 0x00000042; }}; \
             chain in {{ type filter hook input priority 10; tcp dport {ELSEWHERE} ct mark set 0x00000043; }}; }}\n"
        ))
        .unwrap();
    }
    let _servers = [Server::echo(a, ELSEWHERE).unwrap(), Server::echo(b, ELSEWHERE).unwrap()];
    for family in Family::BOTH {
        for (from, to, agent) in [(a, Side::B, &hosts.b), (b, Side::A, &hosts.a)] {
            let before = queued(agent);
            let to = hosts.at(to, family, ELSEWHERE);
            let stream: TcpStream = from
                .enter(|| {
                    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                    socket.set_mark(0x1234).unwrap();
                    socket.connect_timeout(&to.into(), PROMPT).unwrap();
                    socket.into()
                })
                .unwrap();
            assert!((0..20).all(|_| is_alive(&stream)), "{family}\n{}", hosts.look());
            std::thread::sleep(Duration::from_millis(1500));
            assert_eq!(queued(agent), before, "{family}: a packet of nobody was queued");
        }
    }
    for host in [a, b] {
        let mut marks = connmarks(host, ELSEWHERE);
        marks.sort_unstable();
        assert_eq!(marks, [0x42, 0x42, 0x43, 0x43], "marks of others");
    }
}

#[test]
fn a_listener_of_a_unit_is_policed_from_its_first_syn() {
    let hosts = Hosts::start();
    for (number, family) in Family::BOTH.into_iter().cycle().take(6).enumerate() {
        let server = hosts.server.echo(CLOSED_PORT);
        let to = hosts.at(Side::B, family, CLOSED_PORT);
        let stranger = probe(&hosts.client.host, to, Duration::from_millis(300)).unwrap();
        assert_eq!(stranger, Reach::Silent, "{number} {family}\n{}", hosts.look());
        assert_eq!(server.accepted(), 0, "{number} {family}");
        assert_eq!(hosts.client.sees(to, PATIENT), Reach::Answered, "{number} {family}\n{}", hosts.look());
        drop(server);
        // The same port, listened at by somebody who is no unit.
        let _others = Server::echo(&hosts.server.host, CLOSED_PORT).unwrap();
        let outsider = probe(&hosts.client.host, to, PATIENT).unwrap();
        assert_eq!(outsider, Reach::Answered, "{number} {family}\n{}", hosts.look());
    }
}

#[test]
fn cgroups_below_a_unit_belong_to_it_unless_they_are_units_themselves() {
    let mut spec = HostsSpec::new();
    let inner = spec.server.cgroup.child("inner").unwrap();
    let own = spec.server.cgroup.child("own").unwrap();
    let deep = own.child("deep").unwrap();
    spec.b.more.push_str(&section("own", &own, "nobodys-server"));
    let hosts = spec.start();
    let host = &hosts.server.host;
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, PORT);
        {
            let _server = inner.enter(|| Server::echo(host, PORT)).flatten().unwrap();
            assert_eq!(hosts.client_sees(family), Reach::Answered, "{family}: the unit's\n{}", hosts.look());
            assert_eq!(hosts.stranger_sees(family), Reach::Silent, "{family}: the unit's\n{}", hosts.look());
            assert_eq!(hosts.outsider_sees(family), Reach::Silent, "{family}: the unit's\n{}", hosts.look());
        }
        let server = deep.enter(|| Server::echo(host, PORT)).flatten().unwrap();
        let refused = hosts.client.sees(to, PROMPT);
        assert_eq!(refused, Reach::Silent, "{family}: of the unit inside\n{}", hosts.look());
        assert_eq!(server.accepted(), 0, "{family}");
    }
}

/// Accepts, says nothing and closes first, so that the socket waits for its time.
fn close_first(hosts: &Hosts, port: u16) -> Server {
    let host = &hosts.server.host;
    let started = hosts.server.cgroup.enter(|| Server::start(host, port, drop));
    started.flatten().unwrap()
}

/// Connects from a port of host a and waits until the server has closed.
fn visit(from: SocketAddr, to: SocketAddr, limit: Duration) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), limit)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(limit))?;
    std::io::Read::read(&mut stream, &mut [0]).map(drop)
}

/// Whether the host has a socket at this port that waits for its time.
fn waits(host: &Namespace, port: u16) -> bool {
    let listed = host.run("ss", &["-Htan", "state", "time-wait", &format!("sport = :{port}")]).unwrap();
    !listed.trim().is_empty()
}

#[test]
fn a_tuple_that_waits_for_its_time_at_a_unit_is_policed_when_it_is_used_again() {
    let hosts = Hosts::start();
    let server = close_first(&hosts, PORT);
    for (family, port) in [(Family::V4, 31_001), (Family::V6, 31_002)] {
        let (from, to) = (hosts.at(Side::A, family, port), hosts.at(Side::B, family, PORT));
        hosts
            .client
            .enter(|| visit(from, to, PATIENT))
            .unwrap_or_else(|error| panic!("{error}\n{}", hosts.look()));
        let waiting = || Ok(waits(&hosts.server.host, PORT));
        eventually("a socket that waits", PATIENT, waiting, || hosts.look()).unwrap();
        let before = server.accepted();
        let again = hosts.client.host.enter(|| visit(from, to, PROMPT)).unwrap();
        // The socket that waits must not let in somebody who is in no unit.
        let refused = again.map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::TimedOut), "{family}\n{}", hosts.look());
        assert_eq!(server.accepted(), before, "{family}\n{}", hosts.look());
        // Who is allowed may use it again.
        let allowed = hosts.client.enter(|| visit(from, to, PATIENT));
        allowed.unwrap_or_else(|error| panic!("{family}: {error}\n{}", hosts.look()));
    }
}

#[test]
fn a_tuple_that_waited_for_its_time_before_there_were_rules_is_policed_as_well() {
    let mut spec = HostsSpec::new();
    let host = spec.server.host.clone();
    let server = spec.server.cgroup.enter(|| Server::start(&host, PORT, drop)).flatten().unwrap();
    let to = SocketAddr::new([10, 200, 2, 2].into(), PORT);
    let from = SocketAddr::new([10, 200, 1, 2].into(), 31_003);
    spec.client.host.enter(|| visit(from, to, PATIENT)).unwrap().unwrap();
    assert!(waits(&host, PORT));
    spec.a.log_level = "info";
    let hosts = spec.start();
    assert!(waits(&host, PORT), "it took too long until there were rules");
    let before = server.accepted();
    let again = hosts.client.host.enter(|| visit(from, to, PROMPT)).unwrap();
    assert!(again.is_err(), "{}", hosts.look());
    assert_eq!(server.accepted(), before, "{}", hosts.look());
}

#[test]
fn a_process_cannot_release_its_connections_by_a_mark_of_its_own() {
    let hosts = Hosts::start();
    // What no unit's policy lets out of host a.
    let server = Server::echo(&hosts.server.host, ELSEWHERE).unwrap();
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, ELSEWHERE);
        for unit in 1..=3_u32 {
            for release in [0, 1, 2, 3, 255] {
                let connected = hosts.client.enter(|| {
                    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                    socket.set_mark(unit << 24 | release << 16).unwrap();
                    socket.connect_timeout(&to.into(), Duration::from_millis(100))
                });
                assert!(connected.is_err(), "{family} {unit} {release}\n{}", hosts.look());
            }
        }
    }
    assert_eq!(server.accepted(), 0);
}

#[test]
fn the_loopback_of_a_host_is_left_alone() {
    let hosts = Hosts::start();
    let _server = hosts.server.echo(PORT);
    for (family, loopback) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
        // Its own address is reached by the loopback as well.
        for to in [SocketAddr::new(loopback.parse().unwrap(), PORT), hosts.at(Side::B, family, PORT)] {
            let reach = probe(&hosts.server.host, to, PROMPT).unwrap();
            assert_eq!(reach, Reach::Answered, "{to}\n{}", hosts.look());
        }
    }
}

/// Answers every datagram with itself until it is dropped: a thread keeps its cgroup.
struct Datagrams {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn echo_datagrams(at: SocketAddr) -> Datagrams {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let thread = std::thread::spawn(move || {
        let mut byte = [0];
        while !ended.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut byte) {
                drop(socket.send_to(byte.get(..len).unwrap_or_default(), from));
            }
        }
    });
    Datagrams { over, thread: Some(thread) }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Sends a few datagrams; true if one came back.
fn is_echoed(to: SocketAddr) -> bool {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // A rule of the sender's own host that drops it is told as an error.
    (0..3).any(|_| {
        // Who has no agent sees the question for its identity.
        let mut bytes = [0; 64];
        socket.send_to(&[7], to).is_ok()
            && socket.recv_from(&mut bytes).is_ok_and(|(len, _)| bytes.get(..len) == Some(&[7][..]))
    })
}

#[test]
fn datagrams_of_units_that_no_rule_admits_are_refused_and_those_of_others_pass() {
    let hosts = Hosts::start();
    let (a, b) = (&hosts.client.host, &hosts.server.host);
    for family in Family::BOTH {
        let (of_unit, of_nobody) =
            (hosts.at(Side::B, family, DATAGRAMS), hosts.at(Side::B, family, DATAGRAMS + 1));
        let _echoes =
            [hosts.server.enter(|| echo_datagrams(of_unit)), b.enter(|| echo_datagrams(of_nobody)).unwrap()];
        let outsider = |to| a.enter(|| is_echoed(to)).unwrap();
        assert!(outsider(of_nobody), "{family}: between processes of no unit\n{}", hosts.look());
        for (sent, agent) in
            [(hosts.client.enter(|| is_echoed(of_nobody)), &hosts.a), (outsider(of_unit), &hosts.b)]
        {
            assert!(!sent, "{family}\n{}", hosts.look());
            let refused = |record: &FlowRecord| record.action == Action::Reject;
            agent.await_flow("a refusal", COUNTED, refused).unwrap();
        }
    }
}

#[test]
fn identities_of_units_are_asked_for_over_udp() {
    let mut spec = HostsSpec::new();
    for config in [&mut spec.a, &mut spec.b] {
        config.policy = POLICY.replace("8081/tcp]", &format!("8081/tcp, {DATAGRAMS}/udp]"));
    }
    let hosts = spec.start();
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, DATAGRAMS);
        let _echo = hosts.server.enter(|| echo_datagrams(to));
        let answered = || Ok(hosts.client.enter(|| is_echoed(to)));
        eventually("an answer", PATIENT, answered, || hosts.look()).unwrap();
        assert!(!hosts.stranger.enter(|| is_echoed(to)), "{family}: the stranger\n{}", hosts.look());
        assert!(
            !hosts.client.host.enter(|| is_echoed(to)).unwrap(),
            "{family}: of no unit\n{}",
            hosts.look()
        );
    }
}

#[test]
fn datagrams_of_units_pass_when_they_are_allowed() {
    let mut spec = HostsSpec::new();
    for config in [&mut spec.a, &mut spec.b] {
        config.other_protocols = "allow";
    }
    let hosts = spec.start();
    for family in Family::BOTH {
        let to = hosts.at(Side::B, family, DATAGRAMS);
        let _echo = hosts.server.enter(|| echo_datagrams(to));
        // No rule speaks about the stranger, and of the server's none about datagrams.
        assert!(hosts.stranger.enter(|| is_echoed(to)), "{family}\n{}", hosts.look());
    }
}
