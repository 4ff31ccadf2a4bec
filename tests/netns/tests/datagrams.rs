//! UDP and ICMP by address rules, behind programs and behind queues.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trireme_flow::Reason;
use trireme_testkit::lab::{Agent, Family, Namespace, eventually, uninterrupted};
use trireme_tests_netns::{Judge, PATIENT, World, WorldSpec};

/// Where datagrams are answered that the rules admit.
const OPEN: u16 = 9000;
/// Where they are answered as well, but not admitted.
const SHUT: u16 = 9001;

/// Servers answer node a's datagrams and echo requests, clients send them; nobody asks anybody else anything.
const BY_ADDRESS: &str = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress: []
  network_acls:
  - name: questions
    networks: [10.10.1.0/24, 'fd00:10:1::/64']
    ports: [9000/udp]
  - name: pings
    networks: [10.10.1.0/24]
    ports: [icmp/8]
  - name: pings-of-ipv6
    networks: ['fd00:10:1::/64']
    ports: [icmpv6/128]
  egress: []
- name: clients
  subject: {role: client}
  ingress: []
  egress: []
  application_acls:
  - name: anything-to-servers
    networks: [10.10.2.0/24, 'fd00:10:2::/64']
";

/// Servers answer clients, whatever their addresses are; strangers may ask anyone.
const BY_IDENTITY: &str = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress:
  - name: clients
    from: [{role: client}]
    ports: [9000/udp]
  egress: []
- name: clients
  subject: {role: client}
  ingress: []
  egress:
  - name: to-servers
    to: [{role: server}]
";

fn world(judge: Judge, policy: &str) -> World {
    let mut spec = WorldSpec::new().judged_by(judge);
    for config in [&mut spec.a, &mut spec.b] {
        policy.clone_into(&mut config.policy);
    }
    spec.start()
}

/// Once behind programs, once behind queues.
fn behind_both(policy: &str, test: impl Fn(&World)) {
    for judge in [Judge::Kernel, Judge::Queue] {
        eprintln!("data path: {judge:?}");
        test(&world(judge, policy));
    }
}

fn bind(namespace: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind(at).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    socket
}

fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "0.0.0.0:0".parse().unwrap(),
        Family::V6 => "[::]:0".parse().unwrap(),
    }
}

/// Answers every datagram with itself until none has come for a while.
fn answer(namespace: &Namespace, at: SocketAddr) {
    let socket = bind(namespace, at);
    socket.set_read_timeout(Some(PATIENT * 4)).unwrap();
    drop(std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = uninterrupted(|| socket.recv_from(&mut buffer)) {
            drop(socket.send_to(buffer.get(..len).unwrap_or_default(), from));
        }
    }));
}

/// Whether one datagram of this length comes back, and unchanged.
fn is_echoed(socket: &UdpSocket, to: SocketAddr, len: usize) -> bool {
    let sent: Vec<u8> = (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let mut received = vec![0; 65_536];
    // A rule of the sender's own namespace that drops it is told as an error.
    if socket.send_to(&sent, to).is_err() {
        return false;
    }
    match uninterrupted(|| socket.recv_from(&mut received)) {
        Ok((came, from)) => {
            assert_eq!(from, to);
            assert!(received.get(..came) == Some(&sent[..]), "{len} bytes came back as {came} others");
            true
        }
        Err(_) => false,
    }
}

fn ping(namespace: &Namespace, to: IpAddr) -> bool {
    let to = to.to_string();
    let mut command = Command::new("ping");
    namespace.output(command.args(["-c", "1", "-W", "1", &to])).unwrap().status.success()
}

#[test]
fn an_address_rule_admits_questions_and_their_answers_and_nothing_else() {
    behind_both(BY_ADDRESS, |world| {
        for family in Family::BOTH {
            for port in [OPEN, SHUT] {
                answer(&world.server.namespace, world.server.at(family, port));
            }
            let client = bind(&world.client.namespace, any(family));
            // Of one frame, of some fragments, and the longest that there is.
            for len in [1, 1200, 4000, 65_507 - if family == Family::V6 { 20 } else { 0 }] {
                let echoed = is_echoed(&client, world.server.at(family, OPEN), len);
                assert!(echoed, "{family}, {len} bytes\n{}", world.look());
            }
            assert!(!is_echoed(&client, world.server.at(family, SHUT), 8), "{family}\n{}", world.look());
            // The server may answer, but asks nobody.
            let asking = bind(&world.server.namespace, any(family));
            answer(&world.client.namespace, world.client.at(family, OPEN));
            assert!(!is_echoed(&asking, world.client.at(family, OPEN), 8), "{family}\n{}", world.look());
        }
        world.b.await_refusal(Reason::NetworkAcl).unwrap();
        world.b.await_refusal(Reason::PolicyNoEgress).unwrap();
    });
}

#[test]
fn echo_requests_are_a_matter_of_rules_by_type_and_their_replies_follow() {
    behind_both(BY_ADDRESS, |world| {
        for family in Family::BOTH {
            let (client, server) = (&world.client, &world.server);
            assert!(ping(&client.namespace, server.address(family)), "{family}\n{}", world.look());
            assert!(!ping(&server.namespace, client.address(family)), "{family}\n{}", world.look());
        }
    });
}

#[test]
fn the_unit_and_its_loopback_are_its_own_business() {
    behind_both(BY_ADDRESS, |world| {
        for family in Family::BOTH {
            let at = world.client.at(family, OPEN);
            answer(&world.client.namespace, at);
            let socket = bind(&world.client.namespace, any(family));
            assert!(is_echoed(&socket, at, 8), "{family}\n{}", world.look());
        }
    });
}

#[test]
fn the_end_of_a_flow_that_fell_silent_is_recorded_with_what_it_carried() {
    behind_both(BY_ADDRESS, |world| {
        answer(&world.server.namespace, world.server.at(Family::V4, OPEN));
        let client = bind(&world.client.namespace, any(Family::V4));
        // Nobody answers there: thirty seconds of silence end it.
        assert!(!is_echoed(&client, world.server.at(Family::V4, SHUT), 100));
        assert!(is_echoed(&client, world.server.at(Family::V4, OPEN), 100), "{}", world.look());
        let open = |agent: &Agent| -> u64 {
            let status = agent.status().unwrap();
            let gauges = status.pointer("/datapath/gauges").unwrap_or_else(|| panic!("{status}"));
            gauges.get("flows of other protocols").and_then(Value::as_u64).unwrap()
        };
        assert_eq!((open(&world.a), open(&world.b)), (2, 1), "{}", world.look());
        let ended = || Ok(open(&world.a) == 1);
        eventually("the end of the flow", Duration::from_secs(60), ended, || world.look()).unwrap();
        assert_eq!(open(&world.b), 1, "answered ones live longer");
    });
}

#[test]
fn a_policy_that_does_not_admit_a_flow_any_more_cuts_it() {
    behind_both(BY_ADDRESS, |world| {
        let to = world.server.at(Family::V4, OPEN);
        answer(&world.server.namespace, to);
        let client = bind(&world.client.namespace, any(Family::V4));
        assert!(is_echoed(&client, to, 8), "{}", world.look());
        fs::write(world.b.policy_file(), BY_ADDRESS.replace("9000/udp", "9005/udp")).unwrap();
        let cut = || Ok(!is_echoed(&client, to, 8));
        eventually("the cut", PATIENT, cut, || world.look()).unwrap();
        fs::write(world.b.policy_file(), BY_ADDRESS).unwrap();
        let back = || Ok(is_echoed(&client, to, 8));
        eventually("the flow", PATIENT, back, || world.look()).unwrap();
    });
}

#[test]
fn identities_are_asked_for_over_udp_and_applications_see_their_datagrams_only() {
    behind_both(BY_IDENTITY, |world| {
        for family in Family::BOTH {
            for port in [OPEN, SHUT] {
                answer(&world.server.namespace, world.server.at(family, port));
            }
            let client = bind(&world.client.namespace, any(family));
            for len in [1, 1200, 4000] {
                let echoed = is_echoed(&client, world.server.at(family, OPEN), len);
                assert!(echoed, "{family}, {len} bytes\n{}", world.look());
            }
            assert!(!is_echoed(&client, world.server.at(family, SHUT), 8), "{family}\n{}", world.look());
            let stranger = bind(&world.stranger.namespace, any(family));
            for _ in 0..3 {
                assert!(
                    !is_echoed(&stranger, world.server.at(family, OPEN), 8),
                    "{family}\n{}",
                    world.look()
                );
            }
            // Another flow of identities that know each other.
            let again = bind(&world.client.namespace, any(family));
            assert!(is_echoed(&again, world.server.at(family, OPEN), 8), "{family}\n{}", world.look());
        }
        world.b.await_refusal(Reason::PolicyIngress).unwrap();
    });
}

#[test]
fn a_policy_that_does_not_admit_an_identity_any_more_cuts_its_flows() {
    behind_both(BY_IDENTITY, |world| {
        let to = world.server.at(Family::V4, OPEN);
        answer(&world.server.namespace, to);
        let client = bind(&world.client.namespace, any(Family::V4));
        assert!(is_echoed(&client, to, 8), "{}", world.look());
        let forbidden = BY_IDENTITY.replace("from: [{role: client}]", "from: [{role: nobody}]");
        fs::write(world.b.policy_file(), forbidden).unwrap();
        let cut = || Ok(!is_echoed(&client, to, 8));
        eventually("the cut", PATIENT, cut, || world.look()).unwrap();
        for _ in 0..3 {
            assert!(!is_echoed(&client, to, 8), "{}", world.look());
        }
    });
}

#[test]
fn a_peer_without_an_agent_is_asked_and_then_judged_by_its_address() {
    let policy = BY_IDENTITY.replace(
        "  - name: to-servers\n    to: [{role: server}]\n",
        "  - name: to-servers\n    to: [{role: server}]\n  application_acls:\n  - name: names\n    networks: [10.10.2.0/24, 'fd00:10:2::/64']\n    ports: [9000/udp]\n",
    );
    for judge in [Judge::Kernel, Judge::Queue] {
        let mut spec = WorldSpec::new().judged_by(judge);
        policy.clone_into(&mut spec.a.policy);
        let plain = spec.lab.add_pu(trireme_testkit::lab::Side::B, "plain").unwrap();
        let world = spec.start();
        for family in Family::BOTH {
            for port in [OPEN, SHUT] {
                answer(&plain.namespace, plain.at(family, port));
            }
            let client = bind(&world.client.namespace, any(family));
            assert!(is_echoed(&client, plain.at(family, OPEN), 8), "{judge:?} {family}\n{}", world.look());
            assert!(!is_echoed(&client, plain.at(family, SHUT), 8), "{judge:?} {family}\n{}", world.look());
        }
    }
}
