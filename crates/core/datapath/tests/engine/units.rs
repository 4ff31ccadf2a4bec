//! Both ends on one node, and a unit that talks to itself.

use trireme_datapath::{EngineConfig, Hook, PuError};
use trireme_policy::PuPolicy;
use trireme_token::Role;
use trireme_wire::build::TcpSpec;
use trireme_wire::tcp::Flags;
use trireme_wire::tuple::Endpoint;

use crate::support::*;

#[test]
fn both_ends_on_one_node_authenticate_each_other() {
    let now = start();
    let mut node = Node::new(EngineConfig::default(), psk_secrets("node-a", KEY), 1);
    node.upsert(client_spec(), now);
    node.upsert(server_spec(), now);
    for isn in [CLIENT_ISN, 77] {
        let wire = node.handle(CLIENT, Hook::FromPu, &syn_with(isn), now).sent();
        assert_eq!(node.handle(SERVER, Hook::ToPu, &wire, now).got(), syn_with(isn));
        let answer = syn_ack_with(SERVER_ISN + isn % 7, isn);
        let wire = node.handle(SERVER, Hook::FromPu, &answer, now).sent();
        assert_eq!(node.handle(CLIENT, Hook::ToPu, &wire, now).got(), answer);
        let ack = segment(&from_client(isn.wrapping_add(1), SERVER_ISN + isn % 7 + 1, Flags::ACK));
        let wire = node.handle(CLIENT, Hook::FromPu, &ack, now).sent();
        assert_eq!(node.handle(SERVER, Hook::ToPu, &wire, now).got(), ack);
    }
    assert_eq!(node.table[&client_key()].role, Role::Initiator);
    assert_eq!(node.table[&server_key()].role, Role::Responder);
}

#[test]
fn a_unit_reaches_itself() {
    let now = start();
    let mut node = Node::new(EngineConfig::default(), psk_secrets("node-a", KEY), 1);
    node.upsert(spec(CLIENT, "client", &["role=frontend"], &frontends_only()), now);
    let (from, to) = (client_end(), Endpoint::new(client_end().addr, 80));
    let segments = [
        segment(&TcpSpec::new(from, to, 1, 0, Flags::SYN)),
        segment(&TcpSpec::new(to, from, 9, 2, Flags::SYN_ACK)),
        segment(&TcpSpec::new(from, to, 2, 10, Flags::ACK)),
    ];
    for bytes in &segments {
        let wire = node.handle(CLIENT, Hook::FromPu, bytes, now).sent();
        assert_eq!(node.handle(CLIENT, Hook::ToPu, &wire, now).got(), *bytes);
    }
    assert_eq!(node.table.len(), 2);
}

#[test]
fn a_unit_whose_token_does_not_fit_is_refused_with_the_longest_tags() {
    let mut node = Node::new(EngineConfig::default(), psk_secrets("node-a", KEY), 1);
    let long = format!("big={}", "x".repeat(500));
    let tags = [long.as_str(), &long.replace("big", "bigger"), &long.replace("big", "biggest")];
    let error = node.engine.upsert_pu(
        spec(CLIENT, "client", &tags, &PuPolicy::unrestricted()),
        start(),
        &mut Vec::new(),
    );
    let Err(PuError::Token { id, source }) = error else { panic!("{error:?}") };
    assert_eq!(id.as_str(), "client");
    assert!(source.to_string().contains("biggest"), "{source}");
}
