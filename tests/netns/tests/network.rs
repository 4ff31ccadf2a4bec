//! What networks do to packets: losing, shrinking, merging, translating.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use socket2::SockRef;
use trireme_testkit::lab::{Family, Process, Reach, Server, Side, Translation, echo, eventually, probe};
use trireme_tests_netns::{PATIENT, PORT, PROMPT, World, WorldSpec, by_each, by_each_with, echo_megabytes};

/// The longest pause of a stack between two tries.
const PAUSE: &str = "/proc/sys/net/ipv4/tcp_rto_max_ms";

#[test]
fn at_five_percent_loss_connections_complete_and_arrive_intact() {
    survives_loss(5, 2);
}

#[test]
fn at_twenty_percent_loss_connections_complete_and_arrive_intact() {
    survives_loss(20, 1);
}

fn survives_loss(percent: u8, megabytes: usize) {
    by_each(|world| {
        // A stack that doubles its pause with every loss is silent for a minute by bad luck alone: without any agent, one
        // transfer in twenty-five was at twenty percent. With short pauses such a silence means that nothing passes.
        // Kernels before 6.15 keep their luck.
        for pu in [&world.client, &world.server].into_iter().filter(|_| Path::new(PAUSE).exists()) {
            pu.namespace.sysctl("net/ipv4/tcp_rto_max_ms", "2000").unwrap();
        }
        // Closed with data on its way, a socket is given up at the longest pause; so closing waits for it.
        let _server = Server::start(&world.server.namespace, PORT, |mut stream| {
            SockRef::from(&stream).set_linger(Some(Duration::from_secs(60))).unwrap();
            echo(&mut stream);
        })
        .unwrap();
        world.lab.lose(percent).unwrap();
        for family in Family::BOTH {
            let to = world.server.at(family, PORT);
            for _ in 0..5 {
                // A handshake that loses a packet each time it tries is possible, not likely.
                let reach = probe(&world.client.namespace, to, Duration::from_secs(40)).unwrap();
                assert_eq!(reach, Reach::Answered, "{family}\n{}", world.logs());
            }
            let echoed = echo_megabytes(&world.client, to, megabytes);
            assert_eq!(echoed.sent, echoed.received, "{family}\n{}", world.logs());
            assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
        }
    });
}

#[test]
fn segmentation_offload_may_be_on_or_off_at_every_interface() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for setting in ["on", "off"] {
            for pu in [&world.client, &world.server] {
                let features = ["tso", "gso", "gro", "tx", "rx"].map(|feature| [feature, setting]).concat();
                pu.namespace.run("ethtool", &[&["-K", "eth0"], &features[..]].concat()).unwrap();
                let node = &world.lab.node(pu.side).namespace;
                node.run("ethtool", &[&["-K", &pu.interface], &features[..]].concat()).unwrap();
            }
            for family in Family::BOTH {
                let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 10);
                assert_eq!(echoed.sent, echoed.received, "offload {setting}, {family}\n{}", world.logs());
                assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
            }
        }
    });
}

#[test]
fn tokens_and_data_fit_through_the_smallest_ipv6_mtu() {
    // As long as a token may be: the payload limit is made for this MTU.
    let tags: Vec<String> =
        (0..8).map(|index| format!("label-{index}=a value of some length {index}")).collect();
    let long_and_narrow = |spec: &mut WorldSpec| {
        for (_, list) in spec.a.pus.iter_mut().chain(&mut spec.b.pus) {
            list.extend(tags.clone());
        }
        spec.lab.limit_mtu(1280).unwrap();
    };
    by_each_with(long_and_narrow, |world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        for family in Family::BOTH {
            assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}\n{}", world.logs());
            let echoed = echo_megabytes(&world.client, world.server.at(family, PORT), 2);
            assert_eq!(echoed.sent, echoed.received, "{family}\n{}", world.logs());
            assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
        }
    });
}

#[test]
fn an_ipv6_client_reaches_an_ipv4_server_through_nat64_and_a_stranger_does_not() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let _nat64 = start_nat64(world);
        let [a, b, c, d] = world.server.v4.octets().map(u16::from);
        let translated = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, a << 8 | b, c << 8 | d);
        let to = SocketAddr::new(IpAddr::V6(translated), PORT);
        // The first of them is a meeting at an address that nobody knows yet.
        for _ in 0..3 {
            let allowed = probe(&world.client.namespace, to, PATIENT).unwrap();
            assert_eq!(allowed, Reach::Answered, "{}", world.logs());
        }
        let refused = probe(&world.stranger.namespace, to, PROMPT).unwrap();
        assert_eq!(refused, Reach::Silent);
        world.b.await_refusal(trireme_flow::Reason::PolicyIngress).unwrap();
    });
}

/// Translates fd00:64::/96 to IPv4 on the router.
fn start_nat64(world: &World) -> Process {
    let router = world.lab.router();
    let config = world.lab.dir().join("tayga.conf");
    let text = format!(
        "tun-device nat64\nipv4-addr 10.64.0.1\nipv6-addr fd00:6464::1\nprefix fd00:64::/96\ndynamic-pool 10.64.0.0/24\ndata-dir {}\n",
        world.lab.dir().display()
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    router.run("tayga", &["--config", config, "--mktun"]).unwrap();
    router
        .ip("link set nat64 up\nroute add 10.64.0.0/24 dev nat64\nroute add fd00:64::/96 dev nat64\n")
        .unwrap();
    let mut command = Command::new("tayga");
    command.args(["--config", config, "--nodetach"]);
    let log = world.lab.dir().join("tayga.log");
    let process = Process::start(router, "tayga", &mut command, &log).unwrap();
    eventually(
        "nat64",
        PATIENT,
        || Ok(router.run("ip", &["link", "show", "nat64"])?.contains("LOWER_UP")),
        || process.log(),
    )
    .unwrap();
    process
}

#[test]
fn translated_addresses_and_services_keep_allowed_allowed_and_refused_refused() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        let services = ["10.96.0.10:80", "[fd00:96::10]:80"].map(|text| text.parse::<SocketAddr>().unwrap());
        let backends = Family::BOTH.map(|family| world.server.at(family, PORT));
        let translations: Vec<_> = services
            .iter()
            .zip(backends)
            .map(|(service, backend)| Translation { service: *service, backend })
            .collect();
        world.lab.translate_destinations(&translations).unwrap();
        world.lab.translate_sources(Side::B).unwrap();
        for to in services.into_iter().chain(backends) {
            let allowed = (0..3)
                .map(|_| probe(&world.client.namespace, to, PROMPT).unwrap())
                .max_by_key(|reach| *reach != Reach::Answered);
            let allowed = allowed.unwrap();
            let refused = probe(&world.stranger.namespace, to, PROMPT).unwrap();
            assert_eq!((to, allowed, refused), (to, Reach::Answered, Reach::Silent), "{}", world.logs());
        }
    });
}

#[test]
fn forced_syn_cookies_change_nothing() {
    by_each(|world| {
        let _server = Server::echo(&world.server.namespace, PORT).unwrap();
        world.server.namespace.sysctl("net/ipv4/tcp_syncookies", "2").unwrap();
        for family in Family::BOTH {
            for _ in 0..5 {
                assert_eq!(world.client_sees(family, PORT), Reach::Answered, "{family}\n{}", world.logs());
            }
            assert_eq!(world.stranger_sees(family, PORT), Reach::Silent);
        }
    });
}
