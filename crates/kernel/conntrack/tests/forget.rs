//! Against the connection tracking of the running kernel; needs root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use trireme_conntrack::{Conntrack, ConntrackError, Forgotten, Tuple};
use trireme_netns::Namespace;

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn one_connection_is_forgotten_and_its_neighbour_is_not() {
    let namespace = Namespace::anonymous().unwrap();
    namespace
        .run(|| {
            run("ip link set lo up");
            for table in ["iptables", "ip6tables"] {
                run(&format!("{table} -A INPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT"));
            }
            for address in ["127.0.0.1:7000", "[::1]:7000"] {
                let listener = TcpListener::bind(address).unwrap();
                let keep = TcpStream::connect(address).unwrap();
                let forget = TcpStream::connect(address).unwrap();
                let tuple = |stream: &TcpStream| Tuple {
                    source: stream.local_addr().unwrap(),
                    destination: stream.peer_addr().unwrap(),
                };
                let mut conntrack = Conntrack::connect().unwrap();

                assert_eq!(conntrack.forget(&tuple(&forget)).unwrap(), Forgotten::Removed);

                assert_eq!(conntrack.forget(&tuple(&forget)).unwrap(), Forgotten::Absent);
                let reverse = tuple(&keep);
                let reverse = Tuple { source: reverse.destination, destination: reverse.source };
                assert_eq!(conntrack.forget(&reverse).unwrap(), Forgotten::Removed);
                drop(listener);
            }
        })
        .unwrap();
}

#[test]
fn ends_of_different_families_are_refused() {
    let tuple = Tuple { source: "10.0.0.1:1".parse().unwrap(), destination: "[fd00::1]:2".parse().unwrap() };

    let result = Conntrack::connect().unwrap().forget(&tuple);

    match result {
        Err(ConntrackError::Families(refused)) => assert_eq!(refused, tuple),
        other => panic!("{other:?}"),
    }
}
