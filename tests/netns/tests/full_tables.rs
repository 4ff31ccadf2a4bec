//! Tables of the kernel that are full, and whoever fills them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use trireme_testkit::lab::{Family, Process, Pu, Reach, Server, Side, eventually};
use trireme_tests_netns::{
    Judge, PATIENT, PORT, World, WorldSpec, half_open, is_alive, is_alive_within, raise_file_limit,
};

/// Echoes on thousands of connections; in a process of its own, which has a limit of files of its own.
const ECHO: &str = "
import resource, selectors, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
listener = socket.create_server(('0.0.0.0', int(sys.argv[1])), backlog=4096)
listener.setblocking(False)
events = selectors.DefaultSelector()
events.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in events.select():
        if key.fileobj is listener:
            stream, _ = listener.accept()
            events.register(stream, selectors.EVENT_READ)
            continue
        try:
            data = key.fileobj.recv(4096)
        except OSError:
            data = b''
        if data:
            key.fileobj.sendall(data)
        else:
            events.unregister(key.fileobj)
            key.fileobj.close()
";

fn echo_process(world: &World, pu: &Pu) -> Process {
    let mut command = Command::new("python3");
    command.args(["-c", ECHO, &PORT.to_string()]);
    let process =
        Process::start(&pu.namespace, "echo server", &mut command, &world.lab.dir().join("echo.log"))
            .unwrap();
    let listens =
        || Ok(pu.namespace.run("ss", &["-Htln", "sport", "=", &format!(":{PORT}")])?.contains("LISTEN"));
    eventually("the echo server", PATIENT, listens, || process.log()).unwrap();
    process
}

fn open_many(client: &Pu, to: SocketAddr, count: usize, limit: Duration) -> Vec<TcpStream> {
    let open = || (0..count).filter_map(|_| TcpStream::connect_timeout(&to, limit).ok()).collect();
    client.namespace.enter(open).unwrap()
}

/// Both nodes with tables as small as they get, but for connections.
fn small(spec: &mut WorldSpec, more: &str) {
    for config in [&mut spec.a, &mut spec.b] {
        config.more.push_str(&format!(
            "[limits]\npeers = 1024\npair_keys = 1024\nverdicts = 1024\ndestinations = 1024\n\
             refusals = 1024\nhandshakes = 1024\nevents = 1024\n{more}"
        ));
        config.log_level = "info";
    }
}

#[test]
fn ten_thousand_live_connections_survive_pressure_on_every_other_table() {
    const LIVE: usize = 10_000;
    raise_file_limit();
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    small(&mut spec, "connections = 32768\n");
    let flooder = spec.lab.add_pu(Side::A, "flooder").unwrap();
    spec.a = spec.a.with(&flooder, &["role=client"]);
    let world = spec.start();
    world.introduce();
    world.introduce_pus(&flooder, &world.server);
    let _server = echo_process(&world, &world.server);
    let to = world.server.at(Family::V4, PORT);
    // More ports than a client has by default.
    world.client.namespace.sysctl("net/ipv4/ip_local_port_range", "2048 65000").unwrap();
    let live = open_many(&world.client, to, LIVE, PATIENT);
    assert_eq!(live.len(), LIVE, "{}", world.look());
    half_open(&flooder, &world.server, 20_000).unwrap();
    // Closed connections by the thousand push each other out, and nothing else.
    assert_eq!(open_many(&world.client, to, 3000, PATIENT).len(), 3000);
    let lost = live.iter().filter(|stream| !is_alive(stream)).count();
    assert_eq!(lost, 0, "of {LIVE} live connections\n{}", world.look());
    assert_eq!(world.client_sees(Family::V4, PORT), Reach::Answered);
}

#[test]
fn a_full_table_of_connections_keeps_the_live_ones_and_takes_new_ones_when_there_is_room() {
    /// What the map holds; the programs' own table holds as many again, as long as no bucket overflows.
    const ROOM: usize = 1024;
    raise_file_limit();
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    small(&mut spec, "connections = 1024\n");
    let world = spec.start();
    world.introduce();
    let _server = echo_process(&world, &world.server);
    let to = world.server.at(Family::V4, PORT);
    let mut live = open_many(&world.client, to, ROOM + 476, PATIENT);
    assert_eq!(live.len(), ROOM + 476, "{}", world.look());
    let over = open_many(&world.client, to, 520, Duration::from_millis(200));
    assert_eq!(live.iter().filter(|stream| !is_alive(stream)).count(), 0, "{}", world.look());
    let beyond = over.iter().filter(|stream| is_alive_within(stream, Duration::from_millis(200))).count();
    let held = [&world.a, &world.b].map(|agent| agent.gauge("connections").unwrap().unwrap());
    assert!(held.iter().all(|held| *held <= 2 * ROOM as u64), "{held:?}, {beyond} beyond\n{}", world.look());
    let told =
        [&world.a, &world.b].map(|agent| agent.gauge("connections beyond the table").unwrap().unwrap());
    assert!(
        told.iter().any(|told| *told > 0),
        "a full table is not told: {held:?}, {beyond} beyond, {told:?}"
    );
    drop(over);
    drop(live.split_off(400));
    let answers = || Ok(world.client_sees(Family::V4, PORT) == Reach::Answered);
    eventually("room for new connections", Duration::from_secs(20), answers, || world.look()).unwrap();
    assert_eq!(live.iter().filter(|stream| !is_alive(stream)).count(), 0, "{}", world.look());
}

#[test]
fn a_unit_that_floods_its_quota_of_handshakes_leaves_the_others_theirs() {
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    for config in [&mut spec.a, &mut spec.b] {
        config.more.push_str("[limits]\nhandshakes_per_unit = 64\n");
        config.log_level = "info";
    }
    let flooder = spec.lab.add_pu(Side::A, "flooder").unwrap();
    let other = spec.lab.add_pu(Side::B, "other").unwrap();
    spec.a = spec.a.with(&flooder, &["role=client"]);
    spec.b = spec.b.with(&other, &["role=server"]);
    let world = spec.start();
    world.introduce();
    world.introduce_pus(&flooder, &other);
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            for _ in 0..20 {
                half_open(&flooder, &other, 2000).unwrap();
            }
        });
        while !flood.is_finished() {
            for family in Family::BOTH {
                assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}\n{}", world.look());
            }
        }
        flood.join().unwrap();
    });
}

#[test]
fn unfinished_handshakes_of_others_send_no_known_peer_to_an_agent() {
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    let flooder = spec.lab.add_pu(Side::A, "flooder").unwrap();
    let other = spec.lab.add_pu(Side::B, "other").unwrap();
    spec.a = spec.a.with(&flooder, &["role=client"]);
    spec.b = spec.b.with(&other, &["role=server"]);
    let mut world = spec.start();
    world.introduce();
    world.introduce_pus(&flooder, &other);
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    // Whatever is asked from here on is never answered.
    world.a.kill().unwrap();
    world.b.kill().unwrap();
    half_open(&flooder, &other, 3000).unwrap();
    for round in 0..500 {
        for family in Family::BOTH {
            let reach = world.client_sees(family, PORT);
            assert_eq!(reach, Reach::Answered, "{family}, round {round}\n{}", world.logs());
        }
    }
}

#[test]
fn a_server_flooded_with_handshakes_of_one_peer_answers_another_known_peer() {
    let mut spec = WorldSpec::new().judged_by(Judge::Kernel);
    let flooder = spec.lab.add_pu(Side::A, "flooder").unwrap();
    spec.a = spec.a.with(&flooder, &["role=client"]);
    let world = spec.start();
    world.introduce();
    world.introduce_pus(&flooder, &world.server);
    let _server = Server::echo(&world.server.namespace, PORT).unwrap();
    half_open(&flooder, &world.server, 5000).unwrap();
    for family in Family::BOTH {
        // The server's own queue of handshakes is full too: its stack answers with cookies.
        let reach = world.client_sees(family, PORT);
        assert_eq!(reach, Reach::Answered, "{family}\n{}", world.look());
    }
    assert_eq!(world.stranger_sees(Family::V4, PORT), Reach::Silent);
}
