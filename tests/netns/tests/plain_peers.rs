//! Peers without identity, and what they and their networks get to see.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use trireme_flow::Reason;
use trireme_testkit::lab::{Family, IpTap, Pu, Reach, Server, Side, probe, uninterrupted};
use trireme_tests_netns::{CLOSED_PORT, PATIENT, PORT, PROMPT, WorldSpec};
use trireme_wire::tcp::Segment;

/// Servers are open to one address outside, clients may call one address outside.
const BY_ADDRESS: &str = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress:
  - name: clients
    from: [{role: client}]
  network_acls:
  - name: plain-clients
    networks: [10.10.1.0/24, 'fd00:10:1::/64']
    ports: [8080/tcp]
- name: clients
  subject: {role: client}
  egress:
  - to: [{role: server}]
  application_acls:
  - name: plain-servers
    networks: [10.10.2.0/24, 'fd00:10:2::/64', 203.0.113.0/24]
    ports: [8080/tcp]
";

/// A world with a workload on each node that no agent knows.
fn with_plain_peers(change: impl FnOnce(&mut WorldSpec)) -> (WorldSpec, Pu, Pu) {
    let mut spec = WorldSpec::new();
    let plain_a = spec.lab.add_pu(Side::A, "plain-a").unwrap();
    let plain_b = spec.lab.add_pu(Side::B, "plain-b").unwrap();
    for config in [&mut spec.a, &mut spec.b] {
        BY_ADDRESS.clone_into(&mut config.policy);
    }
    change(&mut spec);
    (spec, plain_a, plain_b)
}

#[test]
fn address_rules_admit_a_peer_without_identity_on_their_ports_only() {
    let (spec, plain_a, plain_b) = with_plain_peers(|_| ());
    let _servers = [
        Server::echo(&spec.server.namespace, PORT).unwrap(),
        Server::echo(&spec.server.namespace, CLOSED_PORT).unwrap(),
        Server::echo(&plain_b.namespace, PORT).unwrap(),
        Server::echo(&plain_b.namespace, CLOSED_PORT).unwrap(),
    ];
    let world = spec.start();
    for family in Family::BOTH {
        let plain_sees = |port| probe(&plain_a.namespace, world.server.at(family, port), PROMPT).unwrap();
        assert_eq!(plain_sees(PORT), Reach::Answered, "{family}\n{}", world.logs());
        assert_eq!(plain_sees(CLOSED_PORT), Reach::Silent);
        let client_sees = |port| probe(&world.client.namespace, plain_b.at(family, port), PATIENT).unwrap();
        assert_eq!(client_sees(PORT), Reach::Answered, "{family}\n{}", world.logs());
        assert_eq!(client_sees(CLOSED_PORT), Reach::Silent);
    }
    world.b.await_refusal(Reason::NetworkAcl).unwrap();
    world.a.await_refusal(Reason::ApplicationAcl).unwrap();
}

#[test]
fn strict_identity_admits_no_peer_without_identity_of_the_target_networks() {
    let (spec, plain_a, plain_b) = with_plain_peers(|spec| {
        spec.a.strict_identity = true;
        spec.b.strict_identity = true;
    });
    let _servers = [&spec.server, &plain_b].map(|pu| Server::echo(&pu.namespace, PORT).unwrap());
    let world = spec.start();
    let plain_sees = probe(&plain_a.namespace, world.server.at(Family::V4, PORT), PROMPT).unwrap();
    assert_eq!(plain_sees, Reach::Silent);
    let client_sees = probe(&world.client.namespace, plain_b.at(Family::V4, PORT), PROMPT).unwrap();
    assert_eq!(client_sees, Reach::Silent);
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
    world.b.await_refusal(Reason::StrictIdentity).unwrap();
}

#[test]
fn traffic_of_workloads_that_no_agent_knows_is_left_alone() {
    let (spec, plain_a, plain_b) = with_plain_peers(|_| ());
    let _server = Server::echo(&plain_b.namespace, PORT).unwrap();
    let _world = spec.start();
    for family in Family::BOTH {
        assert_eq!(probe(&plain_a.namespace, plain_b.at(family, PORT), PROMPT).unwrap(), Reach::Answered);
    }
}

#[test]
fn networks_that_are_no_target_never_see_an_identity() {
    let (spec, _, _) = with_plain_peers(|_| ());
    spec.lab.router().ip("addr add 203.0.113.1/32 dev lo\n").unwrap();
    let _server = Server::echo(spec.lab.router(), PORT).unwrap();
    let world = spec.start();
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let to: SocketAddr = "203.0.113.1:8080".parse().unwrap();
    assert_eq!(probe(&world.client.namespace, to, PROMPT).unwrap(), Reach::Answered, "{}", world.logs());
    let syn = tap
        .find(PATIENT, |packet| {
            Segment::parse(packet).is_ok_and(|segment| segment.flags.is_syn() && segment.ip.dst == to.ip())
        })
        .unwrap()
        .unwrap();
    assert_eq!(Segment::parse(&syn).unwrap().payload_len(), 0, "tags left for the Internet");
}

#[test]
fn a_refusal_may_be_a_reset_or_an_icmp_error_instead_of_silence() {
    for (refusal, expected) in [("rst", Reach::Refused), ("icmp", Reach::Prohibited)] {
        let mut spec = WorldSpec::new();
        spec.b.refusal = refusal;
        let _server = Server::echo(&spec.server.namespace, PORT).unwrap();
        let world = spec.start();
        for family in Family::BOTH {
            let start = Instant::now();
            assert_eq!(world.stranger_sees(family, PORT), expected, "{refusal}, {family}\n{}", world.logs());
            assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
            assert_eq!(world.client_sees(family, PORT), Reach::Answered);
        }
    }
}

#[test]
fn other_protocols_are_denied_unless_the_setting_allows_them() {
    for (setting, arrives) in [("deny", false), ("allow", true)] {
        let mut spec = WorldSpec::new();
        spec.a.other_protocols = setting;
        spec.b.other_protocols = setting;
        // A rule without services speaks about every protocol.
        let to_servers = "    to: [{role: server}]\n";
        spec.a.policy = spec.a.policy.replace(to_servers, &format!("{to_servers}    ports: [tcp]\n"));
        let world = spec.start();
        for family in Family::BOTH {
            let bind =
                |pu: &Pu, port| pu.namespace.enter(|| UdpSocket::bind(pu.at(family, port))).unwrap().unwrap();
            let (sender, receiver) = (bind(&world.client, 0), bind(&world.server, PORT));
            receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            sender.send_to(b"datagram", receiver.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 16];
            let received = uninterrupted(|| receiver.recv(&mut buffer));
            assert_eq!(
                received.is_ok() && buffer.starts_with(b"datagram"),
                arrives,
                "{setting}, {family}\n{}",
                world.logs()
            );
        }
    }
}
