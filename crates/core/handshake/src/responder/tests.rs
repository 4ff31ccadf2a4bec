use trireme_identity::Protocol;
use trireme_token::{AgreementKey, PairKeys, PairMode, Role, TokenId, pair_keys};
use trireme_wire::tap::Header;

use super::*;
use crate::message;

const ISN: u32 = u32::MAX;
const OWN: Sender = Sender { token: TokenId([1; 16]), nonce: Nonce([2; 16]) };
const PEER: Sender = Sender { token: TokenId([3; 16]), nonce: Nonce([4; 16]) };
const FRESH: Nonce = Nonce([9; 16]);
const SYN_ACK: u32 = 100;

fn keys() -> PairKeys {
    let own = AgreementKey::from_bytes([5; 32]).unwrap();
    let peer = AgreementKey::from_bytes([6; 32]).unwrap();
    pair_keys(&own, &peer.public(), Role::Responder, PairMode::Pki).unwrap()
}

fn proof_to(own: Sender) -> Header {
    Header::parse(&message::ack(Protocol::TCP, PEER, &keys().initiator, own).unwrap()).unwrap()
}

const fn syn_ack(seq: u32) -> Input<'static> {
    Input::SynAck { seq, fresh: FRESH }
}

/// SynReceived, SynAckSent, Proven, AddressSyn, AddressSynAck, AddressAdmitted.
fn states() -> [Responder; 6] {
    let received = Responder::SynReceived(SynReceived::new(ISN, PEER, OWN));
    let mut sent = received.clone();
    assert_eq!(sent.handle(syn_ack(SYN_ACK)), Output::Answer(Attach::IfUnknown));
    let mut proven = sent.clone();
    let (header, keys) = (proof_to(OWN), keys());
    let proof = Input::Proof { seq: 0, ack: SYN_ACK + 1, header: &header, keys: Some(&keys), own: OWN.token };
    assert_eq!(proven.handle(proof), Output::Admit);
    let address = Responder::AddressSyn(AddressSyn::new(ISN));
    let mut answered = address.clone();
    assert_eq!(answered.handle(syn_ack(SYN_ACK)), Output::Pass);
    let mut admitted = answered.clone();
    assert_eq!(admitted.handle(Input::PeerAck { ack: SYN_ACK + 1 }), Output::AdmitAddress);
    [received, sent, proven, address, answered, admitted]
}

const fn name(state: &Responder) -> &'static str {
    match state {
        Responder::SynReceived(_) => "SynReceived",
        Responder::SynAckSent(_) => "SynAckSent",
        Responder::Proven(_) => "Proven",
        Responder::AddressSyn(_) => "AddressSyn",
        Responder::AddressSynAck(_) => "AddressSynAck",
        Responder::AddressAdmitted(_) => "AddressAdmitted",
    }
}

/// Every input with what each state makes of it, in the order of `states`. A state that changes is named behind an arrow.
#[test]
fn every_state_answers_every_input() {
    let keys = keys();
    let right = proof_to(OWN);
    let other_nonce = proof_to(Sender { nonce: FRESH, ..OWN });
    let forged = Header { mac: [7; 16], ..right };
    let other_sender = Header { nonce: [7; 16], ..right };
    let refusal = message::refusal(Protocol::TCP, PEER.token, Some(&keys.initiator), OWN, 1, 1).unwrap();
    let wrong_kind = Header::parse(&refusal).unwrap();
    let proof = |header| Input::Proof { seq: 0, ack: SYN_ACK + 1, header, keys: Some(&keys), own: OWN.token };
    let other = Sender { nonce: FRESH, ..PEER };
    let (pass, stray) = ("Pass", "Drop(Stray)");
    let (nonce, reset) = ("Drop(NonceMismatch)", "Drop(ResetUnproven)");
    let admit = "AdmitAddress -> AddressAdmitted";
    let table: [(Input<'_>, [&str; 6]); 21] = [
        (Input::PeerSyn(Some(PEER)), [pass, pass, pass, "Anew", "Anew", pass]),
        (
            Input::PeerSyn(Some(Sender { token: TokenId([8; 16]), ..PEER })),
            ["AnotherToken", "AnotherToken", pass, "Anew", "Anew", pass],
        ),
        (Input::PeerSyn(Some(other)), [nonce, nonce, nonce, "Anew", "Anew", pass]),
        (Input::PeerSyn(None), [pass; 6]),
        (
            syn_ack(SYN_ACK),
            [
                "Answer(IfUnknown) -> SynAckSent",
                "Answer(Full)",
                "Answer(Full)",
                "Pass -> AddressSynAck",
                pass,
                pass,
            ],
        ),
        (
            syn_ack(555),
            [
                "Answer(IfUnknown) -> SynAckSent",
                "Answer(Full)",
                "AnswerAnew -> SynAckSent",
                "Pass -> AddressSynAck",
                pass,
                "PassAnew -> AddressSynAck",
            ],
        ),
        (Input::Reset, ["Attest", pass, pass, pass, pass, pass]),
        (Input::Segment, [stray, stray, pass, stray, pass, pass]),
        (proof(&right), [stray, "Admit -> Proven", "Duplicate", stray, admit, pass]),
        (proof(&other_nonce), [stray, nonce, pass, stray, admit, pass]),
        (proof(&other_sender), [stray, nonce, "Duplicate", stray, admit, pass]),
        (proof(&forged), [stray, "Drop(MacInvalid)", pass, stray, admit, pass]),
        (proof(&wrong_kind), [stray, "Drop(Unexpected)", pass, stray, admit, pass]),
        (
            Input::Proof { seq: 1, ack: SYN_ACK + 1, header: &right, keys: Some(&keys), own: OWN.token },
            [stray, stray, pass, stray, admit, pass],
        ),
        (
            Input::Proof { seq: 0, ack: 7, header: &right, keys: None, own: OWN.token },
            [stray, "Drop(MacMissing)", "Duplicate", stray, stray, pass],
        ),
        (Input::PeerAck { ack: SYN_ACK + 1 }, [stray, "Drop(ProofMissing)", pass, stray, admit, pass]),
        (Input::PeerAck { ack: 7 }, [stray, "Drop(ProofMissing)", pass, stray, stray, pass]),
        (Input::PeerData { ack: SYN_ACK + 1 }, [stray, "Hold", pass, stray, admit, pass]),
        (Input::PeerData { ack: 7 }, [stray, "Hold", pass, stray, stray, pass]),
        (Input::PeerReset { seq: 0 }, [pass; 6]),
        (Input::PeerReset { seq: 9 }, [reset, reset, pass, reset, reset, pass]),
    ];
    for (input, expected) in &table {
        for (before, expected) in states().iter().zip(expected) {
            let mut state = before.clone();
            let output = format!("{:?}", state.handle(*input));
            let seen =
                if name(&state) == name(before) { output } else { format!("{output} -> {}", name(&state)) };
            assert_eq!(seen, *expected, "{} and {input:?}", name(before));
        }
    }
}

#[test]
fn a_new_connection_of_the_unit_never_meets_the_nonce_of_an_old_proof() {
    let [_, _, mut proven, ..] = states();
    assert_eq!(proven.handle(syn_ack(555)), Output::AnswerAnew);
    assert_eq!(proven.syn().map(|syn| syn.own().nonce), Some(FRESH));
    let (header, keys) = (proof_to(OWN), keys());
    let replay = Input::Proof { seq: 0, ack: 556, header: &header, keys: Some(&keys), own: OWN.token };
    assert_eq!(proven.handle(replay), Output::Drop(Fault::NonceMismatch));
    let header = proof_to(Sender { nonce: FRESH, ..OWN });
    let proof = Input::Proof { seq: 0, ack: 556, header: &header, keys: Some(&keys), own: OWN.token };
    assert_eq!(proven.handle(proof), Output::Admit);
}

#[test]
fn all_syn_acks_for_one_syn_share_the_nonce() {
    let [mut received, ..] = states();
    for seq in [1, 2, 3] {
        received.handle(syn_ack(seq));
        assert_eq!(received.syn().map(SynReceived::own), Some(OWN));
    }
}

#[test]
fn an_address_is_shown_by_an_answer_to_one_of_the_last_two_syn_acks() {
    let [.., answered, _] = states();
    let mut again = answered.clone();
    again.handle(syn_ack(200));
    for ack in [SYN_ACK + 1, 201] {
        assert_eq!(again.clone().handle(Input::PeerAck { ack }), Output::AdmitAddress);
    }
    again.handle(syn_ack(300));
    assert_eq!(again.handle(Input::PeerAck { ack: SYN_ACK + 1 }), Output::Drop(Fault::Stray));
}

#[test]
fn a_proof_for_either_of_two_tokens_with_one_nonce_is_accepted() {
    let [_, mut sent, ..] = states();
    let second = Sender { token: TokenId([8; 16]), ..PEER };
    sent.show_peer(second.token);
    sent.show_peer(second.token);
    assert_eq!(sent.handle(Input::PeerSyn(Some(second))), Output::Pass);
    for peer in [PEER, second] {
        let header =
            Header::parse(&message::ack(Protocol::TCP, peer, &keys().initiator, OWN).unwrap()).unwrap();
        let proof =
            Input::Proof { seq: 0, ack: SYN_ACK + 1, header: &header, keys: Some(&keys()), own: OWN.token };
        assert_eq!(sent.clone().handle(proof), Output::Admit, "{peer:?}");
    }
    let stranger = Sender { token: TokenId([7; 16]), ..PEER };
    let header =
        Header::parse(&message::ack(Protocol::TCP, stranger, &keys().initiator, OWN).unwrap()).unwrap();
    let proof =
        Input::Proof { seq: 0, ack: SYN_ACK + 1, header: &header, keys: Some(&keys()), own: OWN.token };
    assert_eq!(sent.handle(proof), Output::Drop(Fault::NonceMismatch));
}

#[test]
fn a_proof_may_answer_either_of_two_tokens_of_ours() {
    let [_, mut sent, ..] = states();
    let second = Sender { token: TokenId([8; 16]), ..OWN };
    sent.show(second.token);
    for own in [OWN, second] {
        let header = proof_to(own);
        let keys = keys();
        let proof =
            |own: TokenId| Input::Proof { seq: 0, ack: SYN_ACK + 1, header: &header, keys: Some(&keys), own };
        assert_eq!(sent.clone().handle(proof(own.token)), Output::Admit);
        assert_eq!(sent.clone().handle(proof(TokenId([7; 16]))), Output::Drop(Fault::MacInvalid));
    }
}
