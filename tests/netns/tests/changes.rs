//! Policies that change, identities that are revoked, connections that were there before.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use trireme_flow::FlowRecord;
use trireme_testkit::lab::{Agent, Family, Reach, Server, connect, eventually};
use trireme_tests_netns::{
    Judge, PATIENT, POLICY, PORT, PROMPT, World, WorldSpec, is_alive, is_alive_within, program,
};

/// The time that a change may take to cut, with room for a busy machine.
const SOON: Duration = Duration::from_millis(1000);

fn live(world: &World) -> [TcpStream; 2] {
    Family::BOTH.map(|family| {
        let stream = connect(&world.client.namespace, world.server.at(family, PORT), PROMPT).unwrap();
        assert!(is_alive(&stream), "{family}\n{}", world.look());
        stream
    })
}

/// Waits until a connection carries nothing any more; returns how long that took.
fn cut_after(stream: &TcpStream, start: Instant) -> Option<Duration> {
    while start.elapsed() < PATIENT {
        if !is_alive_within(stream, Duration::from_millis(100)) {
            return Some(start.elapsed());
        }
    }
    None
}

fn world_with(enforcement: &str) -> World {
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    for config in [&mut spec.a, &mut spec.b] {
        config.enforcement.push_str(enforcement);
        config.deny_list = true;
    }
    let world = spec.start();
    world.introduce();
    world
}

fn forbid(world: &World) {
    fs::write(world.b.policy_file(), POLICY.replace("role: client}]", "role: nobody}]")).unwrap();
}

#[test]
fn a_policy_change_cuts_connections_that_it_forbids_and_refuses_new_ones() {
    let world = world_with("on_policy_change = \"cut\"\n");
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let streams = live(&world);
    let start = Instant::now();
    forbid(&world);
    for stream in &streams {
        let took = cut_after(stream, start);
        assert!(took.is_some_and(|took| took < SOON), "{took:?}\n{}", world.look());
    }
    for family in Family::BOTH {
        assert_eq!(world.client_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
    }
    fs::write(world.b.policy_file(), POLICY).unwrap();
    let answers = || Ok(world.client_sees(Family::V4, PORT) == Reach::Answered);
    eventually("the old policy again", PATIENT, answers, || world.look()).unwrap();
}

#[test]
fn a_policy_change_keeps_connections_if_it_is_told_so_and_refuses_new_ones() {
    let world = world_with("on_policy_change = \"keep\"\n");
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let streams = live(&world);
    forbid(&world);
    let refused = || Ok(world.client_sees(Family::V4, PORT) == Reach::Silent);
    eventually("the new policy", PATIENT, refused, || world.look()).unwrap();
    assert!(streams.iter().all(is_alive), "a live connection was cut\n{}", world.look());
    assert_eq!(world.client_sees(Family::V6, PORT), Reach::Silent, "{}", world.look());
}

#[test]
fn a_policy_change_that_still_allows_them_leaves_live_connections_alone_and_the_programs_know_it() {
    let world = world_with("");
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let streams = live(&world);
    for round in 0..5 {
        fs::write(world.b.policy_file(), format!("{POLICY}# version {round}\n")).unwrap();
        let text = format!("{POLICY}- name: other-{round}\n  subject: {{role: other}}\n  ingress: []\n");
        fs::write(world.b.policy_file(), text).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(streams.iter().all(is_alive), "round {round}\n{}", world.look());
        assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "round {round}\n{}", world.look());
    }
}

#[test]
fn a_revoked_node_loses_its_live_connections_and_gets_no_new_ones() {
    revoked_is_cut("", |_| ("node", "node-a".to_owned()));
}

#[test]
fn a_revoked_key_loses_its_live_connections_and_gets_no_new_ones() {
    revoked_is_cut("", |world| ("key", key_id(world)));
}

#[test]
fn a_revoked_token_loses_its_live_connections_and_gets_no_new_ones() {
    revoked_is_cut("", |world| ("token", client_token(world)));
}

/// The token that the client showed, as the server's agent recorded it.
fn client_token(world: &World) -> String {
    let records = world.b.flows().unwrap();
    let shown = |record: &FlowRecord| {
        let source = &record.source;
        source.token.filter(|_| source.id.as_ref().is_some_and(|id| id.as_str() == "client"))
    };
    records.iter().rev().find_map(shown).unwrap_or_else(|| panic!("{records:?}")).to_string()
}

#[test]
fn a_revocation_cuts_live_connections_although_policy_changes_keep_them() {
    revoked_is_cut("on_policy_change = \"keep\"\n", |_| ("node", "node-a".to_owned()));
}

/// The id of node a's key, as the program shows it.
fn key_id(world: &World) -> String {
    let certificate = world.lab.dir().join("ca-node-a.cert.pem");
    let shown = program().run(&["keys", "show", certificate.to_str().unwrap()]).unwrap();
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    shown.split_whitespace().find(is_id).unwrap_or_else(|| panic!("no key id in: {shown}")).to_owned()
}

fn revoked_is_cut(enforcement: &str, entry: impl Fn(&World) -> (&'static str, String)) {
    let world = world_with(enforcement);
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let streams = live(&world);
    let (kind, id) = entry(&world);
    let list = world.b.deny_list();
    let start = Instant::now();
    program().run(&["keys", "revoke", kind, &id, "--deny-list", list.to_str().unwrap()]).unwrap();
    for stream in &streams {
        let took = cut_after(stream, start);
        assert!(took.is_some_and(|took| took < SOON), "{took:?}\n{}", world.look());
    }
    for family in Family::BOTH {
        assert_eq!(world.client_sees(family, PORT), Reach::Silent, "{family}\n{}", world.look());
    }
}

#[test]
fn a_bad_deny_list_is_reported_and_the_last_good_one_stays_in_force() {
    let world = world_with("");
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    let list = world.b.deny_list();
    fs::write(&list, "node node-a\n").unwrap();
    let refused = || Ok(world.client_sees(Family::V4, PORT) == Reach::Silent);
    eventually("the revocation", PATIENT, refused, || world.look()).unwrap();
    fs::write(&list, "nonsense\n").unwrap();
    let complains =
        || Ok(world.b.status()?.pointer("/deny_list/error").is_some_and(|error| error.is_string()));
    eventually("a complaint about the deny list", PATIENT, complains, || world.look()).unwrap();
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Silent, "a bad deny list opened something");
    fs::write(&list, "").unwrap();
    let answers = || Ok(world.client_sees(Family::V4, PORT) == Reach::Answered);
    eventually("the end of the revocation", PATIENT, answers, || world.look()).unwrap();
}

/// Connections made before any agent runs, then the agents.
fn with_older_connections(adopt: &str) -> (World, Server, Vec<TcpStream>) {
    let mut spec = WorldSpec::new();
    for config in [&mut spec.a, &mut spec.b] {
        config.enforcement.push_str(&format!("adopt_existing = \"{adopt}\"\n"));
    }
    let server = Server::echo(&spec.server.namespace, PORT).unwrap();
    let streams: Vec<_> = Family::BOTH
        .iter()
        .flat_map(|family| [&spec.client, &spec.stranger].map(|pu| (pu, spec.server.at(*family, PORT))))
        .map(|(pu, to)| connect(&pu.namespace, to, PROMPT).unwrap())
        .collect();
    assert!(streams.iter().all(is_alive));
    (spec.start(), server, streams)
}

fn adopted(agent: &Agent) -> u64 {
    let status = agent.status().unwrap();
    let units =
        status.pointer("/pus").and_then(|units| units.as_array()).unwrap_or_else(|| panic!("{status}"));
    units.iter().filter_map(|unit| unit.pointer("/datapath/adopted")?.as_u64()).sum()
}

#[test]
fn connections_older_than_the_enforcement_go_on_and_new_ones_are_judged() {
    let (world, _server, streams) = with_older_connections("allow");
    assert!(streams.iter().all(is_alive), "{}", world.look());
    assert_eq!(adopted(&world.a), 4, "{}", world.a.status().unwrap());
    assert_eq!(adopted(&world.b), 4, "{}", world.b.status().unwrap());
    for family in Family::BOTH {
        assert_eq!(world.stranger_sees(family, PORT), Reach::Silent, "{}", world.look());
        assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{}", world.look());
    }
    assert!(streams.iter().all(is_alive), "{}", world.look());
}

#[test]
fn connections_older_than_the_enforcement_are_cut_if_it_is_told_so() {
    let (world, _server, streams) = with_older_connections("drop");
    for stream in &streams {
        assert!(!is_alive_within(stream, PROMPT), "{}", world.look());
    }
    assert_eq!(adopted(&world.a) + adopted(&world.b), 0);
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered, "{}", world.look());
}
