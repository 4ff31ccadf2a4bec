//! Whom a node believes, and what about.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use trireme_flow::Reason;
use trireme_testkit::lab::{Authority, Credential, Family, Reach, Root, Server, Trust};
use trireme_tests_netns::{PORT, WorldSpec, program};

#[test]
fn a_node_of_a_foreign_authority_is_refused() {
    let mut spec = WorldSpec::new();
    let foreign = Authority::create(&program(), spec.lab.dir(), "foreign").unwrap();
    let keys = foreign.issue("node-a", &[]).unwrap();
    // Node a believes both, so that only node b's judgement counts.
    spec.a.trust = Trust::Pki {
        key: keys.key,
        credential: Credential::Certificate(keys.certificate),
        roots: vec![foreign.root(), spec.authority.root()],
        peers_dir: None,
    };
    let server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world = spec.start();
    for family in Family::BOTH {
        assert_eq!(world.client_sees(family, PORT), Reach::Silent, "{}", world.logs());
    }
    assert_eq!(server.accepted(), 0);
    world.b.await_refusal(Reason::TokenUntrusted).unwrap();
}

#[test]
fn a_claim_that_the_verifier_does_not_grant_the_authority_is_refused() {
    let mut spec = WorldSpec::new();
    let root = Root {
        allow: Some(vec!["role=stranger".to_owned(), "role=server".to_owned()]),
        ..spec.authority.root()
    };
    spec.b.trust = Trust::Pki {
        key: spec.keys_b.key.clone(),
        credential: Credential::Certificate(spec.keys_b.certificate.clone()),
        roots: vec![root],
        peers_dir: None,
    };
    let server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world = spec.start();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "{}", world.logs());
    assert_eq!(server.accepted(), 0);
    world.b.await_refusal(Reason::TokenConstraint).unwrap();
}

#[test]
fn an_identity_of_a_second_authority_carries_that_authoritys_name() {
    let mut spec = WorldSpec::new();
    let second = Authority::create(&program(), spec.lab.dir(), "second").unwrap();
    let keys = second.issue("node-a", &[]).unwrap();
    let roots = vec![spec.authority.root(), second.root()];
    spec.a.trust = Trust::Pki {
        key: keys.key,
        credential: Credential::Certificate(keys.certificate),
        roots: roots.clone(),
        peers_dir: None,
    };
    spec.b.trust = Trust::Pki {
        key: spec.keys_b.key.clone(),
        credential: Credential::Certificate(spec.keys_b.certificate.clone()),
        roots,
        peers_dir: None,
    };
    spec.b.policy = "\
apiVersion: trireme/v1
policies:
- name: servers
  subject: {role: server}
  ingress:
  - from: [{role: client, '@trust': ca}]
"
    .to_owned();
    let _server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world = spec.start();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "{}", world.logs());
    let record = world.b.await_refusal(Reason::PolicyIngress).unwrap();
    assert!(record.source.tags.to_string().contains("@trust=second"), "{record:?}");
}
