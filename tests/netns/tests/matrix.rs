//! Every way to prove an identity, every encoding, both authorization modes, both families.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::thread;

use trireme_testkit::lab::{Family, Pu, Reach, Server, Side, Trust, probe};
use trireme_tests_netns::{PORT, PROMPT, World, WorldSpec};

const PSK: &str = "a key of at least sixteen bytes: 0123456789abcdef";
/// Node a's and node b's tokens: also a JWT node that talks to a CWT node.
const ENCODINGS: [[&str; 2]; 4] = [["cwt", "cwt"], ["jwt", "jwt"], ["jwt", "cwt"], ["cwt", "jwt"]];
const AUTHORIZATIONS: [&str; 2] = ["mutual", "receiver-only"];

/// Starts a world for each encoding and mode, with `trust` set up, and checks all that may and may not pass.
fn admits_and_refuses(trust: impl Fn(&mut WorldSpec)) {
    for [encoding_a, encoding_b] in ENCODINGS {
        for authorization in AUTHORIZATIONS {
            let mut spec = WorldSpec::new();
            let near = spec.lab.add_pu(Side::A, "near").unwrap();
            let decoy = spec.lab.add_pu(Side::B, "decoy").unwrap();
            trust(&mut spec);
            (spec.a.encoding, spec.b.encoding) = (encoding_a, encoding_b);
            (spec.a.authorization, spec.b.authorization) = (authorization, authorization);
            spec.a = spec.a.with(&near, &["role=server"]);
            spec.b = spec.b.with(&decoy, &["role=decoy"]);
            let _servers = [&spec.server, &near, &decoy].map(|pu| Server::echo(&pu.namespace, PORT).unwrap());
            let world = spec.start();
            // Nobody protects the decoy; only the client's own rules keep the client from it.
            let decoy_reach = if authorization == "mutual" { Reach::Silent } else { Reach::Answered };
            let expected = [
                ("client", "server", Reach::Answered),
                ("client", "near", Reach::Answered),
                ("client", "decoy", decoy_reach),
                ("stranger", "server", Reach::Silent),
                ("stranger", "near", Reach::Silent),
                ("stranger", "decoy", Reach::Answered),
            ];
            let pus = [&world.client, &world.stranger, &world.server, &near, &decoy];
            let pairs = expected.map(|(from, to, _)| (from, to));
            let first = see_all(&pus, pairs);
            let (again, taken) = world.judged(|| see_all(&pus, pairs));
            let wanted: Vec<_> = Family::BOTH
                .iter()
                .flat_map(|family| expected.map(|(from, to, reach)| (*family, from, to, reach)))
                .collect();
            let case = format!("{encoding_a} to {encoding_b}, {authorization}");
            assert_eq!(first, wanted, "{case}\n{}", world.logs());
            assert_eq!(again, wanted, "{case}, once they know each other\n{}", world.logs());
            assert!(taken.is_whole(), "{case}: not judged by the programs: {taken}\n{}", world.look());
        }
    }
}

type Seen = (Family, &'static str, &'static str, Reach);

/// Probes all pairs in both families at once.
fn see_all(pus: &[&Pu], pairs: [(&'static str, &'static str); 6]) -> Vec<Seen> {
    let named = |name| pus.iter().find(|pu| pu.name == name).unwrap();
    thread::scope(|scope| {
        let probes: Vec<_> = Family::BOTH
            .iter()
            .flat_map(|family| pairs.map(|(from, to)| (*family, from, to)))
            .map(|(family, from, to)| {
                let (client, server) = (named(from), named(to));
                let probe = move || probe(&client.namespace, server.at(family, PORT), PROMPT).unwrap();
                (family, from, to, scope.spawn(probe))
            })
            .collect();
        probes
            .into_iter()
            .map(|(family, from, to, probe)| (family, from, to, probe.join().unwrap()))
            .collect()
    })
}

#[test]
fn a_pre_shared_key_admits_and_refuses_in_every_encoding_and_mode() {
    admits_and_refuses(|spec| {
        spec.a.trust = Trust::Psk(PSK.to_owned());
        spec.b.trust = Trust::Psk(PSK.to_owned());
    });
}

#[test]
fn certificates_on_the_wire_admit_and_refuse_in_every_encoding_and_mode() {
    admits_and_refuses(|spec| {
        spec.a.trust = spec.keys_a.with_certificate(&spec.authority);
        spec.b.trust = spec.keys_b.with_certificate(&spec.authority);
    });
}

#[test]
fn key_tokens_on_the_wire_admit_and_refuse_in_every_encoding_and_mode() {
    admits_and_refuses(|spec| {
        spec.a.trust = spec.keys_a.with_key_token(&spec.authority);
        spec.b.trust = spec.keys_b.with_key_token(&spec.authority);
    });
}

#[test]
fn pre_populated_keys_admit_and_refuse_in_every_encoding_and_mode() {
    admits_and_refuses(|spec| {
        let peers = spec.lab.dir().join("peers");
        fs::create_dir(&peers).unwrap();
        fs::copy(&spec.keys_a.public, peers.join("node-a.pem")).unwrap();
        fs::copy(&spec.keys_b.public, peers.join("node-b.pem")).unwrap();
        spec.a.trust = spec.keys_a.pre_populated(&peers);
        spec.b.trust = spec.keys_b.pre_populated(&peers);
    });
}

#[test]
fn nodes_with_different_pre_shared_keys_refuse_each_other() {
    let mut spec = WorldSpec::new();
    spec.a.trust = Trust::Psk(PSK.to_owned());
    spec.b.trust = Trust::Psk(format!("{PSK}, but another"));
    let _server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let world: World = spec.start();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "{}", world.logs());
    world.b.await_refusal(trireme_flow::Reason::TokenKeyUnknown).unwrap();
}
