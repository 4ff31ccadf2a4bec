//! Messages between enforcers: kinds 4 and 5, versions, ICMP.

use trireme_datapath::{EngineConfig, NotifyPeer, PuSpec};
use trireme_flow::{Action, BudgetConfig, Reason};
use trireme_handshake::message::{self, Seal, Sender};
use trireme_identity::Protocol;
use trireme_policy::PuPolicy;
use trireme_token::{Nonce, TokenId};
use trireme_wire::build::TcpSpec;
use trireme_wire::tap::{Body, Flags as TapFlags, Header};
use trireme_wire::tcp::{Flags, Segment};

use crate::support::*;

fn telling_server() -> PuSpec {
    let mut server = server_spec();
    server.settings.notify_peer = NotifyPeer::WithReason;
    server
}

fn intruder() -> PuSpec {
    spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted())
}

fn control(payload: &[u8]) -> Vec<u8> {
    segment(&TcpSpec { payload, ..from_server(0, next(), Flags::ACK) })
}

#[test]
fn a_refusal_tells_the_initiators_agent_reason_and_rule_once() {
    let mut pair = Pair::with(EngineConfig::default(), intruder(), telling_server());
    let wire = pair.client_sends(&syn()).sent();
    let step = pair.server_gets(&wire);
    assert_eq!(step.dropped, Some(Reason::PolicyIngress));
    let refusal = &step.network[0];
    let Body::Refusal { echo, reason, .. } = tap(refusal).body else { panic!("kind 4") };
    assert_eq!(
        (echo, reason, tap(refusal).has_mac()),
        (tap(&wire).nonce, Reason::PolicyIngress.code(), true)
    );
    let parsed = Segment::parse(refusal).unwrap();
    assert_eq!((parsed.flags, parsed.ack), (Flags::ACK, next()));

    assert_eq!(pair.client_gets(refusal).silence(), Reason::Consumed);
    assert_eq!(pair.client_gets(refusal).silence(), Reason::Consumed);
    let [record] = pair.client.records.as_slice() else { panic!("{:?}", pair.client.records) };
    assert_eq!((record.action, record.reason), (Action::Reject, Reason::RefusedByPeer));
    assert!(record.explanation.as_deref().unwrap().contains("policy-ingress"));
    assert_eq!(pair.client.count(CLIENT, Reason::RefusedByPeer), 1);
}

#[test]
fn a_refusal_is_silent_by_default() {
    let mut pair = Pair::with(EngineConfig::default(), intruder(), server_spec());
    let wire = pair.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::PolicyIngress);
}

#[test]
fn a_spoofed_refusal_changes_no_state() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    let stranger = |nonce| Sender { token: TokenId(tap(&wire).token_id), nonce: Nonce(nonce) };
    let blind = message::refusal(Protocol::TCP, TokenId([9; 16]), None, stranger([1; 16]), 0, 0).unwrap();
    assert_eq!(pair.client_gets(&control(&blind)).silence(), Reason::NonceMismatch);
    let seeing =
        message::refusal(Protocol::TCP, TokenId([9; 16]), None, stranger(tap(&wire).nonce), 0, 0).unwrap();
    assert_eq!(pair.client_gets(&control(&seeing)).silence(), Reason::Consumed);
    pair.server_gets(&wire).got();
    let answer = pair.server_sends(&syn_ack()).sent();
    assert_eq!(pair.client_gets(&answer).got(), syn_ack());
    let proof = pair.client_sends(&ack()).sent();
    pair.server_gets(&proof).got();
    assert_eq!(pair.client_gets(&control(&seeing)).unit.len(), 1, "a stream that begins with the magic");
    assert_eq!(pair.client.table.len(), 1);
}

#[test]
fn a_refusal_is_never_sent_to_a_syn_without_tap() {
    let mut server = telling_server();
    server.settings.strictness = trireme_datapath::Strictness::StrictIdentity;
    let mut pair = Pair::with(EngineConfig::default(), client_spec(), server);
    assert_eq!(pair.server_gets(&syn()).silence(), Reason::StrictIdentity);
}

#[test]
fn an_unknown_token_id_is_asked_for_and_the_syn_comes_again_with_the_token() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    let mut header = tap(&wire);
    header.flags = TapFlags::NONE;
    let Body::Syn { family, protocol, .. } = header.body else { panic!("kind 1") };
    header.body = Body::Syn { family, protocol, token_len: 0, credential_len: 0 };
    let bare = with_payload(&wire, &header.encode(&[], &[]).unwrap());
    let step = pair.server_gets(&bare);
    assert_eq!(step.dropped, Some(Reason::TokenUnknown));
    let Body::TokenRequest { echo, .. } = tap(&step.network[0]).body else { panic!("kind 5") };
    assert_eq!(echo, header.nonce);

    let again = pair.client_gets(&step.network[0]);
    assert_eq!((again.dropped, again.unit.len()), (Some(Reason::Consumed), 0));
    assert_eq!(again.network, std::slice::from_ref(&wire), "the same SYN, the same nonce, the whole token");
    let more = pair.client_gets(&step.network[0]);
    assert_eq!((more.dropped, more.network.len()), (Some(Reason::Consumed), 0), "one resend per handshake");
    pair.server_gets(&again.network[0]).got();
}

#[test]
fn under_pressure_a_sender_first_returns_a_cookie() {
    let config =
        EngineConfig { verify_total: BudgetConfig { per_second: 1, burst: 1 }, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    let stranger = spec(CLIENT, "stranger", &["role=frontend"], &PuPolicy::unrestricted());
    let mut flood = Pair::with(EngineConfig::default(), stranger, server_spec());
    let wire = flood.client_sends(&syn_with(1)).sent();
    pair.server_gets(&wire).got();

    let wire = pair.client_sends(&syn()).sent();
    let step = pair.server_gets(&wire);
    assert_eq!(step.dropped, Some(Reason::VerifyTotal));
    let request = tap(&step.network[0]);
    assert!(!request.has_mac() && request.mac != [0; 16]);
    let again = pair.client_gets(&step.network[0]).network.remove(0);
    assert_eq!(tap(&again).mac, request.mac, "returned in the MAC field");
    let mut elsewhere = again.clone();
    trireme_wire::edit::set_seq(&mut elsewhere, 5).unwrap();
    assert_eq!(pair.server_gets(&elsewhere).dropped, Some(Reason::VerifyTotal), "bound to the SYN");
    assert_eq!(pair.server_gets(&again).got(), syn());
}

#[test]
fn another_version_is_answered_with_the_own_one_and_never_taken_for_no_tap() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    let mut other = payload(&wire).to_vec();
    other[3] = 2;
    let step = pair.server_gets(&with_payload(&wire, &other));
    assert_eq!((step.dropped, step.unit.len()), (Some(Reason::TapVersion), 0));
    let Body::TokenRequest { echo, .. } = tap(&step.network[0]).body else { panic!("kind 5") };
    assert_eq!(echo, tap(&wire).nonce);
    let mut request = payload(&step.network[0]).to_vec();
    request[3] = 2;
    assert_eq!(pair.client_gets(&control(&request)).silence(), Reason::TapVersion);
}

#[test]
fn token_requests_are_answered_for_the_own_nonce_only() {
    let mut pair = Pair::new();
    pair.client_sends(&syn()).sent();
    let request =
        message::token_request(Protocol::TCP, TokenId([3; 16]), Nonce([4; 16]), Seal::Open).unwrap();
    assert_eq!(pair.client_gets(&control(&request)).silence(), Reason::NonceMismatch);
}

#[test]
fn icmp_errors_of_known_connections_pass_without_tap() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    let error = trireme_wire::build::icmp_admin_prohibited(&wire).unwrap();
    let got = pair.client_gets(&error).got();
    let quoted = trireme_wire::icmp::embedded(&got).unwrap();
    assert_eq!((quoted.tuple.src, quoted.seq), (client_end(), Some(CLIENT_ISN)));
    assert!(!got.windows(3).any(|window| window == b"TAP"));
    let mut corrupt = error.clone();
    *corrupt.last_mut().unwrap() ^= 1;
    assert_eq!(pair.client_gets(&corrupt).silence(), Reason::BadChecksum);
    assert_eq!(Pair::new().client_gets(&error).silence(), Reason::IcmpUnknown);
}

#[test]
fn messages_of_every_kind_fit_their_own_parser() {
    let key = trireme_token::MacKey::from_bytes([1; 16]);
    let peer = Sender { token: TokenId([1; 16]), nonce: Nonce([2; 16]) };
    let refusal = message::refusal(Protocol::TCP, TokenId([5; 16]), Some(&key), peer, 400, 3).unwrap();
    let header = Header::parse(&refusal).unwrap();
    assert_eq!(message::check_mac(&header, &key, peer), Ok(()));
    let Body::Refusal { echo, reason, rule, .. } = header.body else { panic!("kind 4") };
    assert_eq!((echo, reason, rule), ([2; 16], 400, 3));
}
