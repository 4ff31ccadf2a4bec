//! A segment that was damaged on its way stays damaged: nobody's edit may make it look whole.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trireme_testkit::lab::{Family, Fate, Namespace, Reach, Relay, Server, eventually};
use trireme_tests_netns::{
    PATIENT, PORT, World, by_each, by_each_disturbed, echo_megabytes, kind_of, payload_of,
};
use trireme_wire::tap::Kind;
use trireme_wire::tcp::Segment;

/// How many segments a stack threw away for their checksums.
fn bad_checksums(namespace: &Namespace) -> u64 {
    let table = namespace.run("cat", &["/proc/net/snmp"]).unwrap();
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "InCsumErrors").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

/// Flips a bit of the last byte and leaves the checksum as it is.
fn damage(packet: &[u8]) -> Fate {
    let mut damaged = packet.to_vec();
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    Fate::Replace(vec![damaged])
}

/// Flips a bit of the TCP header that no enforcer looks at, the window's, and leaves the checksum as it is.
fn damage_header(packet: &[u8]) -> Fate {
    const WINDOW: usize = 14;
    let mut damaged = packet.to_vec();
    let header = if damaged[0] >> 4 == 4 { usize::from(damaged[0] & 15) * 4 } else { 40 };
    damaged[header + WINDOW] ^= 1;
    Fate::Replace(vec![damaged])
}

#[test]
fn damaged_data_arrives_damaged_and_is_thrown_away_by_the_stacks() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let damaged = Arc::new(AtomicUsize::new(0));
        let (count, mut seen) = (Arc::clone(&damaged), 0);
        let _relay = Relay::start(&world.lab, move |packet| {
            if kind_of(packet).is_some() || payload_of(packet).is_empty() {
                return Fate::Pass;
            }
            seen += 1;
            if seen % 40 != 0 {
                return Fate::Pass;
            }
            count.fetch_add(1, Ordering::Relaxed);
            damage(packet)
        })
        .unwrap();
        let before = [&world.client, &world.server].map(|pu| bad_checksums(&pu.namespace));
        for family in Family::BOTH {
            let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 2);
            assert_eq!(echoed.sent, echoed.received, "{family}\n{}", world.logs());
        }
        let thrown = || {
            let after = [&world.client, &world.server].map(|pu| bad_checksums(&pu.namespace));
            after.iter().zip(before).map(|(after, before)| after - before).sum::<u64>()
        };
        let damaged = || damaged.load(Ordering::Relaxed) as u64;
        // A needless repetition may be on its way still.
        drop(eventually("the last segments", PATIENT, || Ok(thrown() == damaged()), || world.look()));
        assert!(damaged() > 20, "only {} segments were damaged", damaged());
        assert_eq!(thrown(), damaged(), "somebody mended or swallowed damaged segments");
    });
}

#[test]
fn a_damaged_syn_is_not_mended_by_taking_the_identity_off() {
    is_not_mended(Kind::Syn);
}

#[test]
fn a_damaged_syn_ack_is_not_mended_by_taking_the_identity_off() {
    is_not_mended(Kind::SynAck);
}

/// Damages the first message of a kind of every connection: it takes a repetition to connect.
fn is_not_mended(kind: Kind) {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let mut damaged = HashSet::new();
        let _relay = Relay::start(&world.lab, move |packet| {
            if kind_of(packet) != Some(kind) {
                return Fate::Pass;
            }
            let tuple = Segment::parse(packet).unwrap().tuple();
            if damaged.insert(tuple) { damage_header(packet) } else { Fate::Pass }
        })
        .unwrap();
        for family in Family::BOTH {
            assert_is_repeated(world, family);
        }
    });
}

fn assert_is_repeated(world: &World, family: Family) {
    let start = Instant::now();
    let reach = world.client_sees_within(family, Duration::from_secs(10));
    assert_eq!(reach, Reach::Answered, "{family}\n{}", world.look());
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_millis(900), "{family}: a damaged segment was taken, {elapsed:?}");
}

#[test]
fn a_damaged_proof_is_not_mended_and_the_connection_completes_all_the_same() {
    by_each_disturbed(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let proofs = Arc::new(AtomicUsize::new(0));
        let (count, mut damaged) = (Arc::clone(&proofs), HashSet::new());
        let _relay = Relay::start(&world.lab, move |packet| {
            if kind_of(packet) != Some(Kind::Ack) {
                return Fate::Pass;
            }
            count.fetch_add(1, Ordering::Relaxed);
            let tuple = Segment::parse(packet).unwrap().tuple();
            if damaged.insert(tuple) { damage_header(packet) } else { Fate::Pass }
        })
        .unwrap();
        let before = bad_checksums(&world.server.namespace);
        for family in Family::BOTH {
            let reach = world.client_sees_within(family, Duration::from_secs(10));
            assert_eq!(reach, Reach::Answered, "{family}\n{}", world.look());
        }
        // What is left of it is thrown away by the stack, or the whole by the enforcer and comes again.
        let thrown = bad_checksums(&world.server.namespace) - before;
        let repeated = (proofs.load(Ordering::Relaxed) as u64).saturating_sub(2);
        assert!(thrown + repeated >= 2, "a damaged proof was mended: {thrown} thrown, {repeated} repeated");
    });
}
