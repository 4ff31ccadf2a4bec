//! Peers without TAP, target networks, hostile paths, Fast Open, translation.

use trireme_datapath::{EngineConfig, PuSpec, Strictness};
use trireme_flow::{Action, ConnectionClass, Reason};
use trireme_policy::{FlowPolicy, IpRule, PuPolicy, Ruleset, Service, Services};
use trireme_wire::build::TcpSpec;
use trireme_wire::edit;
use trireme_wire::tap::{self as wire_tap, Body};
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

use crate::support::*;

fn allowing(net: &str) -> Ruleset<IpRule> {
    let services = Services::Only(vec![Service::tcp(80)]);
    Ruleset::Rules(vec![IpRule::new([net.parse().unwrap()], services, FlowPolicy::accept())])
}

fn server_for(net: &str) -> PuSpec {
    let policy = PuPolicy { network_acls: allowing(net), ..frontends_only() };
    spec(SERVER, "server", &["role=backend"], &policy)
}

fn client_for(net: &str) -> PuSpec {
    let policy = PuPolicy { application_acls: allowing(net), ..PuPolicy::unrestricted() };
    spec(CLIENT, "client", &["role=frontend"], &policy)
}

fn strict(mut spec: PuSpec) -> PuSpec {
    spec.settings.strictness = Strictness::StrictIdentity;
    spec
}

#[test]
fn a_syn_without_tap_is_decided_by_the_network_acls() {
    let mut pair = Pair::with(EngineConfig::default(), client_spec(), server_for("10.0.0.0/24"));
    assert_eq!(pair.server_gets(&syn()).got(), syn());
    assert_eq!(pair.server_sends(&syn_ack()).sent(), syn_ack(), "no TAP for a peer that shows none");
    assert!(pair.server.table.is_empty(), "a spoofed address would install nothing");
    let blind = segment(&from_client(next(), 1, Flags::ACK));
    assert_eq!(pair.server_gets(&blind).silence(), Reason::Stray);
    assert_eq!(pair.server_gets(&ack()).got(), ack());
    assert_eq!(pair.server.table[&server_key()].class, ConnectionClass::Address);
    let record = pair.server.records.last().unwrap();
    assert_eq!(
        (record.action, record.reason, record.source.id.as_ref()),
        (Action::Accept, Reason::Downgraded, None)
    );

    let mut pair = Pair::with(EngineConfig::default(), client_spec(), server_for("10.9.0.0/24"));
    assert_eq!(pair.server_gets(&syn()).silence(), Reason::NetworkAcl);
}

#[test]
fn a_syn_ack_without_tap_is_decided_by_the_application_acls() {
    let mut pair = Pair::with(EngineConfig::default(), client_for("10.0.0.2/32"), server_spec());
    pair.client_sends(&syn()).sent();
    assert_eq!(pair.client_gets(&syn_ack()).got(), syn_ack());
    let entry = pair.client.table[&client_key()];
    assert_eq!((entry.class, entry.confirmed), (ConnectionClass::Address, true));
    assert_eq!(pair.client_sends(&ack()).sent(), ack());
    assert_eq!(pair.client.count(CLIENT, Reason::Downgraded), 1);

    let mut pair = Pair::with(EngineConfig::default(), client_for("10.9.0.0/16"), server_spec());
    pair.client_sends(&syn()).sent();
    assert_eq!(pair.client_gets(&syn_ack()).silence(), Reason::ApplicationAcl);
    assert!(pair.client.table.is_empty());
}

#[test]
fn a_closed_port_of_a_peer_without_tap_arrives_as_refused() {
    let mut pair = Pair::with(EngineConfig::default(), client_for("10.0.0.2/32"), server_spec());
    let wire = pair.client_sends(&syn()).sent();
    let len = u32::try_from(payload(&wire).len()).unwrap();
    let reset = segment(&from_server(0, next().wrapping_add(len), Flags(0x14)));
    assert_eq!(pair.client_gets(&reset).got(), segment(&from_server(0, next(), Flags(0x14))));
}

#[test]
fn with_strict_identity_no_identity_means_no_entry() {
    let mut pair =
        Pair::with(EngineConfig::default(), strict(client_for("0.0.0.0/0")), strict(server_for("0.0.0.0/0")));
    assert_eq!(pair.server_gets(&syn()).silence(), Reason::StrictIdentity);
    pair.client_sends(&syn()).sent();
    assert_eq!(pair.client_gets(&syn_ack()).silence(), Reason::StrictIdentity);
}

#[test]
fn outside_the_target_networks_identity_is_never_shown() {
    let internet = Endpoint::new(ip("198.51.100.7"), 80);
    let to = |client: PuSpec| {
        let mut pair = Pair::with(EngineConfig::default(), client, server_spec());
        let syn = segment(&TcpSpec::new(client_end(), internet, 1, 0, Flags::SYN));
        let step = pair.client_sends(&syn);
        (pair, syn, step)
    };
    let (mut pair, syn, step) = to(strict(client_for("198.51.100.0/24")));
    assert_eq!(step.sent(), syn);
    let answer = segment(&TcpSpec::new(internet, client_end(), 9, 2, Flags::SYN_ACK));
    assert_eq!(pair.client_gets(&answer).got(), answer);
    assert_eq!(
        pair.client.records[0].reason,
        Reason::Accepted,
        "no downgrade: nobody expects identity there"
    );
    let (_, _, step) = to(client_for("10.0.0.0/8"));
    assert_eq!(step.silence(), Reason::ApplicationAcl, "refused before anything leaves");
}

#[test]
fn the_third_retransmission_leaves_without_identity_and_is_recorded() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        assert!(wire_tap::is_tap(payload(&pair.client_sends(&syn()).sent())));
    }
    assert_eq!(pair.client_sends(&syn()).sent(), syn());
    assert_eq!(pair.client.count(CLIENT, Reason::PlainFallback), 1);
    assert_eq!(pair.client.records[0].reason, Reason::PlainFallback);

    let mut pair = Pair::with(EngineConfig::default(), strict(client_spec()), server_spec());
    for _ in 0..6 {
        assert!(wire_tap::is_tap(payload(&pair.client_sends(&syn()).sent())));
    }
}

#[test]
fn a_syn_ack_beyond_the_syn_is_dropped_and_the_destination_remembered() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    let len = u32::try_from(payload(&wire).len()).unwrap();
    let beyond = segment(&from_server(SERVER_ISN, next().wrapping_add(len), Flags::SYN_ACK));
    assert_eq!(pair.client_gets(&beyond).silence(), Reason::HostilePath);
    assert_eq!(pair.client_sends(&syn_with(55)).sent(), syn_with(55), "without identity from now on");

    let mut pair = Pair::with(EngineConfig::default(), strict(client_spec()), server_spec());
    pair.client_sends(&syn()).sent();
    assert_eq!(pair.client_gets(&beyond).silence(), Reason::HostilePath);
    assert!(wire_tap::is_tap(payload(&pair.client_sends(&syn_with(55)).sent())));
}

#[test]
fn tcp_md5_and_tcp_ao_never_get_a_payload_towards_unknown_peers() {
    for kind in [19, 29] {
        let options = [kind, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        let signed = segment(&TcpSpec { options: &options, ..from_client(1, 0, Flags::SYN) });
        assert_eq!(Pair::new().client_sends(&signed).sent(), signed);
        let mut pair = Pair::with(EngineConfig::default(), strict(client_spec()), server_spec());
        assert_eq!(pair.client_sends(&signed).silence(), Reason::StrictIdentity);
    }
}

#[test]
fn fast_open_loses_its_option_and_its_data() {
    let cookie = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    let fast = TcpSpec { options: &cookie, payload: b"GET /", ..from_client(CLIENT_ISN, 0, Flags::SYN) };
    let mut pair = Pair::new();
    let wire = pair.client_sends(&segment(&fast)).sent();
    assert!(matches!(tap(&wire).body, Body::Syn { .. }));
    assert!(!wire.windows(5).any(|window| window == b"GET /"));
    let got = pair.server_gets(&wire).got();
    let parsed = trireme_wire::tcp::Segment::parse(&got).unwrap();
    assert!(payload(&got).is_empty() && !parsed.options(&got).has_fast_open());
    assert_eq!(pair.client.count(CLIENT, Reason::PayloadFromPu), 1);
}

#[test]
fn a_unit_that_forges_tap_is_stripped_and_recorded() {
    let mut pair = Pair::new();
    let genuine = pair.client_sends(&syn()).sent();
    let forged = with_payload(&syn_with(9), payload(&genuine));
    let wire = pair.client_sends(&forged).sent();
    assert_ne!(tap(&wire).nonce, tap(&genuine).nonce, "the enforcer's own message");
    assert_eq!(pair.client.count(CLIENT, Reason::TapFromPu), 1);

    let mut outside = Pair::with(EngineConfig::default(), client_for("0.0.0.0/0"), server_spec());
    let internet = Endpoint::new(ip("198.51.100.7"), 80);
    let spec =
        TcpSpec { payload: payload(&genuine), ..TcpSpec::new(client_end(), internet, 1, 0, Flags::SYN) };
    assert!(payload(&outside.client_sends(&segment(&spec)).sent()).is_empty());
}

#[test]
fn simultaneous_open_is_refused() {
    let mut pair = Pair::new();
    pair.client_sends(&syn()).sent();
    let crossing = segment(&from_server(1, 0, Flags::SYN));
    assert_eq!(pair.client_gets(&crossing).silence(), Reason::SimultaneousOpen);
}

/// The client calls a service address; a router translates to the server and back.
#[test]
fn through_dnat_and_snat_the_attested_end_decides() {
    let service = Endpoint::new(ip("10.96.0.1"), 8080);
    let masked = Endpoint::new(ip("172.16.0.1"), 1025);
    let mut pair = Pair::new();
    let syn = segment(&TcpSpec::new(client_end(), service, CLIENT_ISN, 0, Flags::SYN));
    let mut wire = pair.client_sends(&syn).sent();
    edit::set_destination(&mut wire, server_end()).unwrap();
    edit::set_source(&mut wire, masked).unwrap();
    pair.server_gets(&wire).got();
    let answer = segment(&TcpSpec::new(server_end(), masked, SERVER_ISN, next(), Flags::SYN_ACK));
    let mut wire = pair.server_sends(&answer).sent();
    edit::set_source(&mut wire, service).unwrap();
    edit::set_destination(&mut wire, client_end()).unwrap();
    pair.client_gets(&wire).got();
    let record = &pair.client.records[0];
    assert_eq!((record.destination.port, record.attested), (8080, Some(server_end().into())));
    let ack = segment(&TcpSpec::new(client_end(), service, next(), SERVER_ISN + 1, Flags::ACK));
    let mut wire = pair.client_sends(&ack).sent();
    edit::set_destination(&mut wire, server_end()).unwrap();
    edit::set_source(&mut wire, masked).unwrap();
    pair.server_gets(&wire).got();
    assert_eq!(pair.server.table.len(), 1);
    // The node behind a service address is not known: the next SYN carries the whole token and no MAC.
    let again = pair.client_sends(&segment(&TcpSpec::new(client_end(), service, 5, 0, Flags::SYN))).sent();
    assert!(!tap(&again).has_mac() && tap(&again).flags.contains(wire_tap::Flags::TOKEN));
}
