//! Fragments follow the decision about the first one.

use std::time::Duration;

use trireme_datapath::{EngineConfig, PuSpec};
use trireme_flow::Reason;
use trireme_policy::{FlowPolicy, IpRule, PuPolicy, Ruleset, Service, Services};
use trireme_wire::build::{self, Unreachable};

use crate::support::*;

fn server() -> PuSpec {
    let services = Services::Only(vec![Service::udp(80)]);
    let rule = IpRule::new(["10.0.0.0/24".parse().unwrap()], services, FlowPolicy::accept());
    let policy = PuPolicy { network_acls: Ruleset::Rules(vec![rule]), ..PuPolicy::deny_all() };
    spec(SERVER, "server", &[], &policy)
}

fn pair() -> Pair {
    Pair::with(EngineConfig::default(), client_spec(), server())
}

/// The fragments of a datagram to this port, each with 1,000 bytes.
fn fragments(port: u16, id: u16, len: usize) -> Vec<Vec<u8>> {
    let whole = udp(client_end(), Endpoint::new(server_end().addr, port), &vec![7; len]);
    let chunks: Vec<&[u8]> = whole[20..].chunks(1000).collect();
    let last = chunks.len() - 1;
    let fragment = |(index, chunk): (usize, &&[u8])| {
        let mut packet = raw(trireme_identity::Protocol::UDP, Way::Forth, chunk);
        let offset = u16::try_from(index * 1000 / 8).unwrap();
        let more = if index == last { 0 } else { 0x2000 };
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&(offset | more).to_be_bytes());
        packet
    };
    chunks.iter().enumerate().map(fragment).collect()
}

#[test]
fn the_largest_datagram_passes_as_a_whole() {
    let mut pair = pair();
    let all = fragments(80, 7, 65_507);
    for fragment in &all {
        assert_eq!(pair.server_gets(fragment).got(), *fragment);
    }
    assert_eq!((pair.server.stats().fragmented, pair.server.writes.len()), (1, 1));
    assert_eq!(pair.server_gets(&fragments(80, 8, 3000)[0]).got(), fragments(80, 8, 3000)[0]);
    assert_eq!(pair.server.writes.len(), 1, "the flow is known");
}

#[test]
fn later_fragments_share_the_fate_of_the_first() {
    let mut pair = pair();
    let refused = fragments(81, 7, 2000);
    assert_eq!(pair.server_gets(&refused[0]).silence(), Reason::NetworkAcl);
    assert_eq!(pair.server_gets(&refused[1]), Step::default(), "it might yet come");
    pair.wait(Duration::from_millis(250));
    assert_eq!(pair.server.timeout(pair.now), Step::default());
    assert_eq!(pair.server.count(SERVER, Reason::FragmentOrphan), 1);
    // A first fragment to another port must not share what another's ports were allowed.
    let good = fragments(80, 7, 2000);
    pair.server_gets(&good[0]).got();
    pair.server_gets(&refused[0]).silence();
    assert_eq!(pair.server_gets(&good[1]), Step::default());
    assert_eq!(pair.server.stats().fragments_held, 1);
}

#[test]
fn fragments_that_overtake_the_first_wait_for_it() {
    let mut pair = pair();
    let all = fragments(80, 7, 2500);
    assert_eq!(pair.server_gets(&all[2]), Step::default());
    assert_eq!(pair.server_gets(&all[1]), Step::default());
    let step = pair.server_gets(&all[0]);
    assert_eq!(step.unit, [all[0].clone(), all[2].clone(), all[1].clone()]);
    assert_eq!(pair.server.stats().fragments_held, 0);
}

#[test]
fn a_decision_about_fragments_ends_with_time_and_with_the_policy() {
    let mut pair = pair();
    let all = fragments(80, 7, 2500);
    pair.server_gets(&all[0]).got();
    pair.server.upsert(PuSpec { epoch: 2, ..server() }, pair.now);
    assert_eq!(pair.server_gets(&all[1]).silence(), Reason::FragmentOrphan);
    pair.server_gets(&all[0]).got();
    pair.server_gets(&all[1]).got();
    pair.wait(Duration::from_secs(30));
    pair.server.timeout(pair.now);
    assert_eq!(pair.server.stats().fragmented, 0);
    assert_eq!(pair.server_gets(&all[1]), Step::default());
}

#[test]
fn waiting_fragments_are_bounded() {
    let mut pair = pair();
    let all = fragments(80, 7, 65_507);
    for fragment in &all[1..65] {
        assert_eq!(pair.server_gets(fragment), Step::default());
    }
    let mut config = EngineConfig::default();
    config.fragments_held.flow_packets = 2;
    let mut small = Pair::with(config, client_spec(), server());
    small.server_gets(&all[1]);
    small.server_gets(&all[2]);
    assert_eq!(small.server_gets(&all[3]).silence(), Reason::HeldFull);
}

#[test]
fn an_error_about_a_later_fragment_is_about_a_known_flow() {
    let mut pair = pair();
    let all = fragments(80, 7, 2500);
    pair.server_gets(&all[0]).got();
    let mut error = build::icmp_unreachable(&all[0], Unreachable::Port).unwrap();
    // The quote becomes that of the second fragment; its checksum is made right by the unused word.
    let quote = 28;
    let before = error[quote + 6..quote + 8].to_vec();
    error[quote + 6..quote + 8].copy_from_slice(&all[1][6..8]);
    let sum = |word: &[u8]| u32::from(u16::from_be_bytes([word[0], word[1]]));
    let spare = (0xffff + sum(&before) - sum(&all[1][6..8])) % 0xffff;
    error[24..26].copy_from_slice(&u16::try_from(spare).unwrap().to_be_bytes());
    assert_eq!(pair.server_sends(&error).sent(), error);
    error[quote + 4] ^= 1;
    error[24] ^= 1;
    let step = pair.server_sends(&error).dropped;
    assert!(matches!(step, Some(Reason::IcmpUnknown | Reason::BadChecksum)), "{step:?}");
}

#[test]
fn fragments_of_tcp_are_refused() {
    let mut pair = pair();
    let mut first = syn();
    first[6] = 0x20;
    assert_eq!(pair.server_gets(&first).silence(), Reason::Fragment);
    first[6..8].copy_from_slice(&[0, 9]);
    assert_eq!(pair.server_gets(&first).silence(), Reason::Fragment);
}
