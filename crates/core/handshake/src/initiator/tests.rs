use trireme_identity::Protocol;
use trireme_token::{AgreementKey, Nonce, PairKeys, PairMode, Role, TokenId, pair_keys};
use trireme_wire::tap::{Attested, Header};

use super::*;
use crate::message;

const ISN: u32 = u32::MAX;
const PAYLOAD: usize = 300;
const OWN: Sender = Sender { token: TokenId([1; 16]), nonce: Nonce([2; 16]) };
const PEER: Sender = Sender { token: TokenId([3; 16]), nonce: Nonce([4; 16]) };
const ENDPOINT: Attested =
    Attested { protocol: Protocol::TCP, port: 80, addr: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

fn keys() -> PairKeys {
    let own = AgreementKey::from_bytes([5; 32]).unwrap();
    let peer = AgreementKey::from_bytes([6; 32]).unwrap();
    pair_keys(&own, &peer.public(), Role::Initiator, PairMode::Pki).unwrap()
}

fn header(payload: &[u8]) -> Header {
    Header::parse(payload).unwrap()
}

fn syn_ack_from(peer: Sender, to: Sender) -> Header {
    header(&message::syn_ack(peer, ENDPOINT, &keys().responder, to, None).unwrap())
}

fn sent() -> SynSent {
    let mut sent = SynSent::new(ISN, OWN, LastResort::Plain);
    sent.note_payload(PAYLOAD);
    sent
}

fn proving() -> Initiator {
    let mut state = Initiator::SynSent(sent());
    let (keys, header) = (keys(), syn_ack_from(PEER, OWN));
    let input =
        Input::SynAck { ack: 0, message: Some(Message { header: &header, keys: &keys, own: OWN.token }) };
    let Output::Authorize(authenticated) = state.handle(input) else { panic!("kind 2 is right") };
    assert_eq!(state.accept(authenticated), Accepted::Yes);
    state
}

fn admitted() -> Initiator {
    let mut state = Initiator::PlainSent(PlainSent::new(ISN));
    assert_eq!(state.accept_address(), Accepted::Yes);
    state
}

fn name(state: &Initiator) -> &'static str {
    match state {
        Initiator::SynSent(_) => "SynSent",
        Initiator::PlainSent(_) => "PlainSent",
        Initiator::Proving(_) => "Proving",
        Initiator::AddressAdmitted(_) => "AddressAdmitted",
    }
}

fn told(output: &Output) -> String {
    match output {
        Output::Identify(attach) => format!("Identify {attach:?}"),
        Output::Pass => "Pass".into(),
        Output::PassBare => "PassBare".into(),
        Output::FallBack => "FallBack".into(),
        Output::Authorize(_) => "Authorize".into(),
        Output::AuthorizeAddress => "AuthorizeAddress".into(),
        Output::AuthorizeReset(_) => "AuthorizeReset".into(),
        Output::AuthorizeAddressReset => "AuthorizeAddressReset".into(),
        Output::AttachProof(_) => "AttachProof".into(),
        Output::ProofFirst(_) => "ProofFirst".into(),
        Output::ProveAgain(_) => "ProveAgain".into(),
        Output::Confirmed => "Confirmed".into(),
        Output::Report(refusal) => format!("Report {:?}", refusal.verified),
        Output::Resend(cookie) => format!("Resend {}", cookie.is_some()),
        Output::Consume => "Consume".into(),
        Output::Drop(fault) => format!("Drop {fault:?}"),
    }
}

/// Every input with what each state makes of it, in the order SynSent, PlainSent, Proving, AddressAdmitted.
/// A state that changes is named behind an arrow.
#[test]
#[expect(clippy::too_many_lines, reason = "one table over all pairs")]
fn every_state_answers_every_input() {
    let keys = keys();
    let right = syn_ack_from(PEER, OWN);
    let other_nonce = syn_ack_from(Sender { nonce: Nonce([9; 16]), ..PEER }, OWN);
    let replayed = syn_ack_from(PEER, Sender { nonce: Nonce([8; 16]), ..OWN });
    let mut bare = right;
    (bare.flags, bare.mac) = (trireme_wire::tap::Flags::NONE, [0; 16]);
    let wrong_kind = header(&message::ack(Protocol::TCP, PEER, &keys.responder, OWN).unwrap());
    let refusal =
        header(&message::refusal(Protocol::TCP, PEER.token, Some(&keys.responder), OWN, 400, 1).unwrap());
    let bare_refusal = header(&message::refusal(Protocol::TCP, PEER.token, None, OWN, 0, 0).unwrap());
    let blind_refusal = header(
        &message::refusal(Protocol::TCP, PEER.token, None, Sender { nonce: Nonce([7; 16]), ..OWN }, 0, 0)
            .unwrap(),
    );
    let forged_refusal = Header { mac: [1; 16], ..refusal };
    let request =
        header(&message::token_request(Protocol::TCP, PEER.token, OWN.nonce, message::Seal::Open).unwrap());
    let cookie = header(
        &message::token_request(Protocol::TCP, PEER.token, OWN.nonce, message::Seal::Cookie([1; 16]))
            .unwrap(),
    );
    let blind_request = header(
        &message::token_request(Protocol::TCP, PEER.token, Nonce([7; 16]), message::Seal::Open).unwrap(),
    );

    let said = |header| Some(Message { header, keys: &keys, own: OWN.token });
    let syn_ack = |header| Input::SynAck { ack: 0, message: said(header) };
    let beyond = ISN.wrapping_add(1).wrapping_add(u32::try_from(PAYLOAD).unwrap());
    let confirmation = header(&message::ack(Protocol::UDP, PEER, &keys.responder, OWN).unwrap());
    let forged = header(&message::ack(Protocol::UDP, PEER, &keys.initiator, OWN).unwrap());
    let stranger = Sender { nonce: Nonce([9; 16]), ..PEER };
    let elsewhere = header(&message::ack(Protocol::UDP, stranger, &keys.responder, OWN).unwrap());
    let confirmed = |header| Input::Confirmation(Message { header, keys: &keys, own: OWN.token });
    let stray = "Drop Stray";
    let table: [(Input<'_>, [&str; 4]); 37] = [
        (Input::Syn, ["Identify Full", "Pass", "Identify Full -> SynSent", "Pass -> PlainSent"]),
        (Input::Ack { seq: 0 }, [stray, stray, "AttachProof", "Pass"]),
        (Input::Ack { seq: 9 }, [stray, stray, "ProofFirst", "Pass"]),
        (Input::Data { seq: 0 }, [stray, stray, "ProofFirst", "Pass"]),
        (Input::Data { seq: 9 }, [stray, stray, "Pass", "Pass"]),
        (Input::Reset, ["Pass", "Pass", "Pass", "Pass"]),
        (syn_ack(&right), ["Authorize", "Drop Unexpected", "Pass", "Drop Unexpected"]),
        (syn_ack(&other_nonce), ["Authorize", "Drop Unexpected", "Drop NonceMismatch", "Drop Unexpected"]),
        (syn_ack(&replayed), ["Drop MacInvalid", "Drop Unexpected", "Drop MacInvalid", "Drop Unexpected"]),
        (syn_ack(&bare), ["Drop MacMissing", "Drop Unexpected", "Drop MacMissing", "Drop Unexpected"]),
        (syn_ack(&wrong_kind), ["Drop Unexpected", "Drop Unexpected", "Drop Unexpected", "Drop Unexpected"]),
        (
            Input::SynAck { ack: 5, message: said(&right) },
            [stray, "Drop Unexpected", stray, "Drop Unexpected"],
        ),
        (
            Input::SynAck { ack: 0, message: None },
            ["AuthorizeAddress", "AuthorizeAddress", "Drop IdentityStripped", "Pass"],
        ),
        (Input::SynAck { ack: beyond, message: None }, ["Drop BeyondSyn", stray, "Drop BeyondSyn", "Pass"]),
        (Input::SynAck { ack: 5, message: None }, [stray, stray, stray, "Pass"]),
        (
            Input::PeerReset { ack: Some(0), message: said(&right) },
            ["AuthorizeReset", "Drop Unexpected", "Confirmed", "Pass"],
        ),
        (
            Input::PeerReset { ack: Some(0), message: said(&replayed) },
            ["Drop MacInvalid", "Drop Unexpected", "Confirmed", "Pass"],
        ),
        (
            Input::PeerReset { ack: Some(0), message: None },
            ["AuthorizeAddressReset", "AuthorizeAddressReset", "Confirmed", "Pass"],
        ),
        (
            Input::PeerReset { ack: Some(beyond), message: None },
            ["AuthorizeAddressReset", "Drop ResetUnproven", "Confirmed", "Pass"],
        ),
        (
            Input::PeerReset { ack: Some(beyond), message: said(&right) },
            ["Drop ResetUnproven", "Drop Unexpected", "Confirmed", "Pass"],
        ),
        (
            Input::PeerReset { ack: Some(5), message: None },
            ["Drop ResetUnproven", "Drop ResetUnproven", "Confirmed", "Pass"],
        ),
        (
            Input::PeerReset { ack: None, message: None },
            ["Drop ResetUnproven", "Drop ResetUnproven", "Confirmed", "Pass"],
        ),
        (Input::PeerAck { ack: 0 }, [stray, stray, "Confirmed", "Pass"]),
        (Input::PeerAck { ack: 77 }, ["PassBare", "PassBare", "Confirmed", "Pass"]),
        (Input::PeerData { ack: 0 }, [stray, stray, "Confirmed", "Pass"]),
        (Input::PeerData { ack: 77 }, ["PassBare", "PassBare", "Confirmed", "Pass"]),
        (Input::PeerSyn, ["Drop SimultaneousOpen", "Drop SimultaneousOpen", "Pass", "Pass"]),
        (
            Input::Refusal { header: &refusal, keys: Some(&keys), own: OWN.token },
            ["Report Yes", "Drop Unexpected", "Consume", "Pass"],
        ),
        (
            Input::Refusal { header: &forged_refusal, keys: Some(&keys), own: OWN.token },
            ["Drop MacInvalid", "Drop Unexpected", "Consume", "Pass"],
        ),
        (
            Input::Refusal { header: &bare_refusal, keys: None, own: OWN.token },
            ["Report No", "Drop Unexpected", "Consume", "Pass"],
        ),
        (
            Input::Refusal { header: &blind_refusal, keys: None, own: OWN.token },
            ["Drop NonceMismatch", "Drop Unexpected", "Confirmed", "Pass"],
        ),
        (confirmed(&confirmation), ["Drop Unexpected", "Drop Unexpected", "Confirmed", "Drop Unexpected"]),
        (confirmed(&forged), ["Drop Unexpected", "Drop Unexpected", "Drop MacInvalid", "Drop Unexpected"]),
        (
            confirmed(&elsewhere),
            ["Drop Unexpected", "Drop Unexpected", "Drop NonceMismatch", "Drop Unexpected"],
        ),
        (confirmed(&right), ["Drop Unexpected", "Drop Unexpected", "Drop Unexpected", "Drop Unexpected"]),
        (Input::TokenRequest { header: &request }, ["Resend false", "Drop Unexpected", "Consume", "Pass"]),
        (
            Input::TokenRequest { header: &blind_request },
            ["Drop NonceMismatch", "Drop Unexpected", "Confirmed", "Pass"],
        ),
    ];
    let states =
        [Initiator::SynSent(sent()), Initiator::PlainSent(PlainSent::new(ISN)), proving(), admitted()];
    for (input, expected) in &table {
        for (before, expected) in states.iter().zip(expected) {
            let mut state = before.clone();
            let output = told(&state.handle(*input));
            let seen =
                if name(&state) == name(before) { output } else { format!("{output} -> {}", name(&state)) };
            assert_eq!(seen, *expected, "{} and {input:?}", name(before));
        }
    }
    let mut state = Initiator::SynSent(sent());
    assert_eq!(state.handle(Input::TokenRequest { header: &cookie }), Output::Resend(Some([1; 16])));
    assert_eq!(state.handle(Input::TokenRequest { header: &request }), Output::Consume);
}

#[test]
fn a_refusal_is_reported_once_and_changes_nothing_else() {
    let keys = keys();
    let refusal =
        header(&message::refusal(Protocol::TCP, PEER.token, Some(&keys.responder), OWN, 400, 7).unwrap());
    let input = Input::Refusal { header: &refusal, keys: Some(&keys), own: OWN.token };
    let mut state = Initiator::SynSent(sent());
    let report = PeerRefusal { peer: PEER.token, reason: 400, rule: 7, verified: Verified::Yes };
    assert_eq!(state.handle(input), Output::Report(report));
    assert_eq!(state.handle(input), Output::Consume);
    let answer = syn_ack_from(PEER, OWN);
    let input =
        Input::SynAck { ack: 0, message: Some(Message { header: &answer, keys: &keys, own: OWN.token }) };
    assert!(matches!(state.handle(input), Output::Authorize(_)));
}

#[test]
fn the_third_retransmission_falls_back_unless_identity_is_a_must() {
    let mut lenient = Initiator::SynSent(sent());
    let mut strict = Initiator::SynSent(SynSent::new(ISN, OWN, LastResort::Never));
    for retransmission in 1..=5 {
        let plain = retransmission >= 3 && retransmission % 2 == 1;
        let expected = if plain { Output::FallBack } else { Output::Identify(Attach::Full) };
        assert_eq!(lenient.handle(Input::Syn), expected, "{retransmission}");
        assert_eq!(strict.handle(Input::Syn), Output::Identify(Attach::Full));
    }
}

#[test]
fn only_a_waiting_handshake_can_be_accepted() {
    let Initiator::Proving(state) = proving() else { panic!("accepted") };
    let authenticated =
        Authenticated { peer: PEER, own: OWN.token, endpoint: ENDPOINT, proof: state.proof().clone() };
    for mut state in [Initiator::PlainSent(PlainSent::new(ISN)), proving(), admitted()] {
        let before = state.clone();
        assert_eq!(state.accept(authenticated.clone()), Accepted::No);
        assert_eq!(state, before);
    }
    for mut state in [proving(), admitted()] {
        assert_eq!(state.accept_address(), Accepted::No);
    }
}

#[test]
fn the_proof_answers_the_responders_nonce_at_the_first_sequence_number() {
    let Initiator::Proving(state) = proving() else { panic!("accepted") };
    let proof = state.proof();
    let header = header(&proof.payload);
    assert_eq!((proof.seq, proof.mac, message::sender(&header)), (0, header.mac, OWN));
    assert_eq!(message::check_mac(&header, &keys().initiator, PEER), Ok(()));
}

#[test]
fn the_proof_is_repeated_only_for_a_unit_that_took_the_syn_ack() {
    let (keys, header) = (keys(), syn_ack_from(PEER, OWN));
    let again =
        Input::SynAck { ack: 0, message: Some(Message { header: &header, keys: &keys, own: OWN.token }) };
    let mut state = proving();
    assert_eq!(state.handle(again), Output::Pass);
    assert!(matches!(state.handle(Input::Ack { seq: 0 }), Output::AttachProof(_)));
    assert!(matches!(state.handle(again), Output::ProveAgain(_)));
}

#[test]
fn a_syn_ack_may_answer_either_of_two_tokens_and_the_proof_is_made_with_that_one() {
    let second = Sender { token: TokenId([8; 16]), ..OWN };
    let keys = keys();
    for answered in [OWN, second] {
        let mut sent = sent();
        sent.show(second.token);
        let mut state = Initiator::SynSent(sent);
        let header = syn_ack_from(PEER, answered);
        let message = Message { header: &header, keys: &keys, own: answered.token };
        let Output::Authorize(authenticated) = state.handle(Input::SynAck { ack: 0, message: Some(message) })
        else {
            panic!("the MAC is right")
        };
        assert_eq!(self::header(&authenticated.proof.payload).token_id, answered.token.0);
        state.accept(authenticated);
        let Initiator::Proving(proving) = &state else { panic!("it proves") };
        assert_eq!(proving.sent().own(), answered);
    }
}

#[test]
fn a_repeated_syn_ack_may_show_another_token_of_the_responder() {
    let mut state = proving();
    state.handle(Input::Ack { seq: 0 });
    let header = syn_ack_from(Sender { token: TokenId([8; 16]), ..PEER }, OWN);
    let keys = keys();
    let message = Message { header: &header, keys: &keys, own: OWN.token };
    let output = state.handle(Input::SynAck { ack: 0, message: Some(message) });
    assert!(matches!(output, Output::ProveAgain(_)), "{output:?}");
}

#[test]
fn a_proof_is_made_again_from_its_mac() {
    let proof = message::ack(Protocol::TCP, OWN, &keys().initiator, PEER).unwrap();
    assert_eq!(message::ack_again(Protocol::TCP, OWN, header(&proof).mac, PEER), Ok(proof));
}
