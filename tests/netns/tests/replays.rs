//! Whoever records or changes packets on the way gains nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use trireme_flow::Reason;
use trireme_testkit::lab::{Family, Fate, IpTap, Lab, Reach, Recording, Relay, Server, Side, connect, probe};
use trireme_tests_netns::{
    PATIENT, PORT, PROMPT, World, WorldSpec, by_each, by_each_disturbed, kind_of, payload_of,
};
use trireme_wire::edit;
use trireme_wire::tap::{self, Kind};
use trireme_wire::tcp::Segment;

const REQUEST: &[u8] = b"give me something";

#[test]
fn without_enforcement_a_replayed_handshake_is_answered() {
    let mut lab = Lab::new().unwrap();
    let client = lab.add_pu(Side::A, "client").unwrap();
    let server = lab.add_pu(Side::B, "server").unwrap();
    let _echo = Server::echo(&server.namespace, PORT).unwrap();
    for family in Family::BOTH {
        let to = server.at(family, PORT);
        let mut tap = IpTap::open(lab.router()).unwrap();
        probe(&client.namespace, to, PROMPT).unwrap();
        let recording = Recording::take(&mut tap, to, PATIENT).unwrap();
        assert_eq!(recording.kinds(), [None; 3]);
        let outcome = recording.replay(&lab, 40_001, REQUEST, PATIENT).unwrap();
        assert_eq!(outcome.answer, REQUEST, "{family}: the attacker of these tests does not work");
    }
}

#[test]
fn a_replayed_syn_and_proof_from_another_port_get_no_data_through() {
    by_each(|world| {
        let server = Server::echo(&world.server.namespace, PORT).unwrap();
        for (family, port) in Family::BOTH.into_iter().zip([40_001, 40_002]) {
            let (recording, _) = record(world, family);
            let before = server.accepted();
            let outcome = recording.replay(&world.lab, port, REQUEST, Duration::from_secs(2)).unwrap();
            assert_eq!(outcome.answer, Vec::<u8>::new());
            assert_eq!(server.accepted(), before, "the server's stack completed a replayed handshake");
        }
        let refused =
            world.b.count(Reason::MacInvalid).unwrap() + world.b.count(Reason::NonceMismatch).unwrap();
        assert!(refused > 0, "{}", world.logs());
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered);
    });
}

#[test]
fn a_stale_established_entry_does_not_let_a_replayed_syn_bring_data() {
    by_each(|world| {
        let server = Server::start(&world.server.namespace, PORT, |mut stream| {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
                // An abort leaves the peer's entries as they were, and no socket here.
                drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
            }
        })
        .unwrap();
        for family in Family::BOTH {
            // Neither end's last words arrive, so that both nodes keep their entries.
            let (recording, port) = record(world, family);
            let before = server.accepted();
            let outcome = recording.replay(&world.lab, port, REQUEST, Duration::from_secs(2)).unwrap();
            assert_eq!(outcome.answer, Vec::<u8>::new());
            assert_eq!(server.accepted(), before, "data came in on the entry of an earlier connection");
        }
    });
}

/// Records an allowed handshake that is used once; returns it with the client's port.
fn record(world: &World, family: Family) -> (Recording, u16) {
    let to = world.server.at(family, PORT);
    let mut tap = IpTap::open(world.lab.router()).unwrap();
    let mut stream = connect(&world.client.namespace, to, PATIENT).unwrap();
    let port = stream.local_addr().unwrap().port();
    let mut byte = [1];
    stream.set_read_timeout(Some(PATIENT)).unwrap();
    stream.write_all(&byte).unwrap();
    stream.read_exact(&mut byte).unwrap();
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let recording = Recording::take(&mut tap, to, PATIENT).unwrap();
    assert_eq!(recording.kinds(), [Some(Kind::Syn), Some(Kind::SynAck), Some(Kind::Ack)]);
    (recording, port)
}

#[test]
fn a_replayed_syn_ack_does_not_complete_a_connect() {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = replace_after_first(world, Kind::SynAck);
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent);
        let refused =
            world.a.count(Reason::MacInvalid).unwrap() + world.a.count(Reason::NonceMismatch).unwrap();
        assert!(refused > 0, "{}", world.logs());
    });
}

#[test]
fn a_replayed_proof_does_not_open_a_connection() {
    by_each_disturbed(|world| {
        let server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = replace_after_first(world, Kind::Ack);
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Mute);
        assert_eq!(server.accepted(), 1);
        let refused =
            world.b.count(Reason::MacInvalid).unwrap() + world.b.count(Reason::NonceMismatch).unwrap();
        assert!(refused > 0, "{}", world.logs());
    });
}

/// Puts the first connection's message of a kind into every later segment that carries one.
fn replace_after_first(world: &World, kind: Kind) -> Relay {
    let first: Mutex<Option<(u16, Vec<u8>)>> = Mutex::new(None);
    Relay::start(&world.lab, move |packet| {
        if kind_of(packet) != Some(kind) {
            return Fate::Pass;
        }
        let segment = Segment::parse(packet).unwrap();
        let port = if segment.dst_port == PORT { segment.src_port } else { segment.dst_port };
        let mut first = first.lock().unwrap();
        let (owner, message) = first.get_or_insert_with(|| (port, payload_of(packet)));
        if *owner == port {
            return Fate::Pass;
        }
        let mut changed = packet.to_vec();
        edit::replace_payload(&mut changed, message).unwrap();
        Fate::Replace(vec![changed])
    })
    .unwrap()
}

#[test]
fn a_syn_stripped_of_its_identity_is_refused_without_an_address_rule() {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = strip(&world.lab, Kind::Syn);
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent);
        world.b.await_refusal(Reason::NetworkAcl).unwrap();
    });
}

const OPEN_BY_ADDRESS: &str = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress:
  - from: [{role: client}]
  network_acls:
  - name: node-a
    networks: [10.10.1.0/24]
";

#[test]
fn a_stripped_syn_becomes_a_decision_by_address_and_the_downgrade_is_recorded() {
    let mut spec = WorldSpec::new();
    spec.b.policy = OPEN_BY_ADDRESS.to_owned();
    let world = spec.start();
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let _relay = strip(&world.lab, Kind::Syn);
    // Whether the stranger takes an answer without identity is its own affair.
    assert_ne!(world.stranger_sees(Family::V4, PORT), Reach::Refused);
    world.b.await_flow("a downgrade", PATIENT, |record| record.reason == Reason::Downgraded).unwrap();
}

#[test]
fn strict_identity_refuses_a_stripped_syn_whatever_the_address_rules_say() {
    let mut spec = WorldSpec::new();
    spec.b.policy = OPEN_BY_ADDRESS.to_owned();
    spec.b.strict_identity = true;
    let world = spec.start();
    let server = Server::echo(&world.server.namespace, PORT).unwrap();
    let _relay = strip(&world.lab, Kind::Syn);
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent);
    assert_eq!(server.accepted(), 0);
    world.b.await_refusal(Reason::StrictIdentity).unwrap();
}

#[test]
fn a_syn_ack_stripped_of_its_identity_is_refused() {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = strip(&world.lab, Kind::SynAck);
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent);
        assert_eq!(world.client_sees(Family::V6, PORT), Reach::Silent);
    });
}

#[test]
fn an_ack_stripped_of_its_proof_opens_nothing() {
    by_each_disturbed(|world| {
        let server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _relay = strip(&world.lab, Kind::Ack);
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Mute);
        assert_eq!(server.accepted(), 0, "{}", world.logs());
    });
}

/// Removes every TAP message of a kind from its segment.
fn strip(lab: &Lab, kind: Kind) -> Relay {
    Relay::start(lab, move |packet| {
        if kind_of(packet) != Some(kind) {
            return Fate::Pass;
        }
        let mut stripped = packet.to_vec();
        edit::strip_payload(&mut stripped, 0).unwrap();
        Fate::Replace(vec![stripped])
    })
    .unwrap()
}

#[test]
fn a_syn_changed_on_its_way_opens_nothing() {
    notices_changes(Kind::Syn, &[Reach::Silent]);
}

#[test]
fn a_syn_ack_changed_on_its_way_opens_nothing() {
    notices_changes(Kind::SynAck, &[Reach::Silent]);
}

#[test]
fn a_proof_changed_on_its_way_opens_nothing() {
    notices_changes(Kind::Ack, &[Reach::Mute]);
}

/// Flips one bit of every message of a kind, another one for each connection, over the whole header.
///
/// A receiver that holds the token which the header names does not read the attached bytes.
fn notices_changes(kind: Kind, allowed: &[Reach]) {
    const CONNECTIONS: usize = 48;
    /// A SYN without a MAC may carry a cookie here, which nobody asked for and nobody reads.
    const COOKIE: Range<usize> = 40..56;
    by_each_disturbed(|world| {
        // Both nodes know each other: a message attaches its token or only names it, and carries a MAC.
        let before = Server::echo(&world.server.namespace, PORT).unwrap();
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.logs());
        drop(before);
        // By the client's port: which byte was changed, and whether a connection came of it.
        let changed: Arc<Mutex<BTreeMap<u16, usize>>> = Arc::default();
        let opened: Arc<Mutex<Vec<u16>>> = Arc::default();
        let (changes, ports) = (Arc::clone(&changed), Arc::clone(&opened));
        let _server = Server::start(&world.server.namespace, PORT, move |stream| {
            ports.lock().unwrap().push(stream.peer_addr().unwrap().port());
        })
        .unwrap();
        let _relay = Relay::start(&world.lab, move |packet| {
            if kind_of(packet) != Some(kind) {
                return Fate::Pass;
            }
            let segment = Segment::parse(packet).unwrap();
            let port = if segment.dst_port == PORT { segment.src_port } else { segment.dst_port };
            let mut payload = payload_of(packet);
            let mut changes = changes.lock().unwrap();
            let number = changes.len();
            let mut at = (number * tap::HEADER_LEN / CONNECTIONS) % payload.len();
            if kind == Kind::Syn && COOKIE.contains(&at) {
                at = COOKIE.end;
            }
            let at = *changes.entry(port).or_insert(at);
            payload[at] ^= 1 << (at % 8);
            let mut forged = packet.to_vec();
            edit::replace_payload(&mut forged, &payload).unwrap();
            Fate::Replace(vec![forged])
        })
        .unwrap();
        let to = world.server.at(Family::V4, PORT);
        let seen: Vec<_> = thread::scope(|scope| {
            let probes: Vec<_> = (0..CONNECTIONS)
                .map(|_| scope.spawn(|| probe(&world.client.namespace, to, PROMPT).unwrap()))
                .collect();
            probes.into_iter().map(|probe| probe.join().unwrap()).collect()
        });
        let changed = changed.lock().unwrap();
        let opened: Vec<_> = opened.lock().unwrap().iter().map(|port| changed.get(port).copied()).collect();
        assert_eq!(
            opened,
            Vec::new(),
            "changed bytes that opened a connection all the same\n{}",
            world.logs()
        );
        let odd: Vec<_> = seen.iter().filter(|reach| !allowed.contains(reach)).collect();
        assert_eq!(odd, Vec::<&Reach>::new(), "{}", world.logs());
        assert!(changed.len() >= CONNECTIONS);
    });
}
