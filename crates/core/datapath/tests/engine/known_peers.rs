//! Tokens that the peer holds, MACs on SYNs, roll-over, PKI.

use std::sync::Arc;
use std::time::Duration;

use trireme_datapath::{EngineConfig, KnownTokens, Secrets};
use trireme_flow::Reason;
use trireme_identity::NodeId;
use trireme_policy::PuPolicy;
use trireme_token::authority::{Authority, NodeRequest, Period};
use trireme_token::{Constraints, DenyList, Encoding, SeededRandom, Signer, SigningKey, TrustRoot, Verifier};
use trireme_wire::tap::Flags as TapFlags;

use crate::support::*;

fn has_token(bytes: &[u8]) -> bool {
    tap(bytes).flags.contains(TapFlags::TOKEN)
}

/// Another connection between the two, from another sequence number.
fn again(pair: &mut Pair, isn: u32) -> [Vec<u8>; 2] {
    let syn_wire = pair.client_sends(&syn_with(isn)).sent();
    pair.server_gets(&syn_wire).got();
    let syn_ack_wire = pair.server_sends(&syn_ack_with(SERVER_ISN, isn)).sent();
    assert_eq!(pair.client_gets(&syn_ack_wire).got(), syn_ack_with(SERVER_ISN, isn));
    [syn_wire, syn_ack_wire]
}

#[test]
fn between_known_nodes_first_transmissions_carry_ids_and_macs_only() {
    let mut pair = Pair::new();
    let [syn_wire, syn_ack_wire, _] = pair.connect();
    assert!(has_token(&syn_wire) && has_token(&syn_ack_wire) && !tap(&syn_wire).has_mac());
    let [syn_wire, syn_ack_wire] = again(&mut pair, 1000);
    assert!(!has_token(&syn_wire) && tap(&syn_wire).has_mac());
    assert!(!has_token(&syn_ack_wire) && tap(&syn_ack_wire).has_mac());
    assert!(has_token(&pair.client_sends(&syn_with(1000)).sent()), "retransmissions carry everything");
    assert!(has_token(&pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent()));
}

#[test]
fn tokens_can_be_attached_always() {
    let config = EngineConfig { known_tokens: KnownTokens::Attach, ..EngineConfig::default() };
    let mut pair = Pair::with(config, client_spec(), server_spec());
    pair.connect();
    let [syn_wire, syn_ack_wire] = again(&mut pair, 1000);
    assert!(has_token(&syn_wire) && has_token(&syn_ack_wire));
}

#[test]
fn a_wrong_mac_on_a_syn_never_refuses() {
    let mut pair = Pair::new();
    pair.connect();
    let wire = pair.client_sends(&syn_with(1000)).sent();
    let mut wrong = payload(&wire).to_vec();
    wrong[45] ^= 0x10;
    assert_eq!(pair.server_gets(&with_payload(&wire, &wrong)).got(), syn_with(1000));
    assert!(
        has_token(&pair.server_sends(&syn_ack_with(SERVER_ISN, 1000)).sent()),
        "but shows nothing either"
    );
}

#[test]
fn a_node_that_forgot_the_token_asks_for_it() {
    let mut pair = Pair::new();
    pair.connect();
    let mut fresh = Pair::new();
    let wire = pair.client_sends(&syn_with(1000)).sent();
    let step = fresh.server_gets(&wire);
    assert_eq!(step.dropped, Some(Reason::TokenUnknown));
    let resent = pair.client_gets(&step.network[0]).network.remove(0);
    assert!(has_token(&resent));
    fresh.server_gets(&resent).got();
}

#[test]
fn new_tokens_at_half_life_and_old_ones_still_answer() {
    let mut pair = Pair::new();
    let [first, ..] = pair.connect();
    let early = pair.client_sends(&syn_with(1000)).sent();
    pair.server_gets(&early).got();
    pair.wait(Duration::from_secs(301));
    assert!(pair.client.engine.poll_timeout().unwrap() <= pair.now.monotonic);
    pair.client.timeout(pair.now);
    pair.server.timeout(pair.now);
    let late = pair.client_sends(&syn_with(2000)).sent();
    assert_ne!(tap(&late).token_id, tap(&first).token_id);
    assert!(has_token(&late));
    pair.server_gets(&late).got();
    let answer = pair.server_sends(&syn_ack_with(SERVER_ISN, 2000)).sent();
    assert_eq!(pair.client_gets(&answer).got(), syn_ack_with(SERVER_ISN, 2000));
    assert!(pair.client.engine.poll_timeout().unwrap() > pair.now.monotonic);
}

#[test]
fn a_handshake_begun_before_a_rotation_completes_after_it() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    pair.server_gets(&wire).got();
    pair.wait(Duration::from_secs(301));
    // Only the rotation, not the handshakes' own timeouts.
    pair.client.upsert(client_spec(), pair.now);
    pair.server.upsert(server_spec(), pair.now);
    let answer = pair.server_sends(&syn_ack()).sent();
    pair.client_gets(&answer).got();
    let proof = pair.client_sends(&ack()).sent();
    assert_eq!(pair.server_gets(&proof).got(), ack());
}

#[test]
fn changed_tags_are_in_the_next_token() {
    let mut pair = Pair::new();
    pair.connect();
    let mut changed = spec(CLIENT, "client", &["role=external"], &PuPolicy::unrestricted());
    changed.epoch = 2;
    pair.client.upsert(changed, pair.now);
    let wire = pair.client_sends(&syn_with(1000)).sent();
    assert!(has_token(&wire));
    assert_eq!(pair.server_gets(&wire).silence(), Reason::PolicyIngress);
}

#[test]
fn another_shared_key_is_refused_with_a_reason() {
    let mut pair = Pair::new();
    let mut foreign = Node::new(EngineConfig::default(), psk_secrets("node-a", "uY3fGj6DsA1kPo5ReWvX"), 1);
    foreign.upsert(client_spec(), pair.now);
    let wire = foreign.handle(CLIENT, trireme_datapath::Hook::FromPu, &syn(), pair.now).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::TokenKeyUnknown);
}

#[test]
fn an_expired_token_is_refused() {
    let mut pair = Pair::new();
    let wire = pair.client_sends(&syn()).sent();
    pair.wait(Duration::from_secs(661));
    assert_eq!(pair.server_gets(&wire).silence(), Reason::TokenExpired);
    assert!(pair.server.records[0].explanation.as_deref().unwrap().contains("expired"));
}

struct Pki {
    authority: Authority,
    rng: SeededRandom,
}

impl Pki {
    fn new(seed: u8) -> Self {
        let mut rng = SeededRandom::new([seed; 32]);
        let period = Period { now: start().wall, lifetime_secs: 86_400 };
        let authority =
            Authority::create(&format!("authority {seed}"), &Constraints::Unrestricted, period, &mut rng)
                .unwrap();
        Self { authority, rng }
    }

    fn secrets(&mut self, node: &str, encoding: Encoding) -> Secrets {
        let node: NodeId = node.parse().unwrap();
        let key = SigningKey::generate(&mut self.rng).unwrap();
        let period = Period { now: start().wall, lifetime_secs: 3600 };
        let request = NodeRequest {
            node: node.clone(),
            key: key.public().clone(),
            constraints: Constraints::Unrestricted,
            period,
        };
        let credential = match encoding {
            Encoding::Cwt => self.authority.key_token(&request).unwrap(),
            Encoding::Jwt => self.authority.certify(&request, &mut self.rng).unwrap(),
        };
        let root =
            TrustRoot::from_der("ca", self.authority.certificate_der(), Constraints::Unrestricted).unwrap();
        Secrets {
            signer: Arc::new(Signer::pki(node, key, &credential).unwrap()),
            verifier: Arc::new(Verifier::pki(vec![root])),
            encoding,
        }
    }

    /// A JWT node with a certificate and a CWT node with a key token.
    fn pair(&mut self) -> Pair {
        let mut pair = Pair::new();
        let config = EngineConfig { handshake_mtu: 1500, ..EngineConfig::default() };
        pair.client = Node::new(config.clone(), self.secrets("node-a", Encoding::Jwt), 1);
        pair.server = Node::new(config, self.secrets("node-b", Encoding::Cwt), 2);
        pair.client.upsert(client_spec(), pair.now);
        pair.server.upsert(server_spec(), pair.now);
        pair
    }
}

#[test]
fn with_node_keys_a_jwt_node_and_a_cwt_node_talk() {
    let mut pair = Pki::new(1).pair();
    pair.connect();
    pair.assert_talking();
    assert!(pair.server.records[0].source.tags.to_string().contains("@trust=ca"));
}

#[test]
fn a_foreign_authority_is_refused() {
    let mut pair = Pki::new(1).pair();
    let mut foreign = Pki::new(2).pair();
    let wire = foreign.client_sends(&syn()).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::TokenUntrusted);
}

#[test]
fn revocation_refuses_new_connections_and_cuts_live_ones() {
    let mut pair = Pki::new(1).pair();
    pair.connect();
    let nodes = std::iter::once("node-a".parse().unwrap()).collect();
    pair.server.verifier.set_deny_list(DenyList { nodes, ..DenyList::default() });
    let wire = pair.client_sends(&syn_with(1000)).sent();
    assert_eq!(pair.server_gets(&wire).silence(), Reason::TokenRevoked);
    let mut again = server_spec();
    again.epoch = 2;
    pair.server.upsert(again, pair.now);
    assert_eq!(pair.server_gets(&data(b"x")).silence(), Reason::TokenRevoked);
    assert!(pair.server.table.is_empty());
}

#[test]
fn a_peer_revoked_in_the_middle_of_its_handshake_is_not_admitted() {
    let mut pair = Pki::new(1).pair();
    pair.open();
    let proof = pair.client_sends(&ack()).sent();
    let nodes = std::iter::once("node-a".parse().unwrap()).collect();
    pair.server.verifier.set_deny_list(DenyList { nodes, ..DenyList::default() });
    assert_eq!(pair.server_gets(&proof).silence(), Reason::TokenRevoked);
    assert_eq!((pair.server.table.len(), pair.server.stats().half_open), (0, 0));
}

#[test]
fn other_secrets_in_force_forget_what_the_old_ones_verified() {
    let mut pair = Pair::new();
    pair.connect();
    assert!(pair.server.stats().tokens > 0);
    let secrets = psk_secrets("node-b", "Zc8nBm4QhTy2UiLk7JdF");
    pair.server.verifier = Arc::clone(&secrets.verifier);
    pair.server.engine.set_secrets(secrets, pair.now, &mut Vec::new()).unwrap();
    assert_eq!((pair.server.stats().tokens, pair.server.stats().pair_keys), (0, 0));
    let wire = pair.client_sends(&syn_with(1000)).sent();
    assert_eq!(pair.server_gets(&wire).dropped, Some(Reason::TokenUnknown));
}
