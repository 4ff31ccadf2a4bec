//! What passes whatever the policy says, and what never does.

use trireme_datapath::{EngineConfig, Essential, PuSpec};
use trireme_flow::Reason;
use trireme_identity::Protocol;
use trireme_policy::PuPolicy;
use trireme_wire::build;

use crate::support::*;

fn closed() -> Pair {
    let spec = |slot, id| spec(slot, id, &[], &PuPolicy::deny_all());
    Pair::with(EngineConfig::default(), spec(CLIENT, "client"), spec(SERVER, "server"))
}

fn icmpv6(icmp_type: u8, hop_limit: u8) -> Vec<u8> {
    let mut packet =
        build::udp(Endpoint::new(ip("fe80::1"), 1), Endpoint::new(ip("ff02::1"), 1), hop_limit, &[0; 16])
            .unwrap();
    packet[6] = Protocol::ICMPV6.0;
    packet[40..44].copy_from_slice(&[icmp_type, 0, 0, 0]);
    packet
}

#[test]
fn neighbour_discovery_passes_where_no_router_carried_it() {
    let mut pair = closed();
    for (icmp_type, hop_limit) in [(133, 255), (135, 255), (136, 255), (130, 1), (131, 1), (132, 1), (143, 1)]
    {
        let packet = icmpv6(icmp_type, hop_limit);
        assert_eq!(pair.server_gets(&packet).got(), packet, "{icmp_type}");
        assert_eq!(pair.server_sends(&packet).sent(), packet, "{icmp_type}");
        let carried = icmpv6(icmp_type, hop_limit - 1);
        assert_eq!(pair.server_gets(&carried).silence(), Reason::NetworkAcl, "{icmp_type}");
    }
    assert!(pair.server.table.is_empty());
}

#[test]
fn only_routers_send_advertisements_and_redirects() {
    let mut pair = closed();
    for icmp_type in [134, 137] {
        let packet = icmpv6(icmp_type, 255);
        assert_eq!(pair.server_gets(&packet).got(), packet);
        assert_eq!(pair.server_sends(&packet).silence(), Reason::RouterSpoof);
    }
    let redirect = raw(Protocol::ICMP, Way::Back, &[5, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(pair.server_sends(&redirect).silence(), Reason::RouterSpoof);
    assert_eq!(pair.server.records.last().unwrap().protocol, Protocol::ICMP);
}

#[test]
fn group_reports_pass_on_their_link() {
    let mut pair = closed();
    let report = |ttl: u8, dst: [u8; 4]| {
        let mut packet = raw(Protocol::IGMP, Way::Back, &[0x16, 0, 0, 0, 224, 0, 0, 251]);
        packet[8] = ttl;
        packet[16..20].copy_from_slice(&dst);
        packet
    };
    let good = report(1, [224, 0, 0, 251]);
    assert_eq!(pair.server_sends(&good).sent(), good);
    for bad in [report(2, [224, 0, 0, 251]), report(1, [10, 0, 0, 1])] {
        assert_eq!(pair.server_sends(&bad).silence(), Reason::ProtocolDenied);
    }
}

#[test]
fn a_unit_reaches_itself_and_gets_an_address_where_the_settings_say_so() {
    let own = udp(server_end(), Endpoint::new(server_end().addr, 9), b"self");
    let lease = udp(Endpoint::new(ip("0.0.0.0"), 68), Endpoint::new(ip("255.255.255.255"), 67), b"discover");
    let server = |to_itself, dhcp| {
        let mut server: PuSpec = spec(SERVER, "server", &[], &PuPolicy::deny_all());
        (server.settings.to_itself, server.settings.dhcp) = (to_itself, dhcp);
        Pair::with(EngineConfig::default(), client_spec(), server)
    };
    let mut pair = server(Essential::Judged, Essential::Judged);
    assert_eq!(pair.server_sends(&own).silence(), Reason::PolicyNoEgress);
    assert_eq!(pair.server_sends(&lease).silence(), Reason::ApplicationAcl);
    let mut pair = server(Essential::Passes, Essential::Judged);
    assert_eq!((pair.server_sends(&own).sent(), pair.server_gets(&own).got()), (own.clone(), own.clone()));
    assert_eq!(pair.server_sends(&lease).silence(), Reason::ApplicationAcl);
    let mut pair = server(Essential::Judged, Essential::Passes);
    assert_eq!(pair.server_sends(&lease).sent(), lease);
    assert_eq!(pair.server_sends(&own).silence(), Reason::PolicyNoEgress);
    let served = udp(Endpoint::new(server_end().addr, 67), Endpoint::new(client_end().addr, 68), b"offer");
    assert_eq!(pair.server_sends(&served).silence(), Reason::PolicyNoEgress, "a client's end only");
}
